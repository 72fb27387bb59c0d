// SPDX-License-Identifier: GPL-2.0
#include "model/cpus.hpp"

#include "model/dedicated.hpp"
#include "model/locks.hpp"
#include "model/violation.hpp"
#include "model/vmx.hpp"

#include <linux_glue/cpu.h>
#include <linux_glue/entries.h>

#include <asm/errno.h>

#include <utility>

namespace kvmpp::host
{

namespace
{

int current;
bool online[cpu_count];
bool irq_off[cpu_count];
int preempt_off;
bool hotplug_registered;
int hotplug_error;
unsigned ipis;
std::function<void()> race;

} // namespace

void reset_cpus()
{
	current = 0;
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		online[cpu] = true;
		irq_off[cpu] = false;
	}
	preempt_off = hotplug_error = 0;
	hotplug_registered = false;
	ipis = 0;
	race = nullptr;
}

int this_cpu()
{
	return current;
}

bool is_online(int cpu)
{
	return cpu >= 0 && cpu < cpu_count && online[cpu];
}

bool irqs_off()
{
	return irq_off[current];
}

bool may_sleep()
{
	return !irqs_off() && preempt_off == 0;
}

void might_sleep(const char *what)
{
	forbid_bare(what);
	if (!may_sleep())
		violation("%s may sleep, with interrupts or preemption off", what);
}

void add_preempt_off(int by)
{
	preempt_off += by;
	if (preempt_off < 0)
		violation("preemption switched on once too often");
}

void migrate_to(int cpu)
{
	if (!may_sleep())
		violation("migration with interrupts or preemption off");
	if (!is_online(cpu))
		violation("migration to CPU %d, which is offline", cpu);
	current = cpu;
}

void interrupt(int cpu, const std::function<void()> &function)
{
	int before = std::exchange(current, cpu);
	bool irq_before = std::exchange(irq_off[cpu], true);

	function();
	irq_off[cpu] = irq_before;
	current = before;
}

void before_next_ipi(std::function<void()> function)
{
	race = std::move(function);
}

unsigned ipis_sent()
{
	return ipis;
}

void count_ipi()
{
	ipis++;
}

/* The hotplug thread of @cpu: may sleep, stays there, and keeps cpus_read_lock() out. */
static int hotplug_callback(int cpu, int (*callback)(int))
{
	AnotherThread thread;
	int before = std::exchange(current, cpu);

	note_taken(cpus_read_lock);
	int error = hotplug_registered ? callback(cpu) : 0;
	note_released(cpus_read_lock);
	current = before;
	return error;
}

static void switch_off(int cpu)
{
	if (processor(cpu).vmx)
		violation("CPU %d goes offline in VMX operation", cpu);
	if (processor(cpu).vmxe)
		violation("CPU %d goes offline with CR4.VMXE set", cpu);
	online[cpu] = false;
	for (int other = 0; current == cpu && other < cpu_count; other++)
		if (online[other])
			current = other;
}

void take_offline(int cpu)
{
	if (hotplug_callback(cpu, kvmpp_cpu_offline))
		violation("CPU %d refuses to go offline", cpu);
	switch_off(cpu);
}

int bring_online(int cpu)
{
	online[cpu] = true;
	int error = hotplug_callback(cpu, kvmpp_cpu_online);
	if (error)
		online[cpu] = false;
	return error;
}

int online_cpus()
{
	int count = 0;

	for (bool is : online)
		count += is;
	return count;
}

int remove_cpu(int cpu)
{
	might_sleep("remove_cpu()");
	if (any_lock_held())
		violation("remove_cpu() with a lock held");
	if (!online[cpu])
		return 0;
	if (online_cpus() == 1)
		return -EBUSY;
	if (int error = hotplug_callback(cpu, kvmpp_cpu_offline))
		return error;
	switch_off(cpu);
	return 0;
}

int add_cpu(int cpu)
{
	might_sleep("add_cpu()");
	if (any_lock_held())
		violation("add_cpu() with a lock held");
	if (online[cpu])
		return 0;
	if (int error = kvmpp_cpu_prepare(cpu))
		return error;
	return bring_online(cpu);
}

void fail_hotplug_registration(int error)
{
	hotplug_error = error;
}

} // namespace kvmpp::host

using namespace kvmpp::host;

int glue_this_cpu(void)
{
	return current;
}

int glue_nr_cpus(void)
{
	return cpu_count;
}

int glue_cpu_online(int cpu)
{
	return is_online(cpu);
}

void glue_preempt_disable(void)
{
	add_preempt_off(1);
}

void glue_preempt_enable(void)
{
	add_preempt_off(-1);
}

glue_u64 glue_irq_save(void)
{
	return std::exchange(irq_off[current], true);
}

void glue_irq_restore(glue_u64 flags)
{
	if (!irq_off[current])
		violation("interrupts restored where they were on");
	irq_off[current] = flags;
}

int glue_call_on_cpu(int cpu, void (*function)(void *), void *argument)
{
	if (irqs_off())
		violation("waits for an IPI with interrupts off");
	if (auto interleaved = std::exchange(race, nullptr))
		interleaved();
	if (!is_online(cpu))
		return -ENXIO;
	ipis += cpu != current;
	interrupt(cpu, [&] { function(argument); });
	return 0;
}

void glue_call_on_all_cpus(void (*function)(void *), void *argument)
{
	if (irqs_off())
		violation("waits for an IPI with interrupts off");
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (online[cpu])
			interrupt(cpu, [&] { function(argument); });
	note_broadcast();
}

void glue_send_reschedule(int cpu)
{
	if (may_sleep())
		violation("reschedule IPI sent where the thread may move");
	if (!online[cpu])
		violation("reschedule IPI to CPU %d, which is not Linux's", cpu);
	ipis++;
}

void glue_cpus_read_lock(void)
{
	might_sleep("cpus_read_lock()");
	note_taken(cpus_read_lock);
}

void glue_cpus_read_unlock(void)
{
	note_released(cpus_read_lock);
}

int glue_hotplug_register(void)
{
	might_sleep("hotplug registration");
	if (hotplug_error)
		return hotplug_error;
	hotplug_registered = true;
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		if (!online[cpu])
			continue;
		if (int error = hotplug_callback(cpu, kvmpp_cpu_online)) {
			hotplug_registered = false;
			return error;
		}
	}
	return 0;
}

void glue_hotplug_unregister(void)
{
	if (!hotplug_registered)
		violation("hotplug callbacks removed that were not registered");
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (online[cpu])
			hotplug_callback(cpu, kvmpp_cpu_offline);
	hotplug_registered = false;
}
