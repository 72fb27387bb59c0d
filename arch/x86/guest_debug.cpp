// SPDX-License-Identifier: GPL-2.0
#include "guest_debug.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

static_assert(GuestDebug::enable == KVM_GUESTDBG_ENABLE &&
	      GuestDebug::single_step == KVM_GUESTDBG_SINGLESTEP &&
	      GuestDebug::block_irq == KVM_GUESTDBG_BLOCKIRQ &&
	      GuestDebug::software_breakpoints == KVM_GUESTDBG_USE_SW_BP &&
	      GuestDebug::hardware_breakpoints == KVM_GUESTDBG_USE_HW_BP &&
	      GuestDebug::inject_db == KVM_GUESTDBG_INJECT_DB &&
	      GuestDebug::inject_bp == KVM_GUESTDBG_INJECT_BP);

namespace
{

void inject_for_debugger(VcpuState &s, u32 control)
{
	if (!(control & KVM_GUESTDBG_INJECT_DB)) {
		s.has_event = true;
		s.event = {
			.info = {static_cast<u32>(Vector::breakpoint) |
				 static_cast<u32>(InterruptionInfo::Type::software_exception) << 8 |
				 InterruptionInfo::valid_bit},
			.error_code = 0,
			.instruction_length = s.soft_length,
			.again = false};
		return;
	}
	if ((s.own_rflags() & rflags::tf) && (s.interruptibility & blocking_by_sti_or_mov_ss)) {
		/* VM entry insists on the trap that such blocking has held back. */
		s.pending_debug |= dr6::bs;
		s.mark_dirty(Group::pending_debug);
	}
	if (s.dr7 & dr7::gd) {
		s.dr7 &= ~dr7::gd;
		s.mark_dirty(Group::dr7);
	}
	/* It is benign: there is none that it makes a triple fault with. */
	(void)s.inject(Vector::debug);
}

} // namespace

Result<> set_guest_debug(VcpuState &s, const kvm_guest_debug &k)
{
	if (k.control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		if (s.has_event && !s.event.again)
			return Errno::busy;
		inject_for_debugger(s, k.control);
	}
	u64 own = s.own_rflags();

	s.debug = {};
	if (k.control & KVM_GUESTDBG_ENABLE)
		s.debug.control = k.control;
	if (s.is_debugged(GuestDebug::hardware_breakpoints)) {
		for (int i = 0; i < 4; i++)
			s.debug.dr[i] = k.arch.debugreg[i];
		s.debug.dr7 = k.arch.debugreg[7];
	}
	if (s.is_debugged(GuestDebug::single_step))
		s.debug.step_from = s.linear_rip();
	set_rflags(s, own);
	/* The effective one, and the exceptions that exit. */
	s.mark_dirty(Group::rflags | Group::dr7 | Group::controls);
	return {};
}

void set_rflags(VcpuState &s, u64 value)
{
	s.rflags = value;
	if (s.is_debugged(GuestDebug::single_step) && s.linear_rip() == s.debug.step_from)
		s.rflags |= rflags::tf;
}

Next debug_exit(VcpuState &s, Vector vector, u64 dr6)
{
	s.debug.step_due = false;
	s.user = {.reason = KVM_EXIT_DEBUG,
		  .debug = {.exception = static_cast<u32>(vector),
			    .pc = s.linear_rip(),
			    .dr6 = dr6,
			    .dr7 = s.effective_dr7()}};
	return Next::user;
}

} // namespace kvmpp
