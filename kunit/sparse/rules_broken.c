// SPDX-License-Identifier: GPL-2.0
/*
 * Each function breaks one rule that sparse watches over; the comment before the line that is wrong
 * has what sparse must say of it. Nothing of this is in a module: see "make sparse".
 */
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/uaccess.h>

#include "../../virt/linux/lock.c"

struct published {
	int __rcu *value;
	int __percpu *counts;
	spinlock_t lock;
};

/* sparse: context imbalance in 'spin_lock_left_held' - wrong count at exit */
static __maybe_unused void spin_lock_left_held(struct glue_spinlock *lock)
{
	glue_spin_lock(lock);
}

/* sparse: context imbalance in 'spin_lock_released_that_is_not_held' - unexpected unlock */
static __maybe_unused void spin_lock_released_that_is_not_held(struct glue_spinlock *lock)
{
	glue_spin_unlock(lock);
}

static __maybe_unused void spin_lock_held_on_one_path(struct glue_spinlock *lock, int take)
{
	if (take)
		glue_spin_lock(lock);
	/* sparse: 'spin_lock_held_on_one_path' - different lock contexts for basic block */
	glue_spin_unlock(lock);
}

/* sparse: context imbalance in 'srcu_read_side_left_open' - wrong count at exit */
static __maybe_unused int srcu_read_side_left_open(struct glue_srcu *srcu)
{
	return glue_srcu_read_lock(srcu);
}

/* sparse: context imbalance in 'rcu_read_side_left_open' - wrong count at exit */
static __maybe_unused void rcu_read_side_left_open(void)
{
	rcu_read_lock();
}

static __maybe_unused int kernel_pointer_as_users(void *to, const void *from)
{
	/* sparse: incorrect type in argument 2 \(different address spaces\) */
	return copy_from_user(to, from, 8) ? -EFAULT : 0;
}

static __maybe_unused int users_memory_dereferenced(const int __user *from)
{
	/* sparse: dereference of noderef expression */
	return *from;
}

static __maybe_unused int rcu_pointer_read_plainly(struct published *published)
{
	/* sparse: dereference of noderef expression */
	return *published->value;
}

static __maybe_unused void rcu_pointer_written_plainly(struct published *published, int *value)
{
	/* sparse: incorrect type in assignment \(different address spaces\) */
	published->value = value;
}

static __maybe_unused int per_cpu_data_of_no_cpu(struct published *published)
{
	/* sparse: dereference of noderef expression */
	return *published->counts;
}
