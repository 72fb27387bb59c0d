// SPDX-License-Identifier: GPL-2.0
/* VMCSs, and the CPUs that they are on. */
#include "hotplug.hpp"
#include "machine.hpp"
#include "setup.hpp"
#include "vmx.hpp"

#include <linux_glue/parameters.h>

namespace kvmpp::explore
{

namespace
{

/* Two VMCSs of one thread: what nested virtualization will stand on. */
Owned<LoadedVmcs> pool[2];

/* VMX is on only where a vCPU's thread is. */
void set_up_two_guests_not_exclusive()
{
	glue_parameters.exclusive = false;
	set_up_two_guests_with_hotplug();
}

/* What the notice of being scheduled away does, if it comes just then. */
void enter_and_leave(int i)
{
	PreemptOff preempt;

	enter(i);
	{
		IrqOff irq;
		guests[i]->vmx.leave_guest(irq, guests[i]->state);
	}
	expect(!in_vmx_operation(preempt.cpu().value), "VMX is off where no vCPU is");
}

void enter_leave_and_fetch()
{
	enter_and_leave(0);
	(void)guests[0]->vmx.fetch(guests[0]->state, Groups::all());
	for (int cpu = 0; cpu < cpu_count; cpu++)
		expect(!in_vmx_operation(cpu), "VMX is off where no vCPU is");
}

void enter_and_leave_first_twice()
{
	enter_and_leave(0), enter_and_leave(0);
}

void enter_and_leave_second()
{
	enter_and_leave(1);
}

void enter_second_twice()
{
	enter(1), enter(1);
}

void enter_second()
{
	enter(1);
}

void destroy_first()
{
	guests[0] = {};
}

/* VMCSs by themselves. */
bool load(LoadedVmcs &vmcs)
{
	PreemptOff preempt;

	vmcs.leave_other_cpu(preempt);
	IrqOff irq;
	Result<ActiveVmcs> active = vmcs.load(irq);
	if (!active) {
		expect(active.error() == Errno::again && with_hotplug, "the VMCS can be loaded");
		return false;
	}
	active->write(field::host_tr_base, 0);
	expect(!!active->ok(), "the VMCS is current");
	return true;
}

void make_vmcs(int i)
{
	pool[i] = Owned<LoadedVmcs>::create();
	expect(!!pool[i]->create(hardware_config().revision, {}), "a VMCS is made");
}

void set_up_pool()
{
	load_module();
	expect(!!hardware_get(), "VMX goes on");
	uses = 1;
	make_vmcs(0);
	make_vmcs(1);
}

void set_up_pool_with_hotplug()
{
	with_hotplug = true;
	set_up_pool();
}

void finish_pool()
{
	for (auto &vmcs : pool)
		vmcs = {};
	finish();
}

void load_both_free_one()
{
	load(*pool[0]);
	load(*pool[1]);
	pool[0] = {};
	load(*pool[1]);
}

void free_and_make_again()
{
	load(*pool[0]);
	pool[0] = {};
	make_vmcs(0);
	load(*pool[0]);
}

void load_second()
{
	load(*pool[1]);
}

/* As load() has it: again, and again, without a look at where it is. */
void load_until_it_is_here()
{
	for (int tries = 0; tries < 3; tries++) {
		IrqOff irq;
		if (pool[0]->load(irq))
			return;
	}
}

void set_up_pool_on_cpu_1()
{
	set_up_pool_with_hotplug();
	run_at_once(
		1, [](void *) { load(*pool[0]); }, nullptr);
}

constexpr Scenario all[] = {
	{"two_vcpus_migrate",
	 2,
	 set_up_two_guests,
	 {{"vcpu 0", enter_first_twice}, {"vcpu 1", enter_second_twice}},
	 finish},
	{"cpu_goes_under_a_vcpu",
	 2,
	 set_up_guest_with_hotplug,
	 {{"vcpu", enter_first_twice}, {"hotplug", take_cpu_1_offline}},
	 finish},
	{"cpu_goes_and_comes",
	 2,
	 set_up_guest_on_cpu_1,
	 {{"vcpu", enter_first}, {"hotplug", cpu_1_goes_and_comes}},
	 finish},
	{"cpu_goes_under_two_vcpus",
	 2,
	 set_up_two_guests_with_hotplug,
	 {{"vcpu 0", enter_first_twice},
	  {"vcpu 1", enter_second},
	  {"hotplug", cpu_1_goes_and_comes}},
	 finish},
	{"one_cpu_of_three_goes",
	 3,
	 set_up_guest_with_hotplug,
	 {{"vcpu", enter_first_twice}, {"hotplug", cpu_1_goes_and_comes}},
	 finish},
	{"vcpu_freed_as_cpu_goes",
	 2,
	 set_up_guest_on_cpu_1,
	 {{"free", destroy_first}, {"hotplug", take_cpu_1_offline}},
	 finish},
	{"pool_as_cpu_goes",
	 2,
	 set_up_pool_with_hotplug,
	 {{"thread", load_both_free_one}, {"hotplug", take_cpu_1_offline}},
	 finish_pool},
	{"vmcs_at_the_same_address",
	 2,
	 set_up_pool,
	 {{"thread", free_and_make_again}, {"other", load_second}},
	 finish_pool},
	{"load_without_asking",
	 2,
	 set_up_pool_on_cpu_1,
	 {{"thread", load_until_it_is_here}, {"hotplug", take_cpu_1_offline}},
	 finish_pool},
	{"not_exclusive_in_turn",
	 2,
	 set_up_two_guests_not_exclusive,
	 {{"vcpu 0", enter_and_leave_first_twice}, {"vcpu 1", enter_and_leave_second}},
	 finish},
	{"not_exclusive_as_cpu_goes",
	 2,
	 set_up_two_guests_not_exclusive,
	 {{"vcpu 0", enter_leave_and_fetch}, {"hotplug", cpu_1_goes_and_comes}},
	 finish},
};

} // namespace

const Scenarios vmcs_scenarios = {all, sizeof(all) / sizeof(all[0])};

} // namespace kvmpp::explore
