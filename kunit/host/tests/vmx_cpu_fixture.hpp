/* SPDX-License-Identifier: GPL-2.0 */
/* CPUs of the model with the module's records of them, VMX off at first. */
#pragma once

#include "fixture.hpp"

#include "arch/x86/loaded_vmcs.hpp"
#include "arch/x86/vmx_cpu.hpp"

namespace kvmpp::host
{

class VmxCpuTest : public MachineTest
{
protected:
	VmxCpuTest()
	{
		EXPECT_TRUE(vmx_configure(VmxRegisters::read(PreemptOff()), config, refusal));
		EXPECT_TRUE(VmxCpu::create_all(config, exclusive));
	}
	~VmxCpuTest() override
	{
		for (int cpu = 0; cpu < cpu_count; cpu++)
			disable(cpu);
		VmxCpu::destroy_all();
	}
	Errno enable(int cpu)
	{
		Errno error{};

		interrupt(cpu, [&] {
			IrqOff irq;
			refusal = {Errno{}, ""};
			if (!VmxCpu::here(irq).enable(irq, refusal))
				error = refusal.error;
		});
		return error;
	}
	void enable_all()
	{
		for (int cpu = 0; cpu < cpu_count; cpu++)
			EXPECT_EQ(enable(cpu), ok);
	}
	void disable(int cpu)
	{
		interrupt(cpu, [] {
			IrqOff irq;
			VmxCpu::here(irq).disable(irq);
		});
	}
	/* As VmxVcpu::enter() does it: cleared where it was, loaded here. */
	Errno load(LoadedVmcs &vmcs)
	{
		PreemptOff preempt;

		vmcs.leave_other_cpu(preempt);
		return load_only(vmcs);
	}
	Errno load_only(LoadedVmcs &vmcs)
	{
		IrqOff irq;
		Result<ActiveVmcs> active = vmcs.load(irq);

		return active ? ok : active.error();
	}
	u64 clears(int cpu, ClearCause cause) { return VmxCpu::of({cpu}).clears(cause); }
	void expect_not_enabled(int cpu)
	{
		EXPECT_FALSE(VmxCpu::of({cpu}).is_on());
		EXPECT_FALSE(processor(cpu).vmx);
		EXPECT_FALSE(processor(cpu).vmxe_is_ours);
		EXPECT_FALSE(processor(cpu).pt_knows);
	}

	/* As with exclusive=0. */
	void be_not_exclusive()
	{
		VmxCpu::destroy_all();
		ASSERT_TRUE(VmxCpu::create_all(config, exclusive = false));
		enable_all();
	}
	void put()
	{
		IrqOff irq;
		VmxCpu::here(irq).put(irq);
	}

	static constexpr Errno ok{};
	bool exclusive = true;
	VmxConfig config;
	Refusal refusal{Errno{}, ""};
};

} // namespace kvmpp::host
