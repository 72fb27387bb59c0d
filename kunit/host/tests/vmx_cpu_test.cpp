// SPDX-License-Identifier: GPL-2.0
/* VMX operation on and off, against the model of the CPUs. */
#include "vmx_cpu_fixture.hpp"

#include "arch/x86/x86.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

TEST_F(VmxCpuTest, on_and_off)
{
	(void)take_invalidations();
	EXPECT_EQ(enable(1), ok);
	EXPECT_TRUE(VmxCpu::of({1}).is_on());
	EXPECT_TRUE(processor(1).vmx && processor(1).vmxe && processor(1).pt_knows);
	EXPECT_FALSE(processor(0).vmx);
	/* What an earlier time in VMX operation left in the TLB. */
	EXPECT_EQ(take_invalidations(),
		  (std::vector<Invalidation>{{1, false, insn::Invalidate::all_contexts, 0},
					     {1, true, insn::Invalidate::all_contexts, 0}}));
	EXPECT_EQ(enable(1), ok) << "once more is nothing";
	EXPECT_EQ(VmxCpu::of({1}).enables(), 1u);
	disable(1);
	expect_not_enabled(1);
	EXPECT_FALSE(processor(1).vmxe);
	disable(1);
	EXPECT_EQ(VmxCpu::of({1}).disables(), 1u);
}

TEST_F(VmxCpuTest, vmxon_region_has_the_revision_and_is_each_cpus_own)
{
	enable_all();
	for (int cpu = 0; cpu < cpu_count; cpu++)
		EXPECT_EQ(*reinterpret_cast<u32 *>(processor(cpu).vmxon_region), 4u);
}

TEST_F(VmxCpuTest, somebody_else_is_in_vmx_operation)
{
	processor(2).vmxe = true;
	EXPECT_EQ(enable(2), Errno::busy);
	expect_not_enabled(2);
	EXPECT_TRUE(processor(2).vmxe) << "it is still theirs";
	EXPECT_NE(std::string(refusal.reason).find("CR4.VMXE"), std::string::npos);
	processor(2).vmxe = false;
}

TEST_F(VmxCpuTest, vmxon_that_fails_is_undone)
{
	processor(1).fail_vmxon = true;
	EXPECT_EQ(enable(1), Errno::io);
	expect_not_enabled(1);
	EXPECT_FALSE(processor(1).vmxe);
	EXPECT_STRNE(refusal.reason, "");
	EXPECT_EQ(enable(1), ok) << "the next time it works";
}

TEST_F(VmxCpuTest, cpu_that_differs_from_the_first)
{
	VmxRegisters r = capable_registers();
	r.secondary |= u64{1} << 40; /* one that is neither wanted nor insisted on */
	set_registers(1, r);
	EXPECT_EQ(enable(1), ok);
	r.entry |= 1 << 10; /* insisted on */
	set_registers(2, r);
	EXPECT_EQ(enable(2), Errno::io);
	expect_not_enabled(2);
	r = capable_registers();
	r.feature_control = 1;
	set_registers(3, r);
	EXPECT_NE(enable(3), ok);
	expect_not_enabled(3);
	EXPECT_NE(std::string(refusal.reason).find("FEATURE_CONTROL"), std::string::npos);
}

TEST_F(VmxCpuTest, no_memory_for_the_records)
{
	VmxCpu::destroy_all();
	for (unsigned n = 0; n < 1 + cpu_count; n++) {
		fail_allocation_after(n);
		Result<> r = VmxCpu::create_all(config, exclusive);
		ASSERT_FALSE(r) << n;
		EXPECT_EQ(r.error(), Errno::nomem);
	}
	ASSERT_TRUE(VmxCpu::create_all(config, exclusive));
}

TEST_F(VmxCpuTest, host_msrs_come_back)
{
	enable_all();
	u64 star = processor(0).msrs[msr::star], aux = processor(0).msrs[msr::tsc_aux];

	processor(0).msrs[msr::star] = 1;
	processor(0).msrs[msr::tsc_aux] = 2;
	VmxCpu::of({0}).restore_host_msrs(false, false);
	EXPECT_EQ(processor(0).msrs[msr::star], 1u);
	VmxCpu::of({0}).restore_host_msrs(true, false);
	EXPECT_EQ(processor(0).msrs[msr::star], star);
	EXPECT_EQ(processor(0).msrs[msr::tsc_aux], 2u);
	VmxCpu::of({0}).restore_host_msrs(false, true);
	EXPECT_EQ(processor(0).msrs[msr::tsc_aux], aux);
}

TEST_F(VmxCpuTest, tsc_aux_is_not_touched_where_it_may_not_exist)
{
	VmxRegisters r = capable_registers();

	r.secondary &= ~(u64{secondary::enable_rdtscp} << 32);
	set_registers(0, r);
	processor(0).msrs.erase(msr::tsc_aux);
	ASSERT_TRUE(vmx_configure(r, config, refusal));
	EXPECT_EQ(enable(0), ok);
}

TEST_F(VmxCpuTest, exits_are_counted)
{
	enable_all();
	IrqOff irq;
	VmxCpu::here(irq).count_exit(exit_row(static_cast<u32>(ExitReason::hlt)));
	VmxCpu::here(irq).count_exit(exit_row(static_cast<u32>(ExitReason::hlt)));
	VmxCpu::here(irq).count_exit(exit_row(0x7fff)); /* beyond the table */
	EXPECT_EQ(VmxCpu::of({0}).exits(ExitReason::hlt), 2u);
}
