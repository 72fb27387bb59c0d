/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvmpp

#if !defined(VIRT_LINUX_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VIRT_LINUX_TRACE_H

#include <linux/smp.h>
#include <linux/tracepoint.h>

DECLARE_EVENT_CLASS(kvmpp_cpu,
	TP_PROTO(unsigned int cpu),
	TP_ARGS(cpu),
	TP_STRUCT__entry(
		__field(unsigned int, cpu)
	),
	TP_fast_assign(
		__entry->cpu = cpu;
	),
	TP_printk("cpu=%u", __entry->cpu)
);

DEFINE_EVENT(kvmpp_cpu, kvmpp_vmx_on, TP_PROTO(unsigned int cpu), TP_ARGS(cpu));
DEFINE_EVENT(kvmpp_cpu, kvmpp_vmx_off, TP_PROTO(unsigned int cpu), TP_ARGS(cpu));

TRACE_EVENT(kvmpp_vmcs_load,
	TP_PROTO(unsigned int cpu, u32 process, u32 vm, u32 vcpu),
	TP_ARGS(cpu, process, vm, vcpu),
	TP_STRUCT__entry(
		__field(unsigned int, cpu)
		__field(u32, process)
		__field(u32, vm)
		__field(u32, vcpu)
	),
	TP_fast_assign(
		__entry->cpu = cpu;
		__entry->process = process;
		__entry->vm = vm;
		__entry->vcpu = vcpu;
	),
	TP_printk("cpu=%u process=%u vm=%u vcpu=%u", __entry->cpu, __entry->process, __entry->vm,
		  __entry->vcpu)
);

TRACE_EVENT(kvmpp_vmcs_clear,
	TP_PROTO(unsigned int cpu, u32 process, u32 vm, u32 vcpu, const char *cause),
	TP_ARGS(cpu, process, vm, vcpu, cause),
	TP_STRUCT__entry(
		__field(unsigned int, cpu)
		__field(u32, process)
		__field(u32, vm)
		__field(u32, vcpu)
		__array(char, cause, 8)
	),
	TP_fast_assign(
		__entry->cpu = cpu;
		__entry->process = process;
		__entry->vm = vm;
		__entry->vcpu = vcpu;
		strscpy(__entry->cause, cause, sizeof(__entry->cause));
	),
	TP_printk("cpu=%u process=%u vm=%u vcpu=%u cause=%s", __entry->cpu, __entry->process,
		  __entry->vm, __entry->vcpu, __entry->cause)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
