// SPDX-License-Identifier: GPL-2.0
/* A debugger in user space: what it sets, what it is told, and what the guest does not see of it. */
#include "guest.hpp"

#include "arch/x86/guest_debug.hpp"
#include "arch/x86/sregs.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class Debug : public GuestTest
{
protected:
	Debug() { protected_mode(); }

	Result<> set(u32 control)
	{
		kvm_guest_debug k{.control = control, .pad = 0, .arch = {}};

		for (u64 i = 0; i < 4; i++)
			k.arch.debugreg[i] = 0x1000 * (i + 1);
		k.arch.debugreg[7] = 0x402;
		return set_guest_debug(s, k);
	}
	static constexpr u32 step = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
	static constexpr u32 hardware = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
	static Exit exception(Vector vector, u64 qualification = 0, u32 length = 0)
	{
		Exit exit = exit_of(ExitReason::exception_or_nmi, qualification, length);
		exit.interruption = {0x80000300 | static_cast<u32>(vector)};
		return exit;
	}
	void expect_told(Next next, Vector vector, u64 dr6)
	{
		EXPECT_EQ(next, Next::user);
		EXPECT_EQ(s.user.reason, u32{KVM_EXIT_DEBUG});
		EXPECT_EQ(s.user.debug.exception, static_cast<u32>(vector));
		EXPECT_EQ(s.user.debug.pc, s.linear_rip());
		EXPECT_EQ(s.user.debug.dr6, dr6);
		EXPECT_FALSE(s.has_event);
	}
};

} // namespace

TEST_F(Debug, tf_is_not_the_guests)
{
	kvm_regs k;

	s.seg(Seg::cs).base = 0x10000;
	ASSERT_TRUE(set(step));
	EXPECT_TRUE(s.rflags & rflags::tf);
	EXPECT_TRUE(s.dirty.has(Group::rflags) && s.dirty.has(Group::controls));
	EXPECT_EQ(s.debug.step_from, 0x11000u);
	get_regs(s, k);
	EXPECT_FALSE(k.rflags & rflags::tf);
	set_regs(s, k);
	EXPECT_TRUE(s.rflags & rflags::tf) << "where the step begins";
	k.rip++;
	set_regs(s, k);
	EXPECT_FALSE(s.rflags & rflags::tf) << "elsewhere";
	ASSERT_TRUE(set(step));
	ASSERT_TRUE(set(0));
	EXPECT_FALSE(s.rflags & rflags::tf);
}

TEST_F(Debug, step_and_breakpoint_are_told)
{
	ASSERT_TRUE(set(step));
	expect_told(handle(exception(Vector::debug, dr6::bs)), Vector::debug, dr6::fixed | dr6::bs);
	ASSERT_TRUE(set(hardware));
	expect_told(handle(exception(Vector::debug, 1)), Vector::debug, dr6::fixed | 1);
	EXPECT_EQ(s.user.debug.dr7, 0x402u);
	EXPECT_EQ(s.dr6, dr6::fixed) << "the guest's own";
	ASSERT_TRUE(set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP));
	expect_told(handle(exception(Vector::breakpoint, 0, 1)), Vector::breakpoint, 0);
	EXPECT_EQ(s.soft_length, 1u);
}

TEST_F(Debug, emulated_instruction_is_a_step)
{
	ASSERT_TRUE(set(step));
	EXPECT_EQ(handle(exit_of(ExitReason::wbinvd)), Next::resume);
	EXPECT_TRUE(s.debug.step_due);
	EXPECT_FALSE(s.has_event);
	/* HLT itself is told. */
	EXPECT_EQ(handle(exit_of(ExitReason::hlt)), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_HLT});
	EXPECT_FALSE(s.debug.step_due);
	ASSERT_TRUE(set(0));
	EXPECT_EQ(handle(exit_of(ExitReason::wbinvd)), Next::resume);
	EXPECT_FALSE(s.debug.step_due);
}

TEST_F(Debug, step_ends_where_user_space_sets_registers)
{
	kvm_regs k;

	ASSERT_TRUE(set(step));
	s.skip_instruction(1);
	get_regs(s, k);
	set_regs(s, k);
	EXPECT_FALSE(s.debug.step_due);
}

TEST_F(Debug, debug_registers_of_the_vmm)
{
	s.dr7 = 0x401;
	s.dr[0] = 0x7777;
	ASSERT_TRUE(set(hardware));
	EXPECT_EQ(s.effective_dr7(), 0x402u);
	EXPECT_EQ(s.effective_dr()[0], 0x1000u);
	EXPECT_EQ(s.dr7, 0x401u);
	EXPECT_TRUE(s.dirty.has(Group::dr7));
	/* An access with DR7.GD of the VMM's is for the VMM. */
	s.debug.dr7 |= dr7::gd;
	expect_told(handle(exit_of(ExitReason::mov_dr)), Vector::debug, dr6::fixed | dr6::bd);
	ASSERT_TRUE(set(KVM_GUESTDBG_ENABLE));
	EXPECT_EQ(s.effective_dr7(), 0x401u);
	EXPECT_EQ(s.effective_dr()[0], 0x7777u);
}

TEST_F(Debug, nothing_without_enable)
{
	ASSERT_TRUE(set(KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP));
	EXPECT_EQ(s.debug.control, 0u);
	EXPECT_FALSE(s.rflags & rflags::tf);
}

TEST_F(Debug, injects)
{
	s.soft_length = 1;
	ASSERT_TRUE(set(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP));
	expect_event(Vector::breakpoint, InterruptionInfo::Type::software_exception);
	EXPECT_EQ(s.event.instruction_length, 1u);
	Result<> r = set(step | KVM_GUESTDBG_INJECT_DB);
	ASSERT_FALSE(r);
	EXPECT_EQ(r.error(), Errno::busy);
	EXPECT_FALSE(s.is_debugged(GuestDebug::single_step));
	s.has_event = false;
	s.dr7 |= dr7::gd;
	ASSERT_TRUE(set(KVM_GUESTDBG_INJECT_DB));
	expect_event(Vector::debug);
	EXPECT_FALSE(s.dr7 & dr7::gd);
	EXPECT_EQ(s.debug.control, 0u);
}
