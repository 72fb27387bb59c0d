// SPDX-License-Identifier: GPL-2.0
/* Built with the module's sources into each variant: see variant.hpp. */
#include "scenario.hpp"

#include "arch/x86/vmx_cpu.hpp"
#include "arch/x86/vmx_vcpu.hpp"
#include "arch/x86/vpid.hpp"
#include "hotplug.hpp"
#include "linux.hpp"
#include "machine.hpp"
#include "memory.hpp"
#include "virt/directed_yield.hpp"
#include "virt/hardware.hpp"
#include "virt/vcpu.hpp"
#include "virt/vm.hpp"
#include "vmx.hpp"

#include <linux_glue/crash.h>
#include <linux_glue/entries.h>
#include <linux_glue/parameters.h>

using namespace kvmpp;
using namespace kvmpp::explore;

/* Here, since a scenario may be of a module that was loaded with others. */
struct glue_parameters glue_parameters = {.enable_at_load = false,
					  .exclusive = true,
					  .allow_no_crash_hook = false,
					  .ple_gap = 128,
					  .ple_window = 4096};

namespace
{

void expect(bool so, const char *what)
{
	if (!so)
		fail("%s", what);
}

/* The guest has one page of the VMM, at guest-physical 0. */
constexpr u32 slot = 0;

Vm *vm;
/* As Vcpu has them: its VMX side and its registers. */
struct Guest {
	VmxVcpu vmx;
	VcpuState state;
	RcuOwned<VcpuEntry> entry;

	explicit Guest(u32 id)
		: vmx(hardware_config(), vm->mmu().ept()), entry(Owned<VcpuEntry>::create(id))
	{
		Locked locked(table().lock);
		table().add(*entry);
	}
	~Guest()
	{
		Locked locked(table().lock);
		table().remove(*entry);
	}
	/* Only Vm::create_vcpu() changes it, which makes more of a vCPU than is wanted here. */
	static VcpuTable &table() { return const_cast<VcpuTable &>(vm->vcpus()); }
};
Owned<Guest> guests[2];
/* Two VMCSs of one thread: what nested virtualization will stand on. */
Owned<LoadedVmcs> pool[2];
bool with_hotplug;
unsigned uses;

Result<> set_slot(u64 bytes, u64 page = 0)
{
	Result<SlotRequest> request =
		check_slot_request(slot, 0, 0, bytes, user_memory + (page << page_shift), 39);

	if (!request)
		return request.error();
	return vm->set_memory(*request);
}

void load_module()
{
	vpid_init();
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

/* One entry, as Vcpu::step() goes about it. False: VMX was off there, or nothing mapped yet. */
bool enter(int i)
{
	Guest &g = *guests[i];
	Exit exit;
	Result<Entry> entry = g.vmx.enter(g.state, exit, g.entry->kick);

	expect(!!entry, "the VMCS can be used");
	if (*entry == Entry::vmx_off) {
		expect(with_hotplug, "VMX is on and the VMCS can be had");
		return false;
	}
	expect(*entry == Entry::exited, "the guest runs");
	if (exit.reason() == ExitReason::ept_violation) {
		SrcuRead read(vm->srcu());
		expect(!!vm->mmu().fault(vm->slots(read), exit.guest_phys, true),
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

void set_up_memory()
{
	set_up_guest();
	expect(!!set_slot(page_size), "memory is added");
}

/* Its VMCS is active on CPU 1. */
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
	for (auto &vmcs : pool)
		vmcs = {};
	if (vm)
		vm->put();
	vm = nullptr;
	for (unsigned i = 0; i < uses; i++)
		hardware_put();
	check_at_rest();
	hardware_exit();
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
void enter_second_twice()
{
	enter(1), enter(1);
}
void enter_second()
{
	enter(1);
}

void end_vm()
{
	guests[0] = {};
	vm->put();
	vm = nullptr;
}

void destroy_first()
{
	guests[0] = {};
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

void touch_memory()
{
	guest_touches(0);
	for (int tries = 0; tries < 3 && !enter(0); tries++)
		;
}

void touch_memory_twice()
{
	touch_memory();
	enter(0);
}

void take_first_page()
{
	take_page_away(0);
}

void take_other_page()
{
	take_page_away(1);
}

void remove_slot()
{
	expect(!!set_slot(0), "the slot goes");
	/* From here on the VMM may use the memory as it likes. */
	take_frame_away(frame_of_page(0));
}

void add_slot()
{
	expect(!!set_slot(page_size), "memory is added");
}

/* An exit for it has been before. */
void fault_and_touch(int i)
{
	{
		SrcuRead read(vm->srcu());
		expect(!!vm->mmu().fault(vm->slots(read), {0}, true), "the fault is answered");
	}
	guest_touches(0);
	enter(i);
}

void fault_and_touch_first()
{
	fault_and_touch(0);
}

void touch_first()
{
	guest_touches(0);
	enter(0);
}

void touch_second()
{
	guest_touches(0);
	enter(1);
}

void set_up_mapped_memory()
{
	set_up_memory();
	SrcuRead read(vm->srcu());
	expect(!!vm->mmu().fault(vm->slots(read), {0}, true), "the page is mapped");
}

void make_second_and_touch()
{
	make_guest(1);
	touch_second();
}

void set_up_memory_and_two_guests()
{
	set_up_two_guests();
	expect(!!set_slot(page_size), "memory is added");
}

/* VMX stays on, and the new VM's tables are where the old one's were, in the same order. */
void vm_after_vm()
{
	touch_memory();
	guests[0] = {};
	vm->put();
	take_frame_away(frame_of_page(0));
	make_vm();
	make_guest(0);
	expect(!!set_slot(page_size, 1), "memory is added");
	touch_memory();
}

void set_up_memory_and_use()
{
	load_module();
	expect(!!hardware_get(), "VMX goes on");
	uses = 1;
}

void make_vm_twice()
{
	make_vm();
	make_guest(0);
	expect(!!set_slot(page_size), "memory is added");
	vm_after_vm();
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

/* References. */
void *vcpu_file, *vm_file;

void set_up_files()
{
	load_module();
	make_vm();
	vm_file = vm;
	expect(!!vm->create_vcpu(0), "a vCPU is made");
	vcpu_file = new_file();
	vm = nullptr;
}

void close_vm()
{
	kvmpp_vm_release(vm_file);
}
void close_vcpu()
{
	kvmpp_vcpu_release(vcpu_file);
}

/* The table of vCPUs, and those who walk it. */
Owned<VcpuTable> table;
DirectedYield directed;
RcuOwned<VcpuEntry> entries[3];

void add_entry(u32 id)
{
	auto entry = Owned<VcpuEntry>::create(id);

	expect(!!entry->set_thread_to_current(), "the entry has a thread");
	entry->set_preempted(true);
	entries[id] = std::move(entry);
	Locked locked(table->lock);
	expect(!table->has(id), "the id is free");
	table->add(*entries[id]);
}

void close_entry(u32 id)
{
	{
		Locked locked(table->lock);
		table->remove(*entries[id]);
	}
	entries[id] = {};
}

void set_up_table()
{
	table = Owned<VcpuTable>::create();
	table->init();
	for (u32 id : {0, 1, 2})
		add_entry(id);
}

void finish_table()
{
	u32 there = 0;

	for (u32 id : {0, 1, 2})
		if (entries[id]) {
			there++;
			close_entry(id);
		}
	expect(table->count() == 0 && table->end() == 0, "the table is empty");
	table = {};
	expect(there >= 2, "those that nobody closed are there");
	expect(live_allocations() == 0, "no memory is left behind");
}

void yield_from_first()
{
	directed.yield(*table, *entries[0]);
}

void yield_from_third()
{
	directed.yield(*table, *entries[2]);
}

void close_second()
{
	close_entry(1);
}

void make_second_again()
{
	close_entry(1);
	add_entry(1);
}

void close_third()
{
	close_entry(2);
}

void look_second_up()
{
	glue_task *task = nullptr;
	{
		RcuRead read;
		VcpuEntry *entry = table->find(1);

		if (entry) {
			expect(entry->id() == 1, "it is the one");
			task = entry->task();
			expect(task, "it has a thread");
		}
	}
	if (task)
		glue_task_put(task);
}

void run_second_elsewhere()
{
	expect(!!entries[1]->set_thread_to_current(), "the entry has a thread");
}

/* The same of a VM. */
Vcpu *siblings[2];

void set_up_siblings()
{
	load_module();
	make_vm();
	for (u32 id : {0, 1}) {
		expect(!!vm->create_vcpu(id), "a vCPU is made");
		siblings[id] = static_cast<Vcpu *>(new_file());
		siblings[id]->entry().set_preempted(true);
		expect(!!siblings[id]->entry().set_thread_to_current(), "it has a thread");
	}
}

void first_sibling_yields()
{
	vm->yield_from(siblings[0]->entry());
}

void close_second_sibling()
{
	kvmpp_vcpu_release(siblings[1]);
}

void close_first_sibling()
{
	kvmpp_vcpu_release(siblings[0]);
	siblings[0] = nullptr;
}

void finish_siblings()
{
	expect(vm->vcpus().count() == (siblings[0] ? 1 : 0), "those that nobody closed are there");
	if (siblings[0])
		close_first_sibling();
	finish();
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
	{"vcpu_freed_as_cpu_goes",
	 2,
	 set_up_guest_on_cpu_1,
	 {{"free", destroy_first}, {"hotplug", take_cpu_1_offline}},
	 finish},
	{"pool_as_cpu_goes",
	 2,
	 set_up_pool_with_hotplug,
	 {{"thread", load_both_free_one}, {"hotplug", take_cpu_1_offline}},
	 finish},
	{"vmcs_at_the_same_address",
	 2,
	 set_up_pool,
	 {{"thread", free_and_make_again}, {"other", load_second}},
	 finish},
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
	{"slot_goes_page_goes",
	 2,
	 set_up_mapped_memory,
	 {{"vcpu", touch_first}, {"slots", remove_slot}, {"notifier", take_first_page}},
	 finish},
	{"slot_comes_page_goes",
	 2,
	 set_up_guest,
	 {{"slots", add_slot}, {"vcpu", fault_and_touch_first}, {"notifier", take_first_page}},
	 finish},
	{"two_vcpus_fault",
	 2,
	 set_up_memory_and_two_guests,
	 {{"vcpu 0", fault_and_touch_first}, {"vcpu 1", touch_second}},
	 finish},
	{"vcpu_made_as_page_goes",
	 2,
	 set_up_mapped_memory,
	 {{"vcpu", make_second_and_touch}, {"notifier", take_first_page}},
	 finish},
	{"vm_at_the_same_address", 2, set_up_memory_and_use, {{"thread", make_vm_twice}}, finish},
	{"load_without_asking",
	 2,
	 set_up_pool_on_cpu_1,
	 {{"thread", load_until_it_is_here}, {"hotplug", take_cpu_1_offline}},
	 finish},
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
	{"last_reference", 2, set_up_files, {{"vm", close_vm}, {"vcpu", close_vcpu}}, finish},
	{"vcpu_closed_in_yield",
	 2,
	 set_up_table,
	 {{"yield", yield_from_first}, {"close", close_second}},
	 finish_table},
	{"vcpu_made_again_in_yield",
	 2,
	 set_up_table,
	 {{"yield", yield_from_first}, {"again", make_second_again}},
	 finish_table},
	{"vcpu_changes_thread",
	 2,
	 set_up_table,
	 {{"yield", yield_from_first}, {"run", run_second_elsewhere}},
	 finish_table},
	{"vcpus_looked_up",
	 2,
	 set_up_table,
	 {{"look up", look_second_up}, {"again", make_second_again}, {"close", close_third}},
	 finish_table},
	{"sibling_closed",
	 2,
	 set_up_siblings,
	 {{"yield", first_sibling_yields}, {"close", close_second_sibling}},
	 finish_siblings},
	{"siblings_closed",
	 2,
	 set_up_siblings,
	 {{"first", close_first_sibling}, {"second", close_second_sibling}},
	 finish_siblings},
	/* The long ones, the longest first. */
	{"page_of_two_vcpus",
	 2,
	 set_up_memory_and_two_guests,
	 {{"vcpu 0", fault_and_touch_first},
	  {"vcpu 1", touch_second},
	  {"notifier", take_first_page}},
	 finish},
	{"slot_goes",
	 2,
	 set_up_memory,
	 {{"vcpu", touch_memory_twice}, {"slots", remove_slot}},
	 finish},
	{"two_vcpus_yield",
	 2,
	 set_up_table,
	 {{"yield 0", yield_from_first}, {"yield 2", yield_from_third}, {"close", close_second}},
	 finish_table},
	{"page_taken_away_twice",
	 2,
	 set_up_mapped_memory,
	 {{"vcpu", touch_first}, {"notifier", take_first_page}, {"other", take_first_page}},
	 finish},
	{"page_taken_away",
	 2,
	 set_up_memory,
	 {{"vcpu", touch_memory_twice}, {"notifier", take_first_page}},
	 finish},
	{"two_pages_taken_away",
	 2,
	 set_up_memory,
	 {{"vcpu", fault_and_touch_first},
	  {"notifier", take_first_page},
	  {"other", take_other_page}},
	 finish},
};

} // namespace

extern "C" const ScenarioList kvmpp_scenarios = {all,
						 sizeof(all) / sizeof(all[0]),
						 kvmpp_cpu_online,
						 kvmpp_cpu_offline,
						 kvmpp_mmu_invalidate_begin,
						 kvmpp_mmu_invalidate_end,
						 kvmpp_crash};
