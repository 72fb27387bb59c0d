// SPDX-License-Identifier: GPL-2.0
/* Linux's hotplug, as far as callbacks, IPIs and threads can tell. */
#include "hotplug.hpp"

#include "machine.hpp"
#include "memory.hpp"
#include "races.hpp"
#include "scenario.hpp"
#include "vmx.hpp"

#include <linux_glue/cpu.h>

#include <utility>

namespace kvmpp::explore
{

namespace
{

/* Of cpus_read_lock() and of its write side. */
u64 readers, writer;

void write_lock()
{
	might_sleep("cpus_write_lock()");
	step(Op{.what = "takes the hotplug lock", .fence = true}
		     .write(object_at(&readers))
		     .when([](u64) { return !readers && !writer; }, 0));
	writer = holder();
	if (exploring())
		seen[running].join(published_by(object_at(&readers)));
}

void write_unlock()
{
	full_barrier("gives the hotplug lock back");
	writer = 0;
	give_back(object_at(&readers), Kind::publish);
}

bool nothing_runs(u64)
{
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (cpus[cpu].irq_off != nobody)
			return false;
	for (int q = 0; q < process_count; q++)
		if (processes[q].steady || processes[q].buffered)
			return false;
	return true;
}

/* stop_machine(): every CPU stands still, none is inside a section without pre-emption. */
void switch_off(int cpu)
{
	Op op{.what = "CPU %llu is offline", .argument = static_cast<u64>(cpu)};

	if (exploring()) {
		op.accesses.add(object_of(Fixed::standstill, 0), Kind::write);
		for (int c = 0; c < cpu_count; c++)
			op.accesses.add(object_of(Fixed::interrupts, c), Kind::write);
		for (int q = 0; q < max_actors; q++)
			op.accesses.add(object_of(Fixed::buffer, q), Kind::join);
		op.accesses.add(object_of(Fixed::online, cpu), Kind::write);
		step(static_cast<Op &&>(op).when(nothing_runs, 0));
	}
	check_cpu_at_rest(cpu);
	/* All CPUs meet there: each knows what the others did before. */
	if (exploring()) {
		for (int q = 0; q < process_count; q++)
			seen[running].join(seen[q]);
		Clock all = release_now();
		for (int q = 0; q < process_count; q++)
			seen[q].join(all), seen[q].last[q]++;
	}
	cpus[cpu].online = cpus[cpu].open = false;
	for (int q = 0; q < process_count; q++)
		if (processes[q].last_cpu == cpu)
			processes[q].last_cpu = nobody;
}

int on_its_own(int cpu, int (*callback)(int))
{
	if (exploring())
		self().pinned = cpu;
	int before = set_cpu_at_once(cpu);
	int error = callback(cpu);
	set_cpu_at_once(before);
	return error;
}

} // namespace

void reset_hotplug()
{
	readers = writer = 0;
	keep(&readers, sizeof(readers));
	keep(&writer, sizeof(writer));
}

void check_hotplug_at_rest()
{
	if (readers || writer)
		fail("the hotplug lock is left held");
}

void take_offline(int cpu)
{
	write_lock();
	on_its_own(cpu, variant->cpu_offline);
	switch_off(cpu);
	if (exploring())
		self().pinned = nobody;
	write_unlock();
}

int bring_online(int cpu)
{
	write_lock();
	step(Op{.what = "CPU %llu is online", .argument = static_cast<u64>(cpu)}.write(
		object_of(Fixed::online, cpu)));
	cpus[cpu].online = true;
	int error = on_its_own(cpu, variant->cpu_online);
	if (error) {
		switch_off(cpu);
	} else {
		step(Op{.what = "CPU %llu takes threads", .argument = static_cast<u64>(cpu)}.write(
			object_of(Fixed::online, cpu)));
		cpus[cpu].open = true;
	}
	if (exploring())
		self().pinned = nobody;
	write_unlock();
	return error;
}

} // namespace kvmpp::explore

using namespace kvmpp::explore;
using kvmpp::u64;

void glue_cpus_read_lock(void)
{
	might_sleep("cpus_read_lock()");
	if (writer && writer == holder())
		fail("cpus_read_lock() inside a hotplug callback");
	step(Op{.what = "cpus_read_lock()"}
		     .read(object_at(&readers))
		     .when([](u64) { return writer == 0; }, 0));
	readers++;
	if (exploring())
		seen[running].join(published_by(object_at(&readers)));
}

void glue_cpus_read_unlock(void)
{
	full_barrier("cpus_read_unlock()");
	if (readers == 0)
		fail("cpus_read_unlock() without lock");
	readers--;
	give_back(object_at(&readers), Kind::publish_read);
}

int glue_hotplug_register(void)
{
	return 0;
}

void glue_hotplug_unregister(void)
{
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (cpus[cpu].online)
			run_at_once(
				cpu, [](void *) { variant->cpu_offline(0); }, nullptr);
}
