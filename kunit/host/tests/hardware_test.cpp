// SPDX-License-Identifier: GPL-2.0
/* VMX on all CPUs while there are VMs, as CPUs come and go. */
#include "vm_fixture.hpp"

#include "arch/x86/vmx_cpu.hpp"

#include <asm/errno.h>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class Hardware : public ModuleTest
{
protected:
	int cpus_in_vmx_operation()
	{
		int count = 0;

		for (int cpu = 0; cpu < cpu_count; cpu++)
			count += processor(cpu).vmx;
		return count;
	}
};

class ModuleLoad : public MachineTest
{
};

} // namespace

TEST_F(Hardware, on_at_the_first_vm_off_at_the_last)
{
	EXPECT_EQ(cpus_in_vmx_operation(), 0);
	int first = create_vm();
	EXPECT_EQ(cpus_in_vmx_operation(), cpu_count);
	int second = create_vm();
	close_fd(first);
	EXPECT_EQ(cpus_in_vmx_operation(), cpu_count);
	close_fd(second);
	EXPECT_EQ(cpus_in_vmx_operation(), 0);
	int third = create_vm();
	EXPECT_EQ(cpus_in_vmx_operation(), cpu_count);
	close_fd(third);
}

TEST_F(Hardware, failure_on_one_cpu_undoes_the_others)
{
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		processor(cpu).fail_vmxon = true;
		EXPECT_EQ(create_vm(), -EIO);
		EXPECT_EQ(cpus_in_vmx_operation(), 0);
		for (int other = 0; other < cpu_count; other++)
			EXPECT_FALSE(processor(other).vmxe);
		EXPECT_EQ(take_log().size(), 1u) << "one line that names the reason";
	}
	int vm = create_vm();
	EXPECT_EQ(cpus_in_vmx_operation(), cpu_count);
	close_fd(vm);
}

TEST_F(Hardware, another_hypervisor_is_in_vmx_operation)
{
	processor(2).vmxe = true;
	EXPECT_EQ(create_vm(), -EBUSY);
	EXPECT_EQ(cpus_in_vmx_operation(), 0);
	EXPECT_TRUE(processor(2).vmxe);
	EXPECT_EQ(take_log().size(), 1u);
	processor(2).vmxe = false;
}

TEST_F(Hardware, one_line_when_all_cpus_refuse)
{
	for (int cpu = 0; cpu < cpu_count; cpu++)
		processor(cpu).vmxe = true;
	EXPECT_EQ(create_vm(), -EBUSY);
	EXPECT_EQ(take_log().size(), 1u);
	for (int cpu = 0; cpu < cpu_count; cpu++)
		processor(cpu).vmxe = false;
}

TEST_F(Hardware, cpu_goes_and_comes_without_vms)
{
	take_offline(3);
	EXPECT_EQ(bring_online(3), 0);
	EXPECT_FALSE(processor(3).vmx);
}

TEST_F(Hardware, cpu_goes_and_comes_with_a_vm)
{
	int vm = create_vm();
	take_offline(3);
	EXPECT_FALSE(processor(3).vmx);
	EXPECT_EQ(bring_online(3), 0);
	EXPECT_TRUE(processor(3).vmx);
	close_fd(vm);
}

TEST_F(Hardware, vm_while_a_cpu_is_offline)
{
	take_offline(2);
	int vm = create_vm();
	EXPECT_FALSE(processor(2).vmx);
	EXPECT_EQ(bring_online(2), 0);
	EXPECT_TRUE(processor(2).vmx);
	take_offline(2);
	close_fd(vm);
	EXPECT_EQ(bring_online(2), 0);
	EXPECT_FALSE(processor(2).vmx);
}

TEST_F(Hardware, cpu_that_cannot_does_not_come_online_while_there_are_vms)
{
	int vm = create_vm();
	take_offline(1);
	processor(1).fail_vmxon = true;
	EXPECT_EQ(bring_online(1), -EIO);
	EXPECT_FALSE(is_online(1));
	EXPECT_FALSE(processor(1).vmxe);
	EXPECT_EQ(take_log().size(), 1u);
	processor(1).vmxe = true;
	EXPECT_EQ(bring_online(1), -EBUSY);
	processor(1).vmxe = false;
	close_fd(vm);
	processor(1).fail_vmxon = true;
	EXPECT_EQ(bring_online(1), 0) << "without VMs nobody asks";
	processor(1).fail_vmxon = false;
	(void)take_log();
}

TEST_F(Hardware, suspend_and_resume)
{
	int vm = create_vm();
	for (int cpu = 1; cpu < cpu_count; cpu++)
		take_offline(cpu);
	interrupt(0, kvmpp_syscore_suspend);
	EXPECT_EQ(cpus_in_vmx_operation(), 0);
	interrupt(0, kvmpp_syscore_resume);
	EXPECT_EQ(cpus_in_vmx_operation(), 1);
	for (int cpu = 1; cpu < cpu_count; cpu++)
		EXPECT_EQ(bring_online(cpu), 0);
	EXPECT_EQ(cpus_in_vmx_operation(), cpu_count);
	close_fd(vm);
	interrupt(0, kvmpp_syscore_suspend);
	interrupt(0, kvmpp_syscore_resume);
	EXPECT_EQ(cpus_in_vmx_operation(), 0) << "not without VMs";
}

/* In a process of its own: there is no way back. */
TEST_F(Hardware, machine_that_goes_down_leaves_vmx_for_good)
{
	auto go_down = [&] {
		int vm = create_vm();
		kvmpp_machine_down();
		bool off = cpus_in_vmx_operation() == 0;
		bool refused = create_vm() == -EBUSY;
		take_offline(1);
		bool stays_off = bring_online(1) == 0 && !processor(1).vmx;
		close_fd(vm);
		std::_Exit(off && refused && stays_off && take_violations().empty() ? 0 : 1);
	};
	EXPECT_EXIT(go_down(), testing::ExitedWithCode(0), "");
}

TEST_F(Hardware, module_that_came_after_the_notifier)
{
	machine_goes_down_already();
	EXPECT_EQ(create_vm(), -EBUSY);
	EXPECT_EQ(cpus_in_vmx_operation(), 0);
}

TEST_F(Hardware, crash_hook_while_there_are_vms)
{
	EXPECT_FALSE(crash_hook_held());
	int vm = create_vm();
	EXPECT_TRUE(crash_hook_held());
	EXPECT_FALSE(crash_hook_may_be_lacking());
	close_fd(vm);
	EXPECT_FALSE(crash_hook_held());
	processor(1).fail_vmxon = true;
	EXPECT_EQ(create_vm(), -EIO);
	EXPECT_FALSE(crash_hook_held());
	(void)take_log();
}

TEST_F(Hardware, crash_hook_is_kvm_intels)
{
	load_kvm_intel();
	EXPECT_EQ(create_vm(), -EBUSY);
	EXPECT_EQ(cpus_in_vmx_operation(), 0);
	ASSERT_EQ(take_log().size(), 1u);
	glue_parameters.allow_no_crash_hook = true;
	int vm = create_vm();
	EXPECT_GE(vm, 0);
	EXPECT_FALSE(crash_hook_held());
	EXPECT_EQ(take_log().size(), 1u) << "it says that there is none";
	close_fd(vm);
}

TEST_F(Hardware, crash_hook_may_go_where_vms_may_be_without)
{
	glue_parameters.allow_no_crash_hook = true;
	int vm = create_vm();
	EXPECT_TRUE(crash_hook_held() && crash_hook_may_be_lacking());
	close_fd(vm);
}

TEST_F(ModuleLoad, enable_at_load)
{
	glue_parameters.enable_at_load = true;
	ASSERT_EQ(kvmpp_init(), 0);
	EXPECT_TRUE(processor(0).vmx && processor(3).vmx);
	EXPECT_TRUE(crash_hook_held());
	kvmpp_exit();
	EXPECT_FALSE(processor(0).vmx || processor(3).vmx);
}

TEST_F(ModuleLoad, enable_at_load_that_fails)
{
	glue_parameters.enable_at_load = true;
	processor(2).vmxe = true;
	EXPECT_EQ(kvmpp_init(), -EBUSY);
	EXPECT_FALSE(processor(0).vmx);
	EXPECT_EQ(take_log().size(), 1u);
	processor(2).vmxe = false;
	ASSERT_EQ(kvmpp_init(), 0);
	kvmpp_exit();
}

TEST_F(ModuleLoad, enable_at_load_is_exclusive)
{
	glue_parameters.enable_at_load = true;
	glue_parameters.exclusive = false;
	EXPECT_EQ(kvmpp_init(), -EINVAL);
	EXPECT_EQ(take_log().size(), 1u);
}

TEST_F(Hardware, debugfs_shows_cpus_and_counts)
{
	int vm = create_vm();
	std::string cpus, stats;

	take_offline(2);
	kvmpp_show_cpus(reinterpret_cast<glue_text *>(&cpus));
	kvmpp_show_stats(reinterpret_cast<glue_text *>(&stats));
	EXPECT_EQ(cpus, "cpu 0 vmx on loaded 0\ncpu 1 vmx on loaded 0\ncpu 3 vmx on loaded 0\n");
	EXPECT_NE(stats.find("vmx_enables 4\nvmx_disables 1\n"), std::string::npos) << stats;
	EXPECT_NE(stats.find("exits_total 0\n"), std::string::npos) << stats;
	EXPECT_EQ(bring_online(2), 0);
	close_fd(vm);
}

TEST_F(Hardware, debugfs_shows_exits_of_each_cpu)
{
	std::string before, after;
	int here;

	kvmpp_show_exits(reinterpret_cast<glue_text *>(&before));
	EXPECT_EQ(before, "");
	{
		IrqOff irq;

		here = irq.cpu().value;
		VmxCpu::here(irq).count_exit(exit_row(static_cast<u32>(ExitReason::hlt)));
		VmxCpu::here(irq).count_exit(exit_row(static_cast<u32>(ExitReason::hlt)));
		VmxCpu::here(irq).count_exit(exit_row(77));
	}
	kvmpp_show_exits(reinterpret_cast<glue_text *>(&after));
	std::string cpu = "cpu " + std::to_string(here);
	EXPECT_EQ(after, cpu + " hlt 2\n" + cpu + " reason_77 1\n");
}

TEST_F(ModuleLoad, refused_cpus)
{
	const struct {
		void (*change)(VmxRegisters &);
		int error;
	} cases[] = {
		{[](VmxRegisters &r) { r.feature_control = 0; }, -EOPNOTSUPP},
		{[](VmxRegisters &r) { r.feature_control = 1; }, -EOPNOTSUPP},
		{[](VmxRegisters &r) { r.ept_vpid = 0; }, -EIO},
	};

	for (auto &c : cases) {
		VmxRegisters r = capable_registers();
		c.change(r);
		set_registers(0, r);
		EXPECT_EQ(kvmpp_init(), c.error);
		EXPECT_EQ(take_log().size(), 1u);
	}
	cpuid_table()[{1, 0}].ecx &= ~(1u << 5);
	EXPECT_EQ(kvmpp_init(), -EOPNOTSUPP);
	EXPECT_EQ(take_log().size(), 1u);
}

TEST_F(ModuleLoad, tsc_of_no_known_rate)
{
	set_tsc_khz(0);
	EXPECT_EQ(kvmpp_init(), -EOPNOTSUPP);
	EXPECT_EQ(take_log().size(), 1u);
}

TEST_F(ModuleLoad, registration_that_fails)
{
	fail_hotplug_registration(-ENOSPC);
	EXPECT_EQ(kvmpp_init(), -ENOSPC);
}

TEST_F(ModuleLoad, out_of_memory_at_each_allocation)
{
	for (unsigned n = 0;; n++) {
		fail_allocation_after(n);
		int error = kvmpp_init();
		if (!allocation_failed()) {
			EXPECT_EQ(error, 0);
			/* Records of dedicated CPUs, those of all CPUs, and a page for each. */
			EXPECT_EQ(n, 2u + cpu_count);
			kvmpp_exit();
			break;
		}
		EXPECT_EQ(error, -ENOMEM) << n;
	}
	fail_allocation_after(~0u);
}
