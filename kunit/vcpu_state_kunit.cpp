// SPDX-License-Identifier: GPL-2.0
#include "arch/x86/vcpu_state.cpp"

#include "expect.hpp"
#include "include/kvmpp/owned.hpp"

using namespace kvmpp;

namespace
{

constexpr Vector benign[] = {Vector::debug, Vector::invalid_opcode, Vector::alignment_check,
			     Vector::machine_check};
constexpr Vector contributory[] = {Vector::divide_error, Vector::invalid_tss,
				   Vector::segment_not_present, Vector::stack_fault,
				   Vector::general_protection};

/* What is delivered when @second comes in the delivery of @first; 0 is a triple fault. */
unsigned outcome(VcpuState &s, Vector first, Vector second)
{
	s.has_event = false;
	s.cr0 = cr0::pe;
	if (!s.inject(first) || !s.inject(second))
		return 0;
	return s.event.info.vector();
}

constexpr unsigned number(Vector vector)
{
	return static_cast<unsigned>(vector);
}

TEST_CASE(after_reset)
{
	auto s = Owned<VcpuState>::create();

	ASSERT(s);
	s->reset(0, 5);
	EXPECT_EQ(s->rip, 0xfff0);
	EXPECT_EQ(s->seg(Seg::cs).base, 0xffff0000);
	EXPECT_EQ(s->cr0, 0x60000010);
	EXPECT_EQ(s->tsc_offset, 5);
	EXPECT((Groups::all() - s->dirty).empty());
}

TEST_CASE(benign_is_followed_by_the_second)
{
	auto s = Owned<VcpuState>::create();

	ASSERT(s);
	for (Vector first : benign)
		for (Vector second : contributory)
			EXPECT_EQ(outcome(*s, first, second), number(second));
	EXPECT_EQ(outcome(*s, Vector::debug, Vector::page_fault), 14);
}

TEST_CASE(double_fault)
{
	auto s = Owned<VcpuState>::create();

	ASSERT(s);
	for (Vector first : contributory) {
		for (Vector second : contributory)
			EXPECT_EQ(outcome(*s, first, second), 8);
		EXPECT_EQ(outcome(*s, first, Vector::page_fault), 14);
		EXPECT_EQ(outcome(*s, first, Vector::debug), 1);
		EXPECT_EQ(outcome(*s, Vector::page_fault, first), 8);
	}
	EXPECT_EQ(outcome(*s, Vector::page_fault, Vector::page_fault), 8);
}

TEST_CASE(triple_fault)
{
	auto s = Owned<VcpuState>::create();

	ASSERT(s);
	for (Vector third : contributory)
		EXPECT_EQ(outcome(*s, Vector::double_fault, third), 0);
	EXPECT_EQ(outcome(*s, Vector::double_fault, Vector::page_fault), 0);
	EXPECT_EQ(outcome(*s, Vector::double_fault, Vector::debug), 1);
}

TEST_CASE(skip)
{
	auto s = Owned<VcpuState>::create();

	ASSERT(s);
	s->reset(0, 0);
	s->rip = 0xffffffff;
	s->interruptibility = 1;
	s->rflags |= rflags::tf;
	s->skip_instruction(1);
	EXPECT_EQ(s->rip, 0x100000000);
	EXPECT(s->rip_passed_4g);
	EXPECT_EQ(s->interruptibility, 0);
	EXPECT(s->has_event);
	EXPECT_EQ(s->event.info.vector(), 1);
}

} // namespace

DEFINE_TEST_SUITE(VCPU_STATE_CASES)
