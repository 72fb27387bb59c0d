// SPDX-License-Identifier: GPL-2.0
/*
 * modprobe kvmpp_kunit break_rule=NAME: breaks a rule of Documentation/locking.rst on purpose, for
 * lockdep and its like to report. The machine is of no use after it.
 */
#include <linux/module.h>
#include <linux/string.h>

#include <linux_glue/cpu.h>
#include <linux_glue/lock.h>

static struct glue_mutex usage, vm, vcpu, slots;
static struct glue_rwlock mmu;
static struct glue_srcu srcu;

/* Lockdep reports when it has seen both orders, whether they ever meet or not. */
static void usage_lock_inside_cpus_read_lock(void)
{
	glue_mutex_lock(&usage);
	glue_cpus_read_lock();
	glue_cpus_read_unlock();
	glue_mutex_unlock(&usage);

	glue_cpus_read_lock();
	glue_mutex_lock(&usage);
	glue_mutex_unlock(&usage);
	glue_cpus_read_unlock();
}

static void vm_lock_inside_slots_lock(void)
{
	glue_mutex_lock(&vm);
	glue_mutex_lock(&slots);
	glue_mutex_unlock(&slots);
	glue_mutex_unlock(&vm);

	glue_mutex_lock(&slots);
	glue_mutex_lock(&vm);
	glue_mutex_unlock(&vm);
	glue_mutex_unlock(&slots);
}

/* It waits for itself, and the test host ends it. */
static void synchronize_srcu_inside_its_read_side(void)
{
	int index = glue_srcu_read_lock(&srcu);

	glue_srcu_synchronize(&srcu);
	glue_srcu_read_unlock(&srcu, index);
}

static void do_nothing(void *unused)
{
}

static void ipi_waited_for_with_irqs_off(void)
{
	glue_u64 flags = glue_irq_save();

	glue_call_on_cpu(!glue_this_cpu(), do_nothing, NULL);
	glue_irq_restore(flags);
}

static void sleeps_in_atomic_context(void)
{
	glue_write_lock(&mmu);
	glue_mutex_lock(&vm);
	glue_mutex_unlock(&vm);
	glue_write_unlock(&mmu);
}

static void take_mmu_lock(void *unused)
{
	glue_write_lock(&mmu);
	glue_write_unlock(&mmu);
}

static void mmu_lock_in_interrupt(void)
{
	glue_preempt_disable();
	glue_call_on_cpu(!glue_this_cpu(), take_mmu_lock, NULL);
	glue_preempt_enable();
	take_mmu_lock(NULL);
}

static void lock_held_at_return_to_user_space(void)
{
	glue_mutex_lock(&vcpu);
}

static const struct {
	const char *name;
	void (*break_it)(void);
} rules[] = {
#define RULE(name) { #name, name }
	RULE(usage_lock_inside_cpus_read_lock),
	RULE(vm_lock_inside_slots_lock),
	RULE(synchronize_srcu_inside_its_read_side),
	RULE(ipi_waited_for_with_irqs_off),
	RULE(sleeps_in_atomic_context),
	RULE(mmu_lock_in_interrupt),
	RULE(lock_held_at_return_to_user_space),
};

static int break_rule(const char *name, const struct kernel_param *unused)
{
	glue_mutex_init(&usage, GLUE_LOCK_USAGE);
	glue_mutex_init(&vm, GLUE_LOCK_VM);
	glue_mutex_init(&vcpu, GLUE_LOCK_VCPU);
	glue_mutex_init(&slots, GLUE_LOCK_SLOTS);
	glue_rwlock_init(&mmu, GLUE_LOCK_MMU);
	if (glue_srcu_init(&srcu))
		return -ENOMEM;
	for (unsigned int i = 0; i < ARRAY_SIZE(rules); i++) {
		if (!strcmp(name, rules[i].name)) {
			rules[i].break_it();
			return 0;
		}
	}
	return -EINVAL;
}

static const struct kernel_param_ops ops = {
	.set = break_rule,
};
module_param_cb(break_rule, &ops, NULL, 0);
