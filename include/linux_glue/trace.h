/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints, kvmpp:* to perf and trace-cmd, of this CPU. Interrupts off; not from an NMI. */
#ifndef LINUX_GLUE_TRACE_H
#define LINUX_GLUE_TRACE_H

#include "base.h"

GLUE_BEGIN

void glue_trace_vmx_on(void);
void glue_trace_vmx_off(void);
/* The VMCS of the @vcpu of the @vm, made by @process, goes to or leaves this CPU. */
void glue_trace_vmcs_load(glue_u32 process, glue_u32 vm, glue_u32 vcpu);
void glue_trace_vmcs_clear(glue_u32 process, glue_u32 vm, glue_u32 vcpu, const char *cause);

GLUE_END

#endif
