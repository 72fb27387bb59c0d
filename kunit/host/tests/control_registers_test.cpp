// SPDX-License-Identifier: GPL-2.0
/* MOV to CR0, CR4 and CR8, LMSW and CLTS: what raises #GP, and what else changes with them. */
#include "guest.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class ControlRegisters : public GuestTest
{
protected:
	static constexpr u64 mov_to = 0, clts = 2 << 4, lmsw = 3 << 4, mov_from = 1 << 4;

	Next mov(u64 cr, u64 value)
	{
		s.gpr[rbx] = value;
		return handle(
			exit_of(ExitReason::control_register_access, cr | mov_to | rbx << 8, 3));
	}
	void expect_taken(Next next)
	{
		EXPECT_EQ(next, Next::resume);
		EXPECT_FALSE(s.has_event);
		EXPECT_EQ(s.rip, 0x1003u);
		s.rip = 0x1000;
	}
	void expect_refused(Next next)
	{
		EXPECT_EQ(next, Next::resume);
		expect_general_protection();
		EXPECT_EQ(s.rip, 0x1000u);
		s.has_event = false;
	}
	/* Four page-directory pointers at CR3, all present. */
	void put_pdptes(u64 address)
	{
		s.cr3 = address;
		for (u64 i = 0; i < 4; i++)
			ram.put<u64>(address + 8 * i, (i + 1) << 12 | 1);
	}
};

} // namespace

TEST_F(ControlRegisters, cr0_takes_and_keeps_et)
{
	protected_mode();
	expect_taken(mov(0, cr0::pe | cr0::ne | cr0::wp));
	EXPECT_EQ(s.cr0, cr0::pe | cr0::ne | cr0::wp | cr0::et);
	EXPECT_TRUE(s.dirty.has(Group::cr0));
	EXPECT_TRUE(s.flush_tlb) << "WP changed";
}

TEST_F(ControlRegisters, cr0_reserved_low_bits_are_ignored)
{
	protected_mode();
	expect_taken(mov(0, cr0::pe | 0x1fc0 | 1 << 17));
	EXPECT_EQ(s.cr0, cr0::pe | cr0::et);
}

TEST_F(ControlRegisters, cr0_general_protection)
{
	long_mode();
	u64 before = s.cr0;

	expect_refused(mov(0, before | u64{1} << 32));
	expect_refused(mov(0, before | cr0::nw));  /* NW without CD */
	expect_refused(mov(0, cr0::pg | cr0::et)); /* PG without PE */
	expect_refused(mov(0, before & ~cr0::pg)); /* PG off in 64-bit code */
	EXPECT_EQ(s.cr0, before);
	EXPECT_TRUE(s.dirty.empty());
	/* Elsewhere a register is 32 bits wide. */
	protected_mode();
	expect_taken(mov(0, s.cr0 | u64{1} << 32));
	expect_taken(mov(0, s.cr0 | cr0::nw | cr0::cd));
}

TEST_F(ControlRegisters, real_mode_to_protected_mode_and_back)
{
	s.rip = 0x1000;
	expect_taken(mov(0, cr0::pe | cr0::et));
	EXPECT_EQ(s.cr0, cr0::pe | cr0::et);
	expect_taken(mov(0, cr0::et));
	EXPECT_EQ(s.cr0, cr0::et);
}

TEST_F(ControlRegisters, paging_on_with_lme_enters_ia32e_mode)
{
	protected_mode();
	s.efer = efer::lme;
	s.seg(Seg::tr).access_rights = 0x83;     /* a busy 16-bit TSS */
	expect_refused(mov(0, s.cr0 | cr0::pg)); /* needs PAE */
	EXPECT_EQ(s.efer, efer::lme);
	s.cr4 = cr4::pae;
	expect_taken(mov(0, s.cr0 | cr0::pg));
	EXPECT_EQ(s.efer, efer::lme | efer::lma);
	EXPECT_TRUE(s.dirty.has(Group::efer));
	EXPECT_EQ(s.seg(Seg::tr).access_rights & 0xf, 0xbu);
	EXPECT_TRUE(s.dirty.has(Group::segments));
	EXPECT_TRUE(s.flush_tlb);
}

TEST_F(ControlRegisters, paging_on_with_lme_from_a_64_bit_code_segment)
{
	protected_mode();
	s.efer = efer::lme;
	s.cr4 = cr4::pae;
	s.seg(Seg::cs).access_rights |= Segment::l_bit;
	expect_refused(mov(0, s.cr0 | cr0::pg));
	EXPECT_EQ(s.efer, efer::lme);
}

TEST_F(ControlRegisters, paging_off_leaves_ia32e_mode_from_compatibility_mode)
{
	long_mode();
	s.seg(Seg::cs).access_rights = 0xc09b;
	expect_taken(mov(0, s.cr0 & ~cr0::pg));
	EXPECT_EQ(s.efer & (efer::lma | efer::lme), efer::lme);
	EXPECT_TRUE(s.dirty.has(Group::efer));
}

TEST_F(ControlRegisters, paging_off_with_pcids)
{
	long_mode();
	s.seg(Seg::cs).access_rights = 0xc09b;
	s.cr4 |= cr4::pcide;
	expect_refused(mov(0, s.cr0 & ~cr0::pg));
	EXPECT_TRUE(s.long_mode());
}

TEST_F(ControlRegisters, paging_on_with_pae_loads_pdptes)
{
	protected_mode();
	s.cr4 = cr4::pae;
	put_pdptes(0x2020); /* aligned to 32 bytes only */
	expect_taken(mov(0, s.cr0 | cr0::pg));
	EXPECT_EQ(s.pdpte[3], 0x4001u);
	EXPECT_TRUE(s.dirty.has(Group::pdpte));
}

TEST_F(ControlRegisters, bad_pdptes_refuse_paging)
{
	for (u64 reserved :
	     {u64{1} << 1, u64{1} << 2, u64{1} << 5, u64{1} << 8, u64{1} << 39, u64{1} << 63}) {
		protected_mode();
		s.cr4 = cr4::pae;
		put_pdptes(0x2000);
		ram.put<u64>(0x2010, 0x3001 | reserved);
		expect_refused(mov(0, s.cr0 | cr0::pg));
		EXPECT_FALSE(s.paging());
		/* An absent one may have any bits. */
		ram.put<u64>(0x2010, 0x3000 | reserved);
		expect_taken(mov(0, s.cr0 | cr0::pg));
	}
	protected_mode();
	s.cr4 = cr4::pae;
	s.cr3 = device;
	expect_refused(mov(0, s.cr0 | cr0::pg));
}

TEST_F(ControlRegisters, cr4_takes_what_the_guest_is_offered)
{
	protected_mode();
	expect_taken(mov(4, cr4::pse | cr4::pge | cr4::osfxsr | cr4::smep | cr4::osxsave));
	EXPECT_EQ(s.cr4, cr4::pse | cr4::pge | cr4::osfxsr | cr4::smep | cr4::osxsave);
	EXPECT_TRUE(s.flush_tlb);
	EXPECT_TRUE(s.dirty.has(Group::cr4));
}

TEST_F(ControlRegisters, cr4_general_protection)
{
	long_mode();
	for (u64 bit : {cr4::vmxe, cr4::la57, u64{1} << 14, u64{1} << 22, u64{1} << 23,
			u64{1} << 32, u64{1} << 63})
		expect_refused(mov(4, s.cr4 | bit));
	expect_refused(mov(4, 0)); /* PAE off in IA-32e mode */
	EXPECT_EQ(s.cr4, cr4::pae);
	EXPECT_TRUE(s.dirty.empty());
}

TEST_F(ControlRegisters, cr4_bits_follow_cpuid)
{
	cpuid_table()[{7, 0}] = {};
	cpuid_table()[{1, 0}].ecx &= ~(1u << 17);
	init_guest_features(0, true, true);
	protected_mode();
	constexpr u64 optional =
		cr4::smep | cr4::smap | cr4::umip | cr4::fsgsbase | cr4::osxsave | cr4::pcide;
	EXPECT_EQ(s.model.cr4, optional);
	for (u64 bit : {cr4::smep, cr4::smap, cr4::umip, cr4::fsgsbase, cr4::osxsave, cr4::pcide})
		expect_refused(mov(4, bit));
}

TEST_F(ControlRegisters, cr4_bits_follow_the_guests_cpuid)
{
	long_mode();
	for (u64 bit : {cr4::smep, cr4::smap, cr4::umip, cr4::fsgsbase, cr4::osxsave, cr4::pcide}) {
		s.model.cr4 &= ~bit;
		expect_refused(mov(4, s.cr4 | bit));
		s.model.cr4 |= bit;
		EXPECT_TRUE(valid_cr4(s.model, s.cr4 | bit));
	}
	s.model = {};
	EXPECT_TRUE(valid_cr4(s.model, cr4::vme | cr4::pae | cr4::osfxsr | cr4::mce))
		<< "those that are there without any CPUID";
}

TEST_F(ControlRegisters, pcids_need_ia32e_mode_and_pcid_0)
{
	protected_mode();
	expect_refused(mov(4, cr4::pcide));
	long_mode();
	s.cr3 |= 1;
	expect_refused(mov(4, s.cr4 | cr4::pcide));
	s.cr3 &= ~u64{0xfff};
	expect_taken(mov(4, s.cr4 | cr4::pcide));
	/* Once on it stays valid with any PCID. */
	s.cr3 |= 5;
	expect_taken(mov(4, s.cr4 | cr4::pge));
}

TEST_F(ControlRegisters, cr4_changes_that_load_pdptes)
{
	protected_mode();
	s.cr0 |= cr0::pg;
	s.cr4 = cr4::pse;
	put_pdptes(0x2000);
	expect_taken(mov(4, cr4::pse | cr4::pae));
	EXPECT_EQ(s.pdpte[0], 0x1001u);
	ram.put<u64>(0x2000, 0x9001);
	expect_taken(mov(4, cr4::pse | cr4::pae | cr4::tsd));
	EXPECT_EQ(s.pdpte[0], 0x1001u) << "TSD is none of them";
	expect_taken(mov(4, cr4::pae));
	EXPECT_EQ(s.pdpte[0], 0x9001u);
	/* A bad one: nothing changes. */
	ram.put<u64>(0x2000, 0xa003);
	expect_refused(mov(4, cr4::pae | cr4::smep));
	EXPECT_EQ(s.cr4, cr4::pae);
	EXPECT_EQ(s.pdpte[0], 0x9001u);
}

TEST_F(ControlRegisters, clts_and_lmsw)
{
	protected_mode();
	s.cr0 |= cr0::ts | cr0::ne;
	expect_taken(handle(exit_of(ExitReason::control_register_access, clts, 3)));
	EXPECT_EQ(s.cr0, cr0::pe | cr0::et | cr0::ne);
	/* LMSW loads the low four bits and cannot clear PE. */
	expect_taken(
		handle(exit_of(ExitReason::control_register_access, lmsw | u64{0xfffa} << 16, 3)));
	EXPECT_EQ(s.cr0, cr0::pe | cr0::et | cr0::ne | cr0::mp | cr0::ts);
	expect_taken(handle(exit_of(ExitReason::control_register_access, lmsw, 3)));
	EXPECT_EQ(s.cr0, cr0::pe | cr0::et | cr0::ne);
	s.cr0 = cr0::et;
	expect_taken(handle(exit_of(ExitReason::control_register_access, lmsw | u64{1} << 16, 3)));
	EXPECT_EQ(s.cr0, cr0::pe | cr0::et);
}

TEST_F(ControlRegisters, cr8)
{
	long_mode();
	expect_taken(mov(8, 15));
	EXPECT_EQ(s.cr8, 15u);
	expect_refused(mov(8, 16));
	expect_refused(mov(8, u64{1} << 32));
	s.gpr[r10] = 0;
	expect_taken(
		handle(exit_of(ExitReason::control_register_access, 8 | mov_from | r10 << 8, 3)));
	EXPECT_EQ(s.gpr[r10], 15u);
	/* Lower than before: user space's APIC may have something now. */
	EXPECT_EQ(mov(8, 3), Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_SET_TPR});
	EXPECT_EQ(s.rip, 0x1003u);
	s.rip = 0x1000;
	expect_taken(mov(8, 3));
}

TEST_F(ControlRegisters, rsp_as_operand)
{
	long_mode();
	s.cr8 = 7;
	expect_taken(
		handle(exit_of(ExitReason::control_register_access, 8 | mov_from | rsp << 8, 3)));
	EXPECT_EQ(s.gpr[rsp], 7u);
	EXPECT_TRUE(s.dirty.has(Group::rsp));
}
