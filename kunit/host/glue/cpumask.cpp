// SPDX-License-Identifier: GPL-2.0
#include "model/cpus.hpp"
#include "model/memory.hpp"
#include "model/violation.hpp"

#include <linux_glue/cpu.h>

using namespace kvmpp::host;

struct glue_cpumask {
	bool has[cpu_count] = {};
};

glue_cpumask *glue_cpumask_alloc(void)
{
	might_sleep("allocation");
	if (!may_allocate())
		return nullptr;
	count_allocation(1);
	return new glue_cpumask;
}

void glue_cpumask_free(glue_cpumask *mask)
{
	count_allocation(-1);
	delete mask;
}

void glue_cpumask_clear(glue_cpumask *mask)
{
	*mask = {};
}

void glue_cpumask_set(glue_cpumask *mask, int cpu)
{
	mask->has[cpu] = true;
}

void glue_call_on_cpumask(glue_cpumask *mask, void (*function)(void *), void *argument)
{
	if (irqs_off())
		violation("waits for an IPI with interrupts off");
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (mask->has[cpu] && is_online(cpu)) {
			count_ipi();
			interrupt(cpu, [&] { function(argument); });
		}
}
