/* SPDX-License-Identifier: GPL-2.0 */
/* CPUs: which one this is, who may interrupt, calls to others, coming and going. */
#ifndef LINUX_GLUE_CPU_H
#define LINUX_GLUE_CPU_H

#include "base.h"

GLUE_BEGIN

/* Stable only while preemption or interrupts are off. */
int glue_this_cpu(void);
/* One more than the highest number a CPU can have on this machine. */
int glue_nr_cpus(void);
int glue_cpu_online(int cpu);

void glue_preempt_disable(void);
void glue_preempt_enable(void);
glue_u64 glue_irq_save(void);
void glue_irq_restore(glue_u64 flags);

/*
 * Runs function(argument) on @cpu with interrupts off and waits for it.
 * 0, or -ENXIO when the CPU is not online. Interrupts must be on here; preemption may be off.
 */
int glue_call_on_cpu(int cpu, void (*function)(void *), void *argument) WAITS_FOR_IPIS;

/* The same on every online CPU, this one included. */
void glue_call_on_all_cpus(void (*function)(void *), void *argument) WAITS_FOR_IPIS;

/* A reschedule IPI, which ends a guest's run. Any context; preemption off. */
void glue_send_reschedule(int cpu);

/* Keep the set of online CPUs as it is. May sleep. */
void glue_cpus_read_lock(void) MAY_SLEEP;
void glue_cpus_read_unlock(void);

/*
 * Registers the module's hotplug callbacks, kvmpp_cpu_online() and kvmpp_cpu_offline(), and runs
 * the former on every CPU. 0 or an errno. May sleep.
 */
int glue_hotplug_register(void) MAY_SLEEP;
void glue_hotplug_unregister(void) MAY_SLEEP;
/* The machine reboots or is switched off: the notifier kvmpp_machine_down() may have come already. */
int glue_machine_goes_down(void);

/* A set of CPUs. */
struct glue_cpumask;
struct glue_cpumask *glue_cpumask_alloc(void) MAY_SLEEP;
void glue_cpumask_free(struct glue_cpumask *mask);
void glue_cpumask_clear(struct glue_cpumask *mask);
void glue_cpumask_set(struct glue_cpumask *mask, int cpu);
/* Runs function(argument) on every online CPU of the set and waits. Interrupts must be on. */
void glue_call_on_cpumask(struct glue_cpumask *mask, void (*function)(void *), void *argument)
	WAITS_FOR_IPIS;

GLUE_END

#endif
