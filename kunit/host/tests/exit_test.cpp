// SPDX-License-Identifier: GPL-2.0
#include "arch/x86/exit.hpp"

#include "guest.hpp"

#include "arch/x86/guest_debug.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

using namespace kvmpp;
using kvmpp::host::exit_state;
using kvmpp::host::needs_of;

TEST(Exit, reason_is_the_low_half)
{
	Exit exit;

	exit.raw_reason = 0x80000021;
	EXPECT_EQ(exit.reason(), ExitReason::invalid_guest_state);
	EXPECT_TRUE(exit.entry_failed());
	exit.raw_reason = 12;
	EXPECT_EQ(exit.reason(), ExitReason::hlt);
	EXPECT_FALSE(exit.entry_failed());
}

TEST(Exit, rows_are_by_basic_reason)
{
	constexpr unsigned last = exit_rows - 1;

	EXPECT_EQ(exit_row(0), 0u);
	EXPECT_EQ(exit_row(48), 48u);
	EXPECT_EQ(exit_row(last - 1), last - 1);
	EXPECT_EQ(exit_row(last), last);
	EXPECT_EQ(exit_row(0xffff), last);
	/* Bits that go with a reason: of them all but "VM-entry failure" leave it what it is. */
	EXPECT_EQ(exit_row(1 << 27 | 48), 48u);
	EXPECT_EQ(exit_row(0x80000021), last);
	EXPECT_TRUE(needs_of_exits.of[last].fields.qualification);
	EXPECT_TRUE(needs_of_exits.of[last].more);
}

/* A handler that looks at a field that was not read of its exit finds 0, and not what the exit before had there. */
TEST(Exit, what_is_renewed_has_nothing_of_the_one_before)
{
	Exit exit;

	exit.cpu = {3};
	exit.has_more = true;
	exit.qualification = exit.guest_linear = exit.guest_phys.value = 1;
	exit.interruption.raw = exit.vectoring.raw = 0x80000b0e;
	exit.renew(static_cast<u32>(ExitReason::hlt));
	EXPECT_EQ(exit.reason(), ExitReason::hlt);
	EXPECT_EQ(exit.cpu.value, 3);
	EXPECT_FALSE(exit.has_more);
	EXPECT_EQ(exit.qualification | exit.guest_linear | exit.guest_phys.value, 0u);
	EXPECT_FALSE(exit.interruption.valid() || exit.vectoring.valid());
}

TEST(Exit, cr_access)
{
	CrAccess mov(0x0304), from(0x0f18), clts(0x20), lmsw(0xabcd0030);

	EXPECT_EQ(mov.cr, 4);
	EXPECT_EQ(mov.type, CrAccess::Type::mov_to);
	EXPECT_EQ(mov.reg, rbx);
	EXPECT_EQ(from.cr, 8);
	EXPECT_EQ(from.type, CrAccess::Type::mov_from);
	EXPECT_EQ(from.reg, r15);
	EXPECT_EQ(clts.type, CrAccess::Type::clts);
	EXPECT_EQ(lmsw.type, CrAccess::Type::lmsw);
	EXPECT_EQ(lmsw.lmsw_source, 0xabcd);
}

TEST(Exit, dr_access)
{
	DrAccess to(0x0007), from(0x0c16);

	EXPECT_EQ(to.dr, 7);
	EXPECT_FALSE(to.from);
	EXPECT_EQ(to.reg, rax);
	EXPECT_EQ(from.dr, 6);
	EXPECT_TRUE(from.from);
	EXPECT_EQ(from.reg, r12);
}

TEST(Exit, io_access)
{
	IoAccess out(0x03f80040), in(0x00600009), string(0x01f00039), in4(0x0cf8000b);

	EXPECT_EQ(out.port, 0x3f8);
	EXPECT_EQ(out.size, 1);
	EXPECT_FALSE(out.in);
	EXPECT_FALSE(out.string);
	EXPECT_EQ(in.size, 2);
	EXPECT_TRUE(in.in);
	EXPECT_TRUE(string.string);
	EXPECT_TRUE(string.rep);
	EXPECT_TRUE(string.in);
	EXPECT_EQ(string.port, 0x1f0);
	EXPECT_EQ(in4.size, 4);
	EXPECT_EQ(in4.port, 0xcf8);
}

TEST(Exit, ept_violation)
{
	EptViolation read(0x81), write(0x182), fetch(0x184), table(0x01);

	EXPECT_FALSE(read.write);
	EXPECT_FALSE(read.fetch);
	EXPECT_TRUE(read.linear_valid);
	EXPECT_TRUE(write.write);
	EXPECT_TRUE(fetch.fetch);
	EXPECT_FALSE(table.linear_valid);
}

TEST(Exit, interruption_info)
{
	InterruptionInfo page_fault{0x80000b0e}, nmi{0x80000202}, interrupt3{0x80000603},
		int80{0x80000480};

	EXPECT_TRUE(page_fault.valid());
	EXPECT_EQ(page_fault.vector(), 14);
	EXPECT_EQ(page_fault.type(), InterruptionInfo::Type::hardware_exception);
	EXPECT_TRUE(page_fault.has_error_code());
	EXPECT_FALSE(page_fault.is_software());
	EXPECT_EQ(nmi.type(), InterruptionInfo::Type::nmi);
	EXPECT_FALSE(nmi.is_software());
	EXPECT_TRUE(interrupt3.is_software());
	EXPECT_TRUE(int80.is_software());
	EXPECT_FALSE(InterruptionInfo{}.valid());
}

/* What is read of the exit covers what the handlers use. */
TEST(Exit, fields_and_state_of_each_reason)
{
	for (ExitReason reason : {ExitReason::cpuid, ExitReason::hlt, ExitReason::rdmsr,
				  ExitReason::wrmsr, ExitReason::xsetbv, ExitReason::invd,
				  ExitReason::wbinvd, ExitReason::control_register_access,
				  ExitReason::mov_dr, ExitReason::io_instruction}) {
		Exit exit;

		exit.raw_reason = static_cast<u32>(reason);
		EXPECT_TRUE(needs_of(reason).fields.instruction_length) << exit.raw_reason;
		EXPECT_TRUE((Groups(Group::rip) - exit_state(exit)).empty()) << exit.raw_reason;
		EXPECT_TRUE(exit_state(exit).has(Group::rflags)) << exit.raw_reason;
		EXPECT_TRUE(exit_state(exit).has(Group::interruptibility)) << exit.raw_reason;
	}
	for (ExitReason reason :
	     {ExitReason::ept_violation, ExitReason::exception_or_nmi, ExitReason::task_switch})
		EXPECT_TRUE(needs_of(reason).fields.vectoring) << static_cast<unsigned>(reason);
	EXPECT_TRUE(needs_of(ExitReason::ept_violation).fields.addresses);
	EXPECT_TRUE(needs_of(ExitReason::exception_or_nmi).fields.interruption);
}

TEST(Exit, string_io_is_read_with_all_that_emulation_needs)
{
	Exit exit;

	exit.raw_reason = static_cast<u32>(ExitReason::io_instruction);
	EXPECT_FALSE(exit_state(exit).has(Group::segments));
	exit.qualification = 0x10;
	EXPECT_TRUE((emulation_state - exit_state(exit)).empty());
	EXPECT_TRUE(needs_of(exit.reason()).fields.of_string);
}

TEST(Exit, nothing_is_mapped_where_a_device_may_be)
{
	Exit exit;

	exit.raw_reason = static_cast<u32>(ExitReason::ept_violation);
	exit.qualification = 0x182;
	EXPECT_TRUE((emulation_state - exit_state(exit)).empty());
	for (u64 allowed : {1 << 3, 1 << 4, 1 << 5}) {
		exit.qualification = 0x182 | allowed;
		EXPECT_TRUE(exit_state(exit).empty());
	}
}

/* What MOV to CR0 and CR4 change is not all that an instruction's operand needs. */
TEST(Exit, control_registers_are_read_with_all_that_they_change)
{
	Exit exit;

	for (ExitReason reason : {ExitReason::control_register_access, ExitReason::mov_dr}) {
		exit.raw_reason = static_cast<u32>(reason);
		EXPECT_TRUE((emulation_state - exit_state(exit)).empty());
		EXPECT_TRUE(exit_state(exit).has(Group::segments));
		EXPECT_TRUE(exit_state(exit).has(Group::cr4));
	}
}

TEST(Exit, debug_exception_may_add_to_those_that_are_pending)
{
	Exit exit;

	exit.raw_reason = static_cast<u32>(ExitReason::exception_or_nmi);
	exit.interruption = {0x80000301};
	EXPECT_TRUE(exit_state(exit).has(Group::pending_debug));
	EXPECT_TRUE(debug_state.has(Group::pending_debug));
}

TEST(Exit, names_are_unique)
{
	std::set<std::string> names;

	for (unsigned i = 0; i < static_cast<unsigned>(ExitReason::count); i++) {
		const char *name = exit_reason_name(static_cast<ExitReason>(i));
		EXPECT_TRUE(!name || names.insert(name).second) << name;
	}
	EXPECT_GE(names.size(), 20u);
	EXPECT_EQ(exit_reason_name(static_cast<ExitReason>(79)), nullptr);
}
