// SPDX-License-Identifier: GPL-2.0
#include "guest.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

using VcpuStateTest = GuestTest;

} // namespace

TEST_F(VcpuStateTest, after_reset_as_the_manual_says)
{
	s.rip = 1;
	s.gpr[rbx] = 2;
	s.has_event = true;
	s.reset(0, 77);

	EXPECT_EQ(s.rip, 0xfff0u);
	EXPECT_EQ(s.rflags, 2u);
	EXPECT_EQ(s.cr0, 0x60000010u);
	EXPECT_EQ(s.cr2 | s.cr3 | s.cr4 | s.efer | s.cr8, 0u);
	EXPECT_EQ(s.gpr[rbx], 0u);
	EXPECT_EQ(s.gpr[rdx] & 0xf00, 0x600u); /* the family */
	EXPECT_EQ(s.seg(Seg::cs).selector, 0xf000u);
	EXPECT_EQ(s.seg(Seg::cs).base, 0xffff0000u);
	EXPECT_EQ(s.seg(Seg::cs).limit, 0xffffu);
	EXPECT_EQ(s.seg(Seg::cs).access_rights, 0x9bu);
	for (Seg seg : {Seg::ds, Seg::es, Seg::ss, Seg::fs, Seg::gs}) {
		EXPECT_EQ(s.seg(seg).selector, 0u);
		EXPECT_EQ(s.seg(seg).base, 0u);
		EXPECT_EQ(s.seg(seg).limit, 0xffffu);
		EXPECT_EQ(s.seg(seg).access_rights, 0x93u);
	}
	EXPECT_EQ(s.seg(Seg::ldtr).access_rights, 0x82u);
	EXPECT_EQ(s.seg(Seg::tr).access_rights, 0x8bu);
	EXPECT_EQ(s.gdtr.limit, 0xffffu);
	EXPECT_EQ(s.idtr.limit, 0xffffu);
	EXPECT_EQ(s.gdtr.base | s.idtr.base, 0u);
	EXPECT_EQ(s.dr6, 0xffff0ff0u);
	EXPECT_EQ(s.dr7, 0x400u);
	EXPECT_EQ(s.xcr0, 1u);
	EXPECT_EQ(s.pat, 0x0007040600070406u);
	EXPECT_EQ(s.apic_base, 0xfee00900u);
	EXPECT_EQ(s.tsc_offset, 77u);
	EXPECT_FALSE(s.has_event);
	EXPECT_TRUE((Groups::all() - s.dirty).empty());
	EXPECT_TRUE((Groups::all() - s.valid).empty());
	EXPECT_EQ(s.cpl(), 0u);
}

TEST_F(VcpuStateTest, only_the_first_vcpu_is_the_bootstrap_processor)
{
	s.reset(3, 0);
	EXPECT_EQ(s.apic_base, 0xfee00800u);
}

TEST_F(VcpuStateTest, groups_are_sets)
{
	Groups a = Group::rip | Group::cr0, b = Group::cr0 | Group::cr3;

	EXPECT_TRUE((a | b).has(Group::cr3));
	EXPECT_FALSE((a - b).has(Group::cr0));
	EXPECT_TRUE((a - b).has(Group::rip));
	EXPECT_TRUE((a & b).has(Group::cr0));
	EXPECT_FALSE((a & b).has(Group::rip));
	EXPECT_TRUE(Groups().empty());
	EXPECT_TRUE(Groups::all().has(Group::tsc_offset));
}

TEST_F(VcpuStateTest, segment_rights_are_decoded)
{
	Segment user64{.base = 0, .limit = 0, .access_rights = 0xa0fb, .selector = 0};
	Segment kernel32{.base = 0, .limit = 0, .access_rights = 0xc09b, .selector = 0};

	EXPECT_EQ(user64.dpl(), 3u);
	EXPECT_TRUE(user64.is_long());
	EXPECT_FALSE(user64.is_big());
	EXPECT_EQ(kernel32.dpl(), 0u);
	EXPECT_TRUE(kernel32.is_big());
}

TEST_F(VcpuStateTest, skip_instruction_moves_rip)
{
	protected_mode(0x1000);
	s.skip_instruction(3);
	EXPECT_EQ(s.rip, 0x1003u);
	EXPECT_TRUE(s.dirty.has(Group::rip));
	EXPECT_FALSE(s.dirty.has(Group::interruptibility));
	EXPECT_FALSE(s.has_event);
	EXPECT_FALSE(s.rip_passed_4g);
}

TEST_F(VcpuStateTest, skip_instruction_ends_the_shadow_of_sti_and_mov_ss)
{
	for (u32 blocking : {1u, 2u}) {
		protected_mode();
		s.interruptibility = blocking | 8;
		s.skip_instruction(1);
		EXPECT_EQ(s.interruptibility, 8u) << "blocking by NMI stays";
		EXPECT_TRUE(s.dirty.has(Group::interruptibility));
	}
}

TEST_F(VcpuStateTest, skip_instruction_raises_the_single_step_trap)
{
	protected_mode();
	s.rflags |= rflags::tf;
	s.skip_instruction(1);
	expect_event(Vector::debug);
	EXPECT_TRUE(s.dr6 & dr6::bs);
}

TEST_F(VcpuStateTest, skip_instruction_notes_that_rip_passed_4_gib)
{
	long_mode(0xfffffffe);
	s.skip_instruction(2);
	EXPECT_EQ(s.rip, 0x100000000u);
	EXPECT_TRUE(s.rip_passed_4g);
}

TEST_F(VcpuStateTest, error_codes_exist_outside_real_mode_only)
{
	ASSERT_TRUE(s.inject(Vector::general_protection, 0x18));
	EXPECT_FALSE(s.event.info.has_error_code());
	s.has_event = false;
	protected_mode();
	ASSERT_TRUE(s.inject(Vector::general_protection, 0x18));
	EXPECT_TRUE(s.event.info.has_error_code());
	EXPECT_EQ(s.event.error_code, 0x18u);
}

TEST_F(VcpuStateTest, page_fault_sets_cr2)
{
	long_mode();
	ASSERT_TRUE(s.inject_page_fault(0xdeadbeef000, 6));
	expect_event(Vector::page_fault);
	EXPECT_EQ(s.cr2, 0xdeadbeef000u);
	EXPECT_EQ(s.event.error_code, 6u);
}

namespace
{

enum class Class { benign, contributory, page_fault };
enum class Outcome { second, double_fault };

struct Sample {
	Vector vector;
	Class severity;
};
constexpr Sample samples[] = {
	{Vector::debug, Class::benign},
	{Vector::nmi, Class::benign},
	{Vector::breakpoint, Class::benign},
	{Vector::overflow, Class::benign},
	{Vector::bound_range, Class::benign},
	{Vector::invalid_opcode, Class::benign},
	{Vector::device_not_available, Class::benign},
	{Vector::x87_error, Class::benign},
	{Vector::alignment_check, Class::benign},
	{Vector::machine_check, Class::benign},
	{Vector::simd_error, Class::benign},
	{Vector::divide_error, Class::contributory},
	{Vector::invalid_tss, Class::contributory},
	{Vector::segment_not_present, Class::contributory},
	{Vector::stack_fault, Class::contributory},
	{Vector::general_protection, Class::contributory},
	{Vector::page_fault, Class::page_fault},
};

/* "Conditions for Generating a Double Fault" */
Outcome merged(Class first, Class second)
{
	if (first == Class::contributory && second == Class::contributory)
		return Outcome::double_fault;
	if (first == Class::page_fault && second != Class::benign)
		return Outcome::double_fault;
	return Outcome::second;
}

} // namespace

TEST_F(VcpuStateTest, two_exceptions_merge_as_the_manual_says)
{
	for (Sample first : samples) {
		for (Sample second : samples) {
			SCOPED_TRACE(testing::Message() << "#" << int(first.vector) << " then #"
							<< int(second.vector));
			protected_mode();
			s.has_event = false;
			ASSERT_TRUE(s.inject(first.vector));
			ASSERT_TRUE(s.inject(second.vector));
			if (merged(first.severity, second.severity) == Outcome::double_fault) {
				expect_event(Vector::double_fault);
				EXPECT_TRUE(s.event.info.has_error_code());
				EXPECT_EQ(s.event.error_code, 0u);
			} else {
				expect_event(second.vector);
			}
		}
	}
}

TEST_F(VcpuStateTest, fault_in_a_double_fault_is_a_triple_fault)
{
	for (Sample third : samples) {
		SCOPED_TRACE(int(third.vector));
		protected_mode();
		s.has_event = false;
		ASSERT_TRUE(s.inject(Vector::double_fault, 0));
		EXPECT_EQ(s.inject(third.vector), third.severity == Class::benign);
	}
}

TEST_F(VcpuStateTest, page_fault_that_becomes_a_double_fault_sets_cr2)
{
	long_mode();
	s.cr2 = 0x1111;
	ASSERT_TRUE(s.inject_page_fault(0x2222, 0));
	ASSERT_TRUE(s.inject_page_fault(0x3333, 2));
	expect_event(Vector::double_fault);
	EXPECT_EQ(s.cr2, 0x3333u);
	EXPECT_FALSE(s.inject_page_fault(0x4444, 2));
	EXPECT_EQ(s.cr2, 0x3333u);
}

TEST_F(VcpuStateTest, interrupts_are_benign_whatever_their_vector)
{
	constexpr u32 type_interrupt = 0 << 8, type_software = 4 << 8;

	for (u32 type : {type_interrupt, type_software}) {
		protected_mode();
		s.has_event = true;
		s.event = {.info = {InterruptionInfo::valid_bit | type | 13},
			   .error_code = 0,
			   .instruction_length = 2};
		ASSERT_TRUE(s.inject(Vector::general_protection, 0));
		expect_event(Vector::general_protection);
	}
}
