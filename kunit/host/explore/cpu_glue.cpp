// SPDX-License-Identifier: GPL-2.0
/* CPUs: which one this is, who may interrupt, IPIs to one, to all, to a set. */
#include "machine.hpp"
#include "memory.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/cpu.h>

#include <asm/errno.h>

#include <utility>

using namespace kvmpp::explore;
using kvmpp::u64;

int glue_this_cpu(void)
{
	return this_cpu();
}

int glue_nr_cpus(void)
{
	return cpu_count;
}

int glue_cpu_online(int cpu)
{
	return cpus[cpu].online;
}

void glue_preempt_disable(void)
{
	preempt_disable();
}

void glue_preempt_enable(void)
{
	preempt_enable();
}

glue_u64 glue_irq_save(void)
{
	return irq_save();
}

void glue_irq_restore(glue_u64 flags)
{
	irq_restore(flags);
}

static void call_here(void (*function)(void *), void *argument)
{
	bool flags = irq_save();

	function(argument);
	irq_restore(flags);
}

/* As smp_call_function_many_cond(): to the others first, then here, then the wait. */
static void call_on(u64 set, void (*function)(void *), void *argument)
{
	struct {
		int ipis[max_cpus];
		int count = 0;
	} sent;
	int here = this_cpu();

	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (cpu != here && (set >> cpu & 1))
			sent.ipis[sent.count++] = send_ipi(cpu, function, argument);
	if (set >> here & 1)
		call_here(function, argument);
	for (int i = 0; i < sent.count; i++)
		wait_for_ipi(sent.ipis[i]);
}

int glue_call_on_cpu(int cpu, void (*function)(void *), void *argument)
{
	if (irqs_off())
		fail("waits for an IPI with interrupts off");
	if (!exploring()) {
		if (!cpus[cpu].online)
			return -ENXIO;
		run_at_once(cpu, function, argument);
		return 0;
	}
	int error = 0;
	preempt_disable();
	if (cpu == this_cpu()) {
		call_here(function, argument);
	} else {
		step(Op{.what = "sends an IPI to CPU %llu",
			.argument = static_cast<u64>(cpu),
			.fence = true}
			     .read(object_of(Fixed::online, cpu)));
		if (cpus[cpu].online)
			wait_for_ipi(send_ipi(cpu, function, argument));
		else
			error = -ENXIO;
	}
	preempt_enable();
	return error;
}

static u64 online_set()
{
	u64 set = 0;

	for (int cpu = 0; cpu < cpu_count; cpu++)
		set |= u64{cpus[cpu].online} << cpu;
	return set;
}

void glue_call_on_all_cpus(void (*function)(void *), void *argument)
{
	if (irqs_off())
		fail("waits for IPIs with interrupts off");
	if (!exploring()) {
		for (int cpu = 0; cpu < cpu_count; cpu++)
			if (cpus[cpu].online)
				run_at_once(cpu, function, argument);
		return;
	}
	preempt_disable();
	Op op{.what = "sends IPIs to all CPUs", .fence = true};
	for (int cpu = 0; cpu < cpu_count; cpu++)
		op.accesses.add(object_of(Fixed::online, cpu), Kind::read);
	step(std::move(op));
	call_on(online_set(), function, argument);
	preempt_enable();
}

struct glue_cpumask {
	bool has[max_cpus];
};

glue_cpumask *glue_cpumask_alloc(void)
{
	return static_cast<glue_cpumask *>(glue_zalloc(sizeof(glue_cpumask)));
}

void glue_cpumask_free(glue_cpumask *mask)
{
	glue_free(mask);
}

void glue_cpumask_clear(glue_cpumask *mask)
{
	check_alive(mask);
	*mask = {};
}

void glue_cpumask_set(glue_cpumask *mask, int cpu)
{
	check_alive(mask);
	mask->has[cpu] = true;
}

void glue_call_on_cpumask(glue_cpumask *mask, void (*function)(void *), void *argument)
{
	if (irqs_off())
		fail("waits for IPIs with interrupts off");
	u64 set = 0;

	preempt_disable();
	if (exploring()) {
		check_alive(mask);
		Op op{.what = "reads the set of CPUs online"};
		for (int cpu = 0; cpu < cpu_count; cpu++)
			op.accesses.add(object_of(Fixed::online, cpu), Kind::read);
		step(std::move(op));
	}
	for (int cpu = 0; cpu < cpu_count; cpu++)
		set |= u64{mask->has[cpu]} << cpu;
	set &= online_set();
	if (!exploring()) {
		for (int cpu = 0; cpu < cpu_count; cpu++)
			if (set >> cpu & 1)
				run_at_once(cpu, function, argument);
	} else {
		if (set & ~(u64{1} << this_cpu()))
			full_barrier("sends IPIs to the set");
		call_on(set, function, argument);
	}
	preempt_enable();
}
