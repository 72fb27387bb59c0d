// SPDX-License-Identifier: GPL-2.0
#include "setup.hpp"

#include "hotplug.hpp"
#include "linux.hpp"
#include "machine.hpp"
#include "memory.hpp"
#include "vmx.hpp"

#include "arch/x86/dedicated/machine.hpp"
#include "virt/dedicated_cpus.hpp"

#include <linux_glue/crash.h>
#include <linux_glue/entries.h>
#include <linux_glue/parameters.h>

using namespace kvmpp::explore;

/* arch/x86/dedicated/bare.cpp */
extern "C" {
[[noreturn]] void kvmpp_dedicated_main(kvmpp::DedicatedMachine *machine);
void kvmpp_dedicated_nmi(kvmpp::TrapFrame *frame);
}

/* Here, since a scenario may be of a module that was loaded with others. */
struct glue_parameters glue_parameters = {.enable_at_load = false,
					  .exclusive = true,
					  .allow_no_crash_hook = false,
					  .allow_smt = false,
					  .eptad = true,
					  .pml = false,
					  .ple_gap = 128,
					  .ple_window = 4096};

namespace kvmpp::explore
{

void expect(bool so, const char *what)
{
	if (!so)
		fail("%s", what);
}

Vm *vm;
Owned<Guest> guests[2];
bool with_hotplug;
unsigned uses;

void load_module()
{
	expect(!!dedicated_init(), "the records are made");
	expect(!!hardware_init(), "the module comes in");
}

void make_vm()
{
	Result<Vm *> made = Vm::create();

	expect(!!made, "a VM is made");
	vm = *made;
}

void make_guest(int i)
{
	guests[i] = Owned<Guest>::create(static_cast<u32>(i));
	guests[i]->state.reset(static_cast<u32>(i), 0);
	expect(!!guests[i]->vmx.create({}), "a vCPU is made");
}

bool enter(int i)
{
	Guest &g = *guests[i];
	Exit exit;
	Result<Entry> entry = g.enter(exit);

	expect(!!entry, "the VMCS can be used");
	if (*entry == Entry::vmx_off) {
		expect(with_hotplug, "VMX is on and the VMCS can be had");
		return false;
	}
	expect(*entry == Entry::exited, "the guest runs");
	if (exit.reason() == ExitReason::ept_violation) {
		SrcuRead read(vm->srcu());
		expect(!!vm->mmu().fault(vm->slots(read), exit.guest_phys, {.write = true},
					 g.table_pages),
		       "the fault is answered");
		return false;
	}
	return true;
}

void set_up_guest()
{
	load_module();
	make_vm();
	make_guest(0);
}

void set_up_two_guests()
{
	set_up_guest();
	make_guest(1);
}

void set_up_guest_with_hotplug()
{
	with_hotplug = true;
	set_up_guest();
}

void set_up_two_guests_with_hotplug()
{
	with_hotplug = true;
	set_up_two_guests();
}

void set_up_guest_on_cpu_1()
{
	set_up_guest_with_hotplug();
	run_at_once(
		1, [](void *) { enter(0); }, nullptr);
}

void finish()
{
	for (auto &guest : guests)
		guest = {};
	if (vm)
		vm->put();
	vm = nullptr;
	for (unsigned i = 0; i < uses; i++)
		hardware_put();
	check_at_rest();
	hardware_exit();
	dedicated_exit();
	expect(live_allocations() == 0, "no memory is left behind");
	check_hotplug_at_rest();
	check_linux_at_rest();
}

void enter_first()
{
	enter(0);
}

void enter_first_twice()
{
	enter(0), enter(0);
}

void take_cpu_1_offline()
{
	take_offline(1);
}

void bring_cpu_1_online()
{
	(void)bring_online(1);
}

void cpu_1_goes_and_comes()
{
	take_offline(1);
	expect(bring_online(1) == 0, "the CPU comes back");
}

} // namespace kvmpp::explore

extern "C" const ScenarioList kvmpp_scenarios = {
	{&vmcs_scenarios, &hardware_scenarios, &vcpus_scenarios, &dedicated_scenarios,
	 &memory_scenarios, &io_scenarios, &apic_scenarios},
	kvmpp_cpu_online,
	kvmpp_cpu_offline,
	kvmpp_mmu_invalidate_begin,
	kvmpp_mmu_invalidate_end,
	kvmpp_crash,
	kvmpp_cpu_prepare,
	kvmpp_nmi,
	kvmpp_unclaimed_nmi,
	kvmpp_dedicated_main,
	kvmpp_dedicated_nmi};
