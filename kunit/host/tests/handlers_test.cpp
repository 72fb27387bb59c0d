// SPDX-License-Identifier: GPL-2.0
/* Exits that need neither a control register's rules nor an instruction's emulation. */
#include "guest.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class Handlers : public GuestTest
{
protected:
	/* The instruction was done, and RIP is past it. */
	void expect_skipped(Next next, u64 by = 2)
	{
		EXPECT_EQ(next, Next::resume);
		EXPECT_EQ(s.rip, 0x1000 + by);
		EXPECT_FALSE(s.has_event);
	}
	Next rdmsr(u32 index)
	{
		s.gpr[rcx] = index;
		return handle(exit_of(ExitReason::rdmsr));
	}
	Next wrmsr(u32 index, u64 value)
	{
		s.gpr[rcx] = index;
		s.gpr[rax] =
			0xffffffff00000000 | (value & 0xffffffff); /* upper halves do not count */
		s.gpr[rdx] = 0xffffffff00000000 | value >> 32;
		return handle(exit_of(ExitReason::wrmsr));
	}
	u64 msr_read() const { return s.gpr[rdx] << 32 | s.gpr[rax]; }
	/* The instruction raised #GP(0) and changed nothing. */
	void expect_refused(Next next)
	{
		EXPECT_EQ(next, Next::resume);
		expect_general_protection();
		EXPECT_EQ(s.rip, 0x1000u);
		s.has_event = false;
	}
};

} // namespace

TEST_F(Handlers, external_interrupt_and_nmi_need_nothing)
{
	protected_mode();
	EXPECT_EQ(handle(exit_of(ExitReason::external_interrupt)), Next::resume);
	Exit nmi = exit_of(ExitReason::exception_or_nmi);
	nmi.interruption = {0x80000202};
	EXPECT_EQ(handle(nmi), Next::resume);
	EXPECT_EQ(s.rip, 0x1000u);
	EXPECT_FALSE(s.has_event);
}

TEST_F(Handlers, cpuid_clears_upper_halves_and_skips)
{
	long_mode();
	for (Gpr reg : {rax, rbx, rcx, rdx})
		s.gpr[reg] = 0xffffffff00000000;
	s.gpr[rax] = 0xffffffff00000000; /* leaf 0 */
	expect_skipped(handle(exit_of(ExitReason::cpuid)));
	EXPECT_EQ(s.gpr[rax], 0xdu);
	EXPECT_EQ(s.gpr[rbx], 0x756e6547u);
	EXPECT_EQ(s.gpr[rcx], 0x6c65746eu);
	EXPECT_EQ(s.gpr[rdx], 0x49656e69u);
}

TEST_F(Handlers, pause_is_skipped_and_spins)
{
	protected_mode();
	EXPECT_TRUE((skip_state - exit_state(exit_of(ExitReason::pause))).empty());
	EXPECT_TRUE(needs_of(ExitReason::pause).fields.instruction_length);
	EXPECT_EQ(handle(exit_of(ExitReason::pause)), Next::spin);
	EXPECT_EQ(s.rip, 0x1002u);
	EXPECT_FALSE(s.has_event);
}

TEST_F(Handlers, hlt_goes_to_user_space_after_it)
{
	protected_mode();
	EXPECT_EQ(handle(exit_of(ExitReason::hlt, 0, 1)), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_HLT});
	EXPECT_EQ(s.rip, 0x1001u);
}

TEST_F(Handlers, invd_and_wbinvd_are_skipped)
{
	for (ExitReason reason : {ExitReason::invd, ExitReason::wbinvd}) {
		protected_mode();
		expect_skipped(handle(exit_of(reason)));
	}
}

TEST_F(Handlers, triple_fault_shuts_down)
{
	EXPECT_EQ(handle(exit_of(ExitReason::triple_fault)), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_SHUTDOWN});
}

TEST_F(Handlers, instructions_that_cpuid_does_not_offer)
{
	for (ExitReason reason :
	     {ExitReason::getsec, ExitReason::rsm, ExitReason::vmclear, ExitReason::vmlaunch,
	      ExitReason::vmptrld, ExitReason::vmptrst, ExitReason::vmread, ExitReason::vmresume,
	      ExitReason::vmwrite, ExitReason::vmxoff, ExitReason::vmxon, ExitReason::mwait,
	      ExitReason::monitor, ExitReason::invept, ExitReason::invvpid}) {
		protected_mode();
		s.has_event = false;
		EXPECT_EQ(handle(exit_of(reason)), Next::resume);
		expect_event(Vector::invalid_opcode);
		EXPECT_EQ(s.rip, 0x1000u);
	}
}

TEST_F(Handlers, hypercalls_are_answered_and_unknown)
{
	long_mode();
	s.gpr[rax] = 9;
	expect_skipped(handle(exit_of(ExitReason::vmcall, 0, 3)), 3);
	EXPECT_EQ(s.gpr[rax], static_cast<u64>(-1000));
	s.seg(Seg::ss).access_rights |= 3 << 5;
	s.rip = 0x1000;
	expect_skipped(handle(exit_of(ExitReason::vmcall, 0, 3)), 3);
	EXPECT_EQ(s.gpr[rax], static_cast<u64>(-1)) << "not for user mode";
	protected_mode();
	expect_skipped(handle(exit_of(ExitReason::vmcall, 0, 3)), 3);
	EXPECT_EQ(s.gpr[rax], 0xfffffc18u);
	EXPECT_TRUE(exit_state(exit_of(ExitReason::vmcall)).has(Group::segments));
	EXPECT_TRUE(needs_of(ExitReason::vmcall).fields.instruction_length);
}

TEST_F(Handlers, rdpmc_is_refused)
{
	protected_mode();
	expect_refused(handle(exit_of(ExitReason::rdpmc)));
}

TEST_F(Handlers, entry_failure_names_reason_and_cpu)
{
	Exit exit = exit_of(ExitReason::invalid_guest_state);
	exit.raw_reason |= u32{1} << 31;
	exit.cpu = {3};

	EXPECT_EQ(handle(exit), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_FAIL_ENTRY});
	EXPECT_EQ(s.user.fail_entry.hardware_entry_failure_reason, 0x80000021u);
	EXPECT_EQ(s.user.fail_entry.cpu, 3u);
}

TEST_F(Handlers, unknown_exit_is_an_internal_error)
{
	for (ExitReason reason :
	     {ExitReason::task_switch, ExitReason::ept_misconfiguration, ExitReason::sipi,
	      static_cast<ExitReason>(78), static_cast<ExitReason>(0xffff)}) {
		EXPECT_EQ(handle(exit_of(reason)), Next::user);
		EXPECT_EQ(s.user.reason, u32{KVM_EXIT_INTERNAL_ERROR});
		EXPECT_EQ(s.user.internal.suberror, u32{KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON});
		EXPECT_EQ(s.user.internal.ndata, 2u);
		EXPECT_EQ(s.user.internal.data[0], static_cast<u64>(reason));
		EXPECT_EQ(s.user.internal.data[1], 0u);
	}
}

TEST_F(Handlers, interrupted_event_is_delivered_again)
{
	protected_mode();
	Exit exit = exit_of(ExitReason::page_modification_log_full, 0, 2);
	exit.vectoring = {0x80000b0e | 1 << 12};
	exit.vectoring_error_code = 4;
	EXPECT_EQ(handle(exit), Next::resume);
	expect_event(Vector::page_fault);
	EXPECT_EQ(s.event.error_code, 4u);
	EXPECT_EQ(s.event.info.raw & 1 << 12, 0u) << "undefined in the one, reserved in the other";
	EXPECT_EQ(s.event.instruction_length, 2u);
}

/* Exceptions */

TEST_F(Handlers, alignment_check_goes_to_the_guest)
{
	protected_mode();
	Exit exit = exit_of(ExitReason::exception_or_nmi);
	exit.interruption = {0x80000b11};
	EXPECT_EQ(handle(exit), Next::resume);
	expect_event(Vector::alignment_check);
	EXPECT_TRUE(s.event.info.has_error_code());
}

TEST_F(Handlers, split_locks_are_linuxs)
{
	Exit exit = exit_of(ExitReason::exception_or_nmi);
	exit.interruption = {0x80000b11};

	set_split_lock_detection(true);
	protected_mode();
	EXPECT_EQ(handle(exit), Next::resume);
	EXPECT_FALSE(s.has_event);
	EXPECT_EQ(take_split_locks(), (std::vector<u64>{0x1000}));
	/* A guest that checks alignment itself may have meant it. */
	s.cr0 |= cr0::am;
	s.rflags |= rflags::ac;
	s.seg(Seg::ss).access_rights |= 3 << 5;
	EXPECT_EQ(handle(exit), Next::resume);
	expect_event(Vector::alignment_check);
	EXPECT_TRUE(take_split_locks().empty());
}

TEST_F(Handlers, debug_exception_sets_dr6_and_goes_to_the_guest)
{
	protected_mode();
	s.dr6 = 0xffff0ff0 | 0x8; /* an older hit */
	s.dr7 = 0x400 | dr7::gd;
	Exit exit = exit_of(ExitReason::exception_or_nmi, dr6::bs | 1);
	exit.interruption = {0x80000301};
	EXPECT_EQ(handle(exit), Next::resume);
	expect_event(Vector::debug);
	EXPECT_EQ(s.dr6, 0xffff0ff0u | dr6::bs | 1);
	EXPECT_FALSE(s.dr7 & dr7::gd);
	EXPECT_TRUE(s.dirty.has(Group::dr7));
}

TEST_F(Handlers, debug_exception_under_the_shadow_of_mov_ss)
{
	Exit exit = exit_of(ExitReason::exception_or_nmi, dr6::bd);
	exit.interruption = {0x80000301};

	protected_mode();
	s.rflags |= rflags::tf;
	EXPECT_EQ(handle(exit), Next::resume);
	EXPECT_EQ(s.pending_debug, 0u);
	s.has_event = false;
	s.interruptibility = 2;
	EXPECT_EQ(handle(exit), Next::resume);
	EXPECT_EQ(s.pending_debug, dr6::bs);
	EXPECT_TRUE(s.dirty.has(Group::pending_debug));
}

TEST_F(Handlers, int1_is_delivered_as_what_it_is)
{
	protected_mode();
	Exit exit = exit_of(ExitReason::exception_or_nmi, 0, 1);
	exit.interruption = {0x80000501};
	EXPECT_EQ(handle(exit), Next::resume);
	expect_event(Vector::debug, InterruptionInfo::Type::privileged_software_exception);
	EXPECT_EQ(s.event.instruction_length, 1u);
	s.interruptibility = 1;
	EXPECT_EQ(handle(exit), Next::resume);
	EXPECT_EQ(s.interruptibility, 0u) << "no instruction is shadowed any more";
}

TEST_F(Handlers, exception_in_a_double_faults_delivery_shuts_down)
{
	protected_mode();
	Exit exit = exit_of(ExitReason::exception_or_nmi);
	exit.interruption = {0x80000b11};
	exit.vectoring = {0x80000b08};
	/* #AC is benign: it is delivered. */
	EXPECT_EQ(handle(exit), Next::resume);
	expect_event(Vector::alignment_check);
	/* A fault that the module itself raises there is a triple fault. */
	s.has_event = false;
	Exit rdpmc = exit_of(ExitReason::rdpmc);
	rdpmc.vectoring = {0x80000b08};
	EXPECT_EQ(handle(rdpmc), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_SHUTDOWN});
}

TEST_F(Handlers, unexpected_exception_is_an_internal_error)
{
	Exit exit = exit_of(ExitReason::exception_or_nmi);
	exit.interruption = {0x80000306};
	EXPECT_EQ(handle(exit), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_INTERNAL_ERROR});
}

/* MSRs */

TEST_F(Handlers, msrs_of_syscall_read_what_was_written)
{
	for (u32 index : {msr::star, msr::lstar, msr::cstar}) {
		protected_mode();
		expect_skipped(wrmsr(index, 0x00007ffff1234567));
		EXPECT_TRUE(s.cpu_registers_dirty);
		s.rip = 0x1000;
		expect_skipped(rdmsr(index));
		EXPECT_EQ(msr_read(), 0x00007ffff1234567u);
		EXPECT_EQ(s.gpr[rax] >> 32, 0u);
	}
	s.rip = 0x1000;
	expect_skipped(wrmsr(msr::syscall_mask, 0x47700));
	EXPECT_EQ(s.syscall_mask, 0x47700u);
}

TEST_F(Handlers, values_that_would_fault_in_the_host_are_refused)
{
	protected_mode();
	for (u32 index : {msr::lstar, msr::cstar}) {
		expect_refused(wrmsr(index, 0x0000800000000000));
		expect_refused(wrmsr(index, 0xffff7fffffffffff));
	}
	expect_refused(wrmsr(msr::syscall_mask, u64{1} << 32));
	expect_refused(wrmsr(msr::tsc_aux, u64{1} << 32));
	EXPECT_FALSE(s.cpu_registers_dirty);
}

TEST_F(Handlers, tsc_aux_needs_rdtscp)
{
	protected_mode();
	expect_skipped(wrmsr(msr::tsc_aux, 5));
	s.model.rdtscp = false;
	s.rip = 0x1000;
	expect_skipped(wrmsr(msr::tsc_aux, 7));
	s.model.rdpid = false;
	s.rip = 0x1000;
	expect_refused(wrmsr(msr::tsc_aux, 6));
	expect_refused(rdmsr(msr::tsc_aux));
	s.model.rdtscp = true;
	init_guest_features(7, false, true);
	expect_refused(wrmsr(msr::tsc_aux, 6));
}

TEST_F(Handlers, pat_takes_memory_types_only)
{
	protected_mode();
	for (u64 type : {0, 1, 4, 5, 6, 7}) {
		s.rip = 0x1000;
		expect_skipped(wrmsr(msr::pat, type * 0x0101010101010101));
		EXPECT_EQ(s.pat, type * 0x0101010101010101);
	}
	EXPECT_TRUE(s.dirty.has(Group::pat));
	s.rip = 0x1000;
	for (u64 type : {2, 3, 8, 0x80})
		for (int entry = 0; entry < 8; entry++)
			expect_refused(wrmsr(msr::pat, type << (8 * entry)));
}

TEST_F(Handlers, efer)
{
	protected_mode();
	expect_skipped(wrmsr(msr::efer, efer::lme | efer::sce | efer::nx));
	EXPECT_EQ(s.efer, efer::lme | efer::sce | efer::nx);
	EXPECT_TRUE(s.dirty.has(Group::efer));
	EXPECT_TRUE(s.flush_tlb) << "NX changed";
	s.rip = 0x1000;
	expect_refused(wrmsr(msr::efer, 1 << 1));
	expect_refused(wrmsr(msr::efer, 1 << 12)); /* SVME */

	long_mode();
	expect_refused(wrmsr(msr::efer, efer::sce)); /* LME with paging on */
	/* LMA is not the guest's to write. */
	expect_skipped(wrmsr(msr::efer, efer::lme));
	EXPECT_EQ(s.efer, efer::lme | efer::lma);
}

TEST_F(Handlers, tsc_is_the_hosts_and_an_offset)
{
	protected_mode();
	set_tsc(5000);
	expect_skipped(wrmsr(msr::tsc, 100));
	EXPECT_TRUE(s.dirty.has(Group::tsc_offset));
	set_tsc(5600);
	s.rip = 0x1000;
	expect_skipped(rdmsr(msr::tsc));
	EXPECT_EQ(msr_read(), 700u);
}

TEST_F(Handlers, apic_base_has_reserved_bits)
{
	protected_mode();
	expect_skipped(wrmsr(msr::apic_base, 0xfee00800));
	s.rip = 0x1000;
	s.model.x2apic = false;
	expect_refused(wrmsr(msr::apic_base, 0xfee00c00)); /* x2APIC */
	expect_refused(wrmsr(msr::apic_base, 0xfee00801));
	expect_refused(wrmsr(msr::apic_base, u64{1} << 39));
	EXPECT_EQ(s.apic_base, 0xfee00800u);
}

TEST_F(Handlers, unknown_msr_is_refused)
{
	protected_mode();
	for (u32 index : {0x48u, 0x480u, 0xc0010015u, 0x40000000u, ~0u}) {
		expect_refused(rdmsr(index));
		expect_refused(wrmsr(index, 0));
	}
}

/* Debug registers */

TEST_F(Handlers, debug_registers_are_kept)
{
	long_mode();
	for (u64 dr = 0; dr < 4; dr++) {
		s.rip = 0x1000;
		s.gpr[rsi] = 0x123456789000 + dr;
		expect_skipped(handle(exit_of(ExitReason::mov_dr, dr | rsi << 8)));
		s.rip = 0x1000;
		expect_skipped(handle(exit_of(ExitReason::mov_dr, dr | 1 << 4 | r9 << 8)));
		EXPECT_EQ(s.gpr[r9], 0x123456789000 + dr);
	}
}

TEST_F(Handlers, dr6_and_dr7_have_fixed_bits)
{
	long_mode();
	s.gpr[rax] = 0;
	expect_skipped(handle(exit_of(ExitReason::mov_dr, 6)));
	EXPECT_EQ(s.dr6, 0xffff0ff0u);
	s.rip = 0x1000;
	expect_skipped(handle(exit_of(ExitReason::mov_dr, 7)));
	EXPECT_EQ(s.dr7, 0x400u);
	s.rip = 0x1000;
	s.gpr[rax] = 0xffffffff;
	expect_skipped(handle(exit_of(ExitReason::mov_dr, 6)));
	EXPECT_EQ(s.dr6, 0xffffefffu) << "bit 12 is 0";
	s.rip = 0x1000;
	s.gpr[rax] = 0xffffd3ff;
	expect_skipped(handle(exit_of(ExitReason::mov_dr, 7)));
	EXPECT_EQ(s.dr7 & 0xd400, 0x400u) << "bits 12, 14 and 15 are 0, bit 10 is 1";
}

TEST_F(Handlers, upper_half_of_dr6_and_dr7_is_reserved)
{
	long_mode();
	s.gpr[rax] = u64{1} << 32;
	expect_refused(handle(exit_of(ExitReason::mov_dr, 6)));
	expect_refused(handle(exit_of(ExitReason::mov_dr, 7)));
	/* Elsewhere a register is 32 bits wide. */
	protected_mode();
	expect_skipped(handle(exit_of(ExitReason::mov_dr, 7)));
}

TEST_F(Handlers, dr4_and_dr5_are_others_names_or_undefined)
{
	protected_mode();
	s.gpr[rax] = 1;
	expect_skipped(handle(exit_of(ExitReason::mov_dr, 5)));
	EXPECT_EQ(s.dr7, 0x401u);
	s.cr4 |= cr4::de;
	s.rip = 0x1000;
	EXPECT_EQ(handle(exit_of(ExitReason::mov_dr, 4)), Next::resume);
	expect_event(Vector::invalid_opcode);
}

TEST_F(Handlers, debug_registers_are_the_kernels)
{
	protected_mode();
	s.dr7 |= dr7::gd;
	s.seg(Seg::ss).access_rights |= 3 << 5;
	expect_refused(handle(exit_of(ExitReason::mov_dr, 0)));
	EXPECT_TRUE(s.dr7 & dr7::gd) << "the privilege is looked at first";
	s.cr4 |= cr4::de;
	EXPECT_EQ(handle(exit_of(ExitReason::mov_dr, 5)), Next::resume);
	expect_event(Vector::invalid_opcode);
}

TEST_F(Handlers, general_detect)
{
	protected_mode();
	s.dr7 |= dr7::gd;
	EXPECT_EQ(handle(exit_of(ExitReason::mov_dr, 0)), Next::resume);
	expect_event(Vector::debug);
	EXPECT_TRUE(s.dr6 & dr6::bd);
	EXPECT_FALSE(s.dr7 & dr7::gd);
	EXPECT_EQ(s.rip, 0x1000u);
}

/* XSETBV */

TEST_F(Handlers, xsetbv)
{
	auto xsetbv = [&](u64 index, u64 value) {
		s.rip = 0x1000;
		s.has_event = false;
		s.gpr[rcx] = index;
		s.gpr[rax] = value & 0xffffffff;
		s.gpr[rdx] = value >> 32;
		return handle(exit_of(ExitReason::xsetbv, 0, 3));
	};

	protected_mode();
	for (u64 value : {1, 3, 7}) {
		expect_skipped(xsetbv(0, value), 3);
		EXPECT_EQ(s.xcr0, value);
	}
	for (u64 value : {u64{0}, u64{2}, u64{6}, u64{5}, u64{8} | 7, u64{0xe7}, u64{1} << 62 | 7})
		expect_refused(xsetbv(0, value));
	expect_refused(xsetbv(1, 7));
	EXPECT_EQ(s.xcr0, 7u);
	s.model.xcr0 = 3;
	expect_refused(xsetbv(0, 7));
	/* The exit comes before the check of the privilege level. */
	s.seg(Seg::ss).access_rights |= 3 << 5;
	expect_refused(xsetbv(0, 3));
}

/* Ports */

TEST_F(Handlers, out_shows_the_data_and_completes_when_the_vmm_comes_back)
{
	const u8 nothing[8] = {};

	for (u64 size : {1, 2, 4}) {
		protected_mode();
		s.gpr[rax] = 0xffffffff44332211;
		EXPECT_EQ(handle(exit_of(ExitReason::io_instruction, 0x03f80000 | (size - 1), 1)),
			  Next::user);
		EXPECT_EQ(s.user.reason, u32{KVM_EXIT_IO});
		EXPECT_EQ(s.user.io.direction, KVM_EXIT_IO_OUT);
		EXPECT_EQ(s.user.io.size, size);
		EXPECT_EQ(s.user.io.port, 0x3f8);
		for (u8 i = 0; i < 8; i++)
			EXPECT_EQ(s.user.io.data[i], i < size ? 0x11 * (i + 1) : 0);
		EXPECT_EQ(complete_access(s, memory, nothing), Next::resume);
		EXPECT_EQ(s.rip, 0x1001u);
		EXPECT_EQ(s.pending.kind, PendingAccess::Kind::none);
	}
}

TEST_F(Handlers, port_access_needs_nothing_of_linux_but_that_of_a_string)
{
	protected_mode();
	EXPECT_EQ(handle_bare(s, identity, exit_of(ExitReason::io_instruction, 0x03f80000, 1)),
		  Next::user);
	EXPECT_FALSE(s.pending.needs_memory());
	EXPECT_EQ(handle_bare(s, identity, exit_of(ExitReason::io_instruction, 0x03f80010, 1)),
		  Next::needs_linux);
}

TEST_F(Handlers, in_writes_the_low_part_of_rax)
{
	const u8 data[8] = {0xaa, 0xbb, 0xcc, 0xdd, 0xee};
	const u64 want[] = {0x11223344556677aa, 0x112233445566bbaa, 0xddccbbaa};
	int i = 0;

	for (u64 size : {1, 2, 4}) {
		long_mode();
		s.gpr[rax] = 0x1122334455667788;
		EXPECT_EQ(handle(exit_of(ExitReason::io_instruction, 0x00600008 | (size - 1), 2)),
			  Next::user);
		EXPECT_EQ(s.user.io.direction, KVM_EXIT_IO_IN);
		EXPECT_EQ(s.gpr[rax], 0x1122334455667788u);
		EXPECT_EQ(complete_access(s, memory, data), Next::resume);
		EXPECT_EQ(s.gpr[rax], want[i++]);
		EXPECT_EQ(s.rip, 0x1002u);
	}
}

TEST_F(Handlers, port_access_is_dropped_when_the_vmm_moved_rip)
{
	const u8 data[8] = {0xaa};

	for (u64 direction : {0, 8}) {
		protected_mode();
		s.gpr[rax] = 0x55;
		EXPECT_EQ(handle(exit_of(ExitReason::io_instruction, 0x00600000 | direction, 2)),
			  Next::user);
		s.rip = 0x5000;
		EXPECT_EQ(complete_access(s, memory, data), Next::resume);
		EXPECT_EQ(s.rip, 0x5000u);
		EXPECT_EQ(s.gpr[rax], 0x55u);
		EXPECT_EQ(s.pending.kind, PendingAccess::Kind::none);
	}
}

TEST_F(Handlers, completing_nothing_does_nothing)
{
	const u8 data[8] = {1};

	protected_mode();
	EXPECT_EQ(complete_access(s, memory, data), Next::resume);
	EXPECT_EQ(s.rip, 0x1000u);
	EXPECT_TRUE(s.dirty.empty());
}
