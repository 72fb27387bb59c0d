// SPDX-License-Identifier: GPL-2.0
#include <linux_glue/trace.h>

#define CREATE_TRACE_POINTS
#include "trace.h"

void glue_trace_vmx_on(void)
{
	trace_kvmpp_vmx_on(raw_smp_processor_id());
}

void glue_trace_vmx_off(void)
{
	trace_kvmpp_vmx_off(raw_smp_processor_id());
}

void glue_trace_vmcs_load(glue_u32 process, glue_u32 vm, glue_u32 vcpu)
{
	trace_kvmpp_vmcs_load(raw_smp_processor_id(), process, vm, vcpu);
}

void glue_trace_vmcs_clear(glue_u32 process, glue_u32 vm, glue_u32 vcpu, const char *cause)
{
	trace_kvmpp_vmcs_clear(raw_smp_processor_id(), process, vm, vcpu, cause);
}
