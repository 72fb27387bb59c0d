// SPDX-License-Identifier: GPL-2.0
/* VMX on all CPUs, and how many use it. */
#include "hotplug.hpp"
#include "machine.hpp"
#include "setup.hpp"
#include "vmx.hpp"

#include <linux_glue/entries.h>

namespace kvmpp::explore
{

namespace
{

void end_vm()
{
	guests[0] = {};
	vm->put();
	vm = nullptr;
}

/* The usage count. */
void set_up_module()
{
	load_module();
}

void set_up_cpu_1_offline()
{
	load_module();
	take_offline(1);
}

void set_up_use_cpu_1_offline()
{
	set_up_cpu_1_offline();
	expect(!!hardware_get(), "VMX goes on");
	uses = 1;
}

void set_up_broken_cpu_1()
{
	load_module();
	break_vmxon(1);
}

void set_up_broken_cpu_1_offline()
{
	set_up_cpu_1_offline();
	break_vmxon(1);
}

std::atomic<unsigned> got;

void get()
{
	if (hardware_get())
		got.fetch_add(1, std::memory_order_relaxed);
}

void get_and_put()
{
	if (hardware_get())
		hardware_put();
}

void put_last()
{
	hardware_put();
}

void finish_uses()
{
	uses = got.load(std::memory_order_relaxed);
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (cpus[cpu].online)
			expect(in_vmx_operation(cpu) == (uses > 0),
			       "VMX is on where and only where it is wanted");
	finish();
}

void finish_put()
{
	uses = 0;
	for (int cpu = 0; cpu < cpu_count; cpu++)
		expect(!in_vmx_operation(cpu), "VMX is off after the last VM");
	finish();
}

void machine_goes_down()
{
	kvmpp_machine_down();
}

void finish_down()
{
	for (int cpu = 0; cpu < cpu_count; cpu++)
		expect(!in_vmx_operation(cpu), "VMX is off when the machine goes down");
	finish();
}

constexpr Scenario all[] = {
	{"vm_ends_as_cpu_goes",
	 2,
	 set_up_guest_on_cpu_1,
	 {{"vm", end_vm}, {"hotplug", cpu_1_goes_and_comes}},
	 finish},
	{"vm_ends_as_vm_begins",
	 2,
	 set_up_guest_on_cpu_1,
	 {{"old", end_vm}, {"new", get}},
	 finish_uses},
	{"first_vm_as_cpu_comes",
	 2,
	 set_up_cpu_1_offline,
	 {{"get", get}, {"hotplug", bring_cpu_1_online}},
	 finish_uses},
	{"first_vm_as_cpu_goes",
	 2,
	 set_up_module,
	 {{"get", get}, {"hotplug", take_cpu_1_offline}},
	 finish_uses},
	{"last_vm_as_cpu_comes",
	 2,
	 set_up_use_cpu_1_offline,
	 {{"put", put_last}, {"hotplug", bring_cpu_1_online}},
	 finish_put},
	{"vms_come_and_go",
	 2,
	 set_up_module,
	 {{"first", get_and_put}, {"second", get}},
	 finish_uses},
	{"cpu_refuses", 2, set_up_broken_cpu_1, {{"first", get}, {"second", get}}, finish_uses},
	{"cpu_refuses_as_it_comes",
	 2,
	 set_up_broken_cpu_1_offline,
	 {{"get", get}, {"hotplug", bring_cpu_1_online}},
	 finish_uses},
	{"machine_goes_down",
	 2,
	 set_up_guest_on_cpu_1,
	 {{"vcpu", enter_first}, {"reboot", machine_goes_down}},
	 finish_down},
};

} // namespace

const Scenarios hardware_scenarios = {all, sizeof(all) / sizeof(all[0])};

} // namespace kvmpp::explore
