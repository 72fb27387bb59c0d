// SPDX-License-Identifier: GPL-2.0
#include "exit.hpp"

#include "events.hpp"

namespace kvmpp
{

namespace
{

constexpr ExitFields fields_of(ExitReason reason)
{
	switch (reason) {
	case ExitReason::external_interrupt:
	case ExitReason::triple_fault:
	case ExitReason::preemption_timer:
		return {};
	case ExitReason::exception_or_nmi:
		return {.qualification = true, .interruption = true, .vectoring = true};
	case ExitReason::cpuid:
	case ExitReason::hlt:
	case ExitReason::invd:
	case ExitReason::wbinvd:
	case ExitReason::rdmsr:
	case ExitReason::wrmsr:
	case ExitReason::pause:
	case ExitReason::vmcall:
	case ExitReason::xsetbv:
		return {.instruction_length = true};
	case ExitReason::control_register_access:
	case ExitReason::mov_dr:
		return {.instruction_length = true, .qualification = true};
	case ExitReason::io_instruction:
		return {.instruction_length = true, .qualification = true, .of_string = true};
	case ExitReason::ept_violation:
	case ExitReason::task_switch:
		return {.qualification = true, .addresses = true, .vectoring = true};
	case ExitReason::ept_misconfiguration:
		return {.addresses = true, .vectoring = true};
	case ExitReason::page_modification_log_full:
		return {.qualification = true, .vectoring = true};
	default:
		return {.qualification = true};
	}
}

/* Where it does not depend. */
constexpr Groups state_of(ExitReason reason)
{
	switch (reason) {
	case ExitReason::cpuid:
	case ExitReason::hlt:
	case ExitReason::invd:
	case ExitReason::wbinvd:
	case ExitReason::rdmsr:
	case ExitReason::wrmsr:
	case ExitReason::pause:
		return skip_state;
	case ExitReason::vmcall:
	case ExitReason::xsetbv:
		return skip_state | Group::segments;
	case ExitReason::control_register_access:
	case ExitReason::mov_dr:
		return emulation_state | Group::cr4 | Group::segments;
	/* Of them many are kicks, after which user space sees it. */
	case ExitReason::external_interrupt:
	/* The timer's interrupt is next. */
	case ExitReason::preemption_timer:
		return window_state;
	default:
		return {};
	}
}

Groups exception_state(Vector vector)
{
	switch (vector) {
	case Vector::debug:
	case Vector::breakpoint:
		return skip_state | Group::segments | Group::pending_debug;
	case Vector::alignment_check:
		return Group::rip | Group::rflags | Group::cr0 | Group::segments;
	default:
		return {};
	}
}

} // namespace

constexpr NeedsOfExits::NeedsOfExits()
{
	for (unsigned i = 0; i < exit_rows; i++) {
		ExitReason reason = static_cast<ExitReason>(i);
		ExitFields fields = fields_of(reason);

		of[i] = {.fields = fields,
			 .more = fields.qualification || fields.addresses || fields.interruption ||
				 fields.vectoring || fields.of_string,
			 .depends = fields.vectoring || reason == ExitReason::io_instruction,
			 .state = state_of(reason)};
	}
}

constinit const NeedsOfExits needs_of_exits;

unsigned odd_exit_row(u32 raw_reason)
{
	constexpr unsigned last = exit_rows - 1;
	Exit exit;

	exit.raw_reason = raw_reason;
	auto reason = static_cast<unsigned>(exit.reason());

	return reason < last && !exit.entry_failed() ? reason : last;
}

bool unblocked_nmis(const Exit &exit)
{
	constexpr u32 unblocked = 1 << 12;

	if (exit.vectoring.valid())
		return false;
	switch (exit.reason()) {
	case ExitReason::exception_or_nmi:
		return exit.interruption.type() == InterruptionInfo::Type::hardware_exception &&
		       static_cast<Vector>(exit.interruption.vector()) != Vector::double_fault &&
		       (exit.interruption.raw & unblocked);
	case ExitReason::ept_violation:
	case ExitReason::page_modification_log_full:
		return exit.qualification & unblocked;
	default:
		return false;
	}
}

Groups dependent_exit_state(const Exit &exit)
{
	bool blocking =
		unblocked_nmis(exit) ||
		(exit.vectoring.valid() && exit.vectoring.type() == InterruptionInfo::Type::nmi);
	Groups state = blocking ? Groups(Group::interruptibility) : Groups();

	switch (exit.reason()) {
	case ExitReason::exception_or_nmi:
		return state | exception_state(static_cast<Vector>(exit.interruption.vector()));
	case ExitReason::io_instruction:
		return IoAccess(exit.qualification).string ? emulation_state : skip_state;
	/* RAM that is not there yet, or a device: then it spares another visit to the VMCS. */
	case ExitReason::ept_violation:
		return EptViolation(exit.qualification).mapped ? state : state | emulation_state;
	default:
		return state;
	}
}

} // namespace kvmpp
