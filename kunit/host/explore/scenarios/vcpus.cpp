// SPDX-License-Identifier: GPL-2.0
/* References, and the table of vCPUs. */
#include "linux.hpp"
#include "machine.hpp"
#include "memory.hpp"
#include "setup.hpp"
#include "virt/dedicated_cpus.hpp"
#include "virt/directed_yield.hpp"
#include "virt/vcpu.hpp"

#include <linux_glue/entries.h>

namespace kvmpp::explore
{

namespace
{

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
	/* A crash looks at the records of dedicated CPUs. */
	expect(!!dedicated_init(), "the records are made");
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
	dedicated_exit();
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
	{"two_vcpus_yield",
	 2,
	 set_up_table,
	 {{"yield 0", yield_from_first}, {"yield 2", yield_from_third}, {"close", close_second}},
	 finish_table},
};

} // namespace

const Scenarios vcpus_scenarios = {all, sizeof(all) / sizeof(all[0])};

} // namespace kvmpp::explore
