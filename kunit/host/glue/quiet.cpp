// SPDX-License-Identifier: GPL-2.0
/* Glue whose effect nobody here looks at. */
#include <linux_glue/trace.h>

void glue_trace_vmx_on(void)
{
}

void glue_trace_vmx_off(void)
{
}

void glue_trace_vmcs_load(glue_u32, glue_u32, glue_u32)
{
}

void glue_trace_vmcs_clear(glue_u32, glue_u32, glue_u32, const char *)
{
}
