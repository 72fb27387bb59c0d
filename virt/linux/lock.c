// SPDX-License-Identifier: GPL-2.0
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/wait_bit.h>

#include <linux_glue/lock.h>

static struct lock_class_key keys[GLUE_LOCK_CLASSES];

static const char *const names[GLUE_LOCK_CLASSES] = {
	[GLUE_LOCK_USAGE] = "kvmpp_usage_lock",
	[GLUE_LOCK_VM] = "kvmpp_vm_lock",
	[GLUE_LOCK_VCPU] = "kvmpp_vcpu_mutex",
	[GLUE_LOCK_SLOTS] = "kvmpp_slots_lock",
	[GLUE_LOCK_MMU] = "kvmpp_mmu_lock",
	[GLUE_LOCK_DEDICATED] = "kvmpp_dedicated_lock",
	[GLUE_LOCK_IO] = "kvmpp_io_lock",
	[GLUE_LOCK_RING] = "kvmpp_ring_lock",
	[GLUE_LOCK_CLOCK] = "kvmpp_clock_lock",
	[GLUE_LOCK_IRQCHIP] = "kvmpp_irqchip_lock",
	[GLUE_LOCK_PIT] = "kvmpp_pit_lock",
	[GLUE_LOCK_IRQFDS] = "kvmpp_irqfds_lock",
	[GLUE_LOCK_INVALIDATE] = "kvmpp_invalidate_lock",
};

static struct mutex *to_mutex(struct glue_mutex *mutex)
{
	return (struct mutex *)mutex->opaque;
}

static spinlock_t *to_spinlock(struct glue_spinlock *lock)
{
	return (spinlock_t *)lock->opaque;
}

static rwlock_t *to_rwlock(struct glue_rwlock *lock)
{
	return (rwlock_t *)lock->opaque;
}

static struct srcu_struct *to_srcu(struct glue_srcu *srcu)
{
	return (struct srcu_struct *)srcu->opaque;
}

void glue_mutex_init(struct glue_mutex *mutex, enum glue_lock_class lock_class)
{
	__mutex_init(to_mutex(mutex), names[lock_class], &keys[lock_class]);
}

void glue_mutex_lock(struct glue_mutex *mutex)
{
	mutex_lock(to_mutex(mutex));
}

int glue_mutex_lock_killable(struct glue_mutex *mutex)
{
	return mutex_lock_killable(to_mutex(mutex));
}

void glue_mutex_unlock(struct glue_mutex *mutex)
{
	mutex_unlock(to_mutex(mutex));
}

void glue_spin_init(struct glue_spinlock *lock, enum glue_lock_class lock_class)
{
	spin_lock_init(to_spinlock(lock));
	lockdep_set_class_and_name(to_spinlock(lock), &keys[lock_class], names[lock_class]);
}

void glue_spin_lock(struct glue_spinlock *lock) __acquires(lock)
{
	spin_lock(to_spinlock(lock));
}

void glue_spin_unlock(struct glue_spinlock *lock) __releases(lock)
{
	spin_unlock(to_spinlock(lock));
}

glue_u64 glue_spin_lock_irqsave(struct glue_spinlock *lock) __acquires(lock)
{
	unsigned long flags;

	spin_lock_irqsave(to_spinlock(lock), flags);
	return flags;
}

void glue_spin_unlock_irqrestore(struct glue_spinlock *lock, glue_u64 flags) __releases(lock)
{
	spin_unlock_irqrestore(to_spinlock(lock), flags);
}

void glue_rwlock_init(struct glue_rwlock *lock, enum glue_lock_class lock_class)
{
	rwlock_init(to_rwlock(lock));
	lockdep_set_class_and_name(to_rwlock(lock), &keys[lock_class], names[lock_class]);
}

void glue_read_lock(struct glue_rwlock *lock) __acquires(lock)
{
	read_lock(to_rwlock(lock));
}

void glue_read_unlock(struct glue_rwlock *lock) __releases(lock)
{
	read_unlock(to_rwlock(lock));
}

void glue_write_lock(struct glue_rwlock *lock) __acquires(lock)
{
	write_lock(to_rwlock(lock));
}

void glue_write_unlock(struct glue_rwlock *lock) __releases(lock)
{
	write_unlock(to_rwlock(lock));
}

int glue_srcu_init(struct glue_srcu *srcu)
{
	/* Lockdep takes the class's name from the argument. */
	struct srcu_struct *kvmpp_srcu = to_srcu(srcu);

	return init_srcu_struct(kvmpp_srcu);
}

void glue_srcu_cleanup(struct glue_srcu *srcu)
{
	cleanup_srcu_struct(to_srcu(srcu));
}

int glue_srcu_read_lock(struct glue_srcu *srcu) __acquires(srcu)
{
	return srcu_read_lock(to_srcu(srcu));
}

void glue_srcu_read_unlock(struct glue_srcu *srcu, int index) __releases(srcu)
{
	srcu_read_unlock(to_srcu(srcu), index);
}

void glue_srcu_synchronize(struct glue_srcu *srcu)
{
	/* Expedited, as KVM's: firmware moves slots by the hundred. */
	synchronize_srcu_expedited(to_srcu(srcu));
}

void glue_rcu_read_lock(void) __acquires(RCU)
{
	rcu_read_lock();
}

void glue_rcu_read_unlock(void) __releases(RCU)
{
	rcu_read_unlock();
}

static void grace_period_over(struct rcu_head *head)
{
	struct glue_rcu_head *glue = container_of((void *)head, struct glue_rcu_head, opaque);

	glue->function(glue);
}

void glue_rcu_call(struct glue_rcu_head *head, void (*function)(struct glue_rcu_head *head))
{
	head->function = function;
	call_rcu((struct rcu_head *)head->opaque, grace_period_over);
}

static void free_page_of(struct rcu_head *head)
{
	__free_page(container_of(head, struct page, rcu_head));
}

void glue_page_free_rcu(void *page)
{
	call_rcu(&virt_to_page(page)->rcu_head, free_page_of);
}

void glue_rcu_barrier(void)
{
	rcu_barrier();
}

void glue_wait_for_zero(glue_u32 *count)
{
	wait_var_event(count, READ_ONCE(*count) == 0);
}

void glue_count_is_zero(glue_u32 *count)
{
	/* The locked instruction is the barrier that it wants to come after. */
	wake_up_var(count);
}
