// SPDX-License-Identifier: GPL-2.0
#include "arch/x86/capabilities.cpp"

#include "capable_registers.hpp"
#include "expect.hpp"
#include "include/kvmpp/guards.hpp"

#include <initializer_list>

using namespace kvmpp;

namespace
{

bool same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

TEST_CASE(capable_cpu)
{
	VmxConfig config;
	Refusal refusal{Errno::exist, nullptr};

	EXPECT(vmx_configure(capable_registers(), config, refusal));
	EXPECT_EQ(config.revision, 4);
	EXPECT(config.has_rdtscp());
	EXPECT(config.has_invpcid());
	EXPECT_EQ(config.cr0_must_be_set, cr0::ne);
}

TEST_CASE(each_row_of_the_table)
{
	for (const Requirement &row : requirements) {
		VmxRegisters r = capable_registers();
		VmxConfig config;
		Refusal refusal{Errno::exist, nullptr};

		r.*row.where &= ~row.bit;
		ASSERT(!vmx_configure(r, config, refusal));
		EXPECT(refusal.error == Errno::io);
		EXPECT(same(refusal.reason, row.reason));
	}
}

TEST_CASE(messages_are_unique)
{
	for (const Requirement &a : requirements)
		for (const Requirement &b : requirements)
			EXPECT(&a == &b || !same(a.reason, b.reason));
}

TEST_CASE(no_vmx_or_not_allowed)
{
	VmxConfig config;
	Refusal refusal{Errno::exist, nullptr};
	VmxRegisters r = capable_registers();

	r.cpuid_vmx = false;
	EXPECT(!vmx_configure(r, config, refusal));
	EXPECT(refusal.error == Errno::opnotsupp);
	for (u64 feature_control : {0, 1, 3, 4}) {
		r = capable_registers();
		r.feature_control = feature_control;
		EXPECT(!vmx_configure(r, config, refusal));
		EXPECT(refusal.error == Errno::opnotsupp);
	}
}

TEST_CASE(controls_that_stay_on)
{
	VmxConfig config;
	Refusal refusal{Errno::exist, nullptr};
	VmxRegisters r = capable_registers();

	r.primary |= primary::cr3_load_exiting;
	EXPECT(!vmx_configure(r, config, refusal));
	EXPECT(refusal.error == Errno::io);
}

/* On whatever CPU this runs: reading the registers raises no fault that is not caught. */
TEST_CASE(registers_of_this_cpu)
{
	PreemptOff preempt;
	VmxRegisters r = VmxRegisters::read(preempt);
	VmxConfig config;
	Refusal refusal{Errno::exist, nullptr};

	if (!vmx_configure(r, config, refusal))
		EXPECT(refusal.reason != nullptr);
	if (!r.cpuid_vmx)
		EXPECT_EQ(r.basic, 0);
}

} // namespace

DEFINE_TEST_SUITE(CAPABILITIES_CASES)
