// SPDX-License-Identifier: GPL-2.0
#include "controls.hpp"

namespace kvmpp
{

const char *exit_reason_name(ExitReason reason)
{
	switch (reason) {
	case ExitReason::exception_or_nmi:
		return "exception_nmi";
	case ExitReason::external_interrupt:
		return "external_interrupt";
	case ExitReason::triple_fault:
		return "triple_fault";
	case ExitReason::interrupt_window:
		return "interrupt_window";
	case ExitReason::nmi_window:
		return "nmi_window";
	case ExitReason::task_switch:
		return "task_switch";
	case ExitReason::cpuid:
		return "cpuid";
	case ExitReason::hlt:
		return "hlt";
	case ExitReason::invd:
		return "invd";
	case ExitReason::rdpmc:
		return "rdpmc";
	case ExitReason::vmcall:
		return "vmcall";
	case ExitReason::control_register_access:
		return "cr";
	case ExitReason::mov_dr:
		return "mov_dr";
	case ExitReason::io_instruction:
		return "io";
	case ExitReason::rdmsr:
		return "msr_read";
	case ExitReason::wrmsr:
		return "msr_write";
	case ExitReason::invalid_guest_state:
		return "invalid_guest_state";
	case ExitReason::mwait:
		return "mwait";
	case ExitReason::monitor:
		return "monitor";
	case ExitReason::pause:
		return "pause";
	case ExitReason::ept_violation:
		return "ept_violation";
	case ExitReason::ept_misconfiguration:
		return "ept_misconfiguration";
	case ExitReason::preemption_timer:
		return "preemption_timer";
	case ExitReason::wbinvd:
		return "wbinvd";
	case ExitReason::xsetbv:
		return "xsetbv";
	case ExitReason::page_modification_log_full:
		return "pml_full";
	default:
		return nullptr;
	}
}

} // namespace kvmpp
