// SPDX-License-Identifier: GPL-2.0
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/irqflags.h>
#include <linux/preempt.h>
#include <linux/reboot.h>
#include <linux/slab.h>
#include <linux/smp.h>

#include <linux_glue/cpu.h>
#include <linux_glue/entries.h>

#include "compat.h"

struct glue_cpumask {
	cpumask_t mask;
};

static enum cpuhp_state hotplug_state;

int glue_this_cpu(void)
{
	return raw_smp_processor_id();
}

int glue_nr_cpus(void)
{
	return nr_cpu_ids;
}

int glue_cpu_online(int cpu)
{
	return cpu_online(cpu);
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
	unsigned long flags;

	local_irq_save(flags);
	return flags;
}

void glue_irq_restore(glue_u64 flags)
{
	local_irq_restore(flags);
}

int glue_call_on_cpu(int cpu, void (*function)(void *), void *argument)
{
	return smp_call_function_single(cpu, function, argument, 1);
}

void glue_call_on_all_cpus(void (*function)(void *), void *argument)
{
	on_each_cpu(function, argument, 1);
}

void glue_send_reschedule(int cpu)
{
	/* One that has gone offline meanwhile runs no guest. */
	if (cpu_online(cpu))
		/* In parentheses: it is a macro too, later, with a tracepoint that is not exported. */
		(smp_ops.smp_send_reschedule)(cpu);
}

void glue_cpus_read_lock(void)
{
	cpus_read_lock();
}

void glue_cpus_read_unlock(void)
{
	cpus_read_unlock();
}

static int cpu_comes(unsigned int cpu)
{
	return kvmpp_cpu_online(cpu);
}

static int cpu_goes(unsigned int cpu)
{
	return kvmpp_cpu_offline(cpu);
}

static int do_suspend(void)
{
	kvmpp_syscore_suspend();
	return 0;
}

COMPAT_SYSCORE(kvmpp_syscore, do_suspend, kvmpp_syscore_resume);

static int machine_down(struct notifier_block *block, unsigned long event, void *data)
{
	kvmpp_machine_down();
	return NOTIFY_OK;
}

static struct notifier_block reboot_notifier = {
	.notifier_call = machine_down,
};

int glue_hotplug_register(void)
{
	/*
	 * A dynamic state: the ones named for KVM belong to KVM. No task but a per-CPU kernel
	 * thread runs on a CPU before this state is reached on the way up; on the way down there
	 * may still be some, and vCPU threads among them must cope (see LoadedVmcs::load()).
	 */
	int state = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "kvmpp:online", cpu_comes, cpu_goes);

	if (state < 0)
		return state;
	hotplug_state = state;
	compat_syscore_register(&kvmpp_syscore);
	register_reboot_notifier(&reboot_notifier);
	return 0;
}

void glue_hotplug_unregister(void)
{
	unregister_reboot_notifier(&reboot_notifier);
	compat_syscore_unregister(&kvmpp_syscore);
	cpuhp_remove_state(hotplug_state);
}

int glue_machine_goes_down(void)
{
	return system_state == SYSTEM_HALT || system_state == SYSTEM_POWER_OFF ||
	       system_state == SYSTEM_RESTART;
}

struct glue_cpumask *glue_cpumask_alloc(void)
{
	return kzalloc(sizeof(struct glue_cpumask), GFP_KERNEL_ACCOUNT);
}

void glue_cpumask_free(struct glue_cpumask *mask)
{
	kfree(mask);
}

void glue_cpumask_clear(struct glue_cpumask *mask)
{
	cpumask_clear(&mask->mask);
}

void glue_cpumask_set(struct glue_cpumask *mask, int cpu)
{
	__cpumask_set_cpu(cpu, &mask->mask);
}

void glue_call_on_cpumask(struct glue_cpumask *mask, void (*function)(void *), void *argument)
{
	on_each_cpu_mask(&mask->mask, function, argument, 1);
}
