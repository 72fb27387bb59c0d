/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Linux's locks, held as opaque storage whose size the build takes from the kernel's own headers.
 */
#ifndef LINUX_GLUE_LOCK_H
#define LINUX_GLUE_LOCK_H

#include "base.h"
#include <generated/glue_sizes.h>

GLUE_BEGIN

struct glue_mutex {
	glue_u64 opaque[(GLUE_MUTEX_SIZE + 7) / 8];
};

struct glue_spinlock {
	glue_u64 opaque[(GLUE_SPINLOCK_SIZE + 7) / 8];
};

struct glue_rwlock {
	glue_u64 opaque[(GLUE_RWLOCK_SIZE + 7) / 8];
};

struct glue_srcu {
	glue_u64 opaque[(GLUE_SRCU_SIZE + 7) / 8];
};

struct glue_rcu_head {
	glue_u64 opaque[(GLUE_RCU_HEAD_SIZE + 7) / 8];
	void (*function)(struct glue_rcu_head *head);
};

/* One lockdep class per kind of lock; Documentation/locking.rst has a row for each. */
enum glue_lock_class {
	GLUE_LOCK_USAGE,
	GLUE_LOCK_VM,
	GLUE_LOCK_VCPU,
	GLUE_LOCK_SLOTS,
	GLUE_LOCK_MMU,
	GLUE_LOCK_DEDICATED,
	GLUE_LOCK_IO,
	GLUE_LOCK_RING,
	GLUE_LOCK_CLOCK,
	GLUE_LOCK_IRQCHIP,
	GLUE_LOCK_PIT,
	GLUE_LOCK_IRQFDS,
	GLUE_LOCK_INVALIDATE,
	GLUE_LOCK_CLASSES
};

void glue_mutex_init(struct glue_mutex *mutex, enum glue_lock_class lock_class);
void glue_mutex_lock(struct glue_mutex *mutex) MAY_SLEEP;
/* Sleeps until the mutex is had (0) or a fatal signal is pending (-EINTR). */
int glue_mutex_lock_killable(struct glue_mutex *mutex) MAY_SLEEP;
void glue_mutex_unlock(struct glue_mutex *mutex);

void glue_spin_init(struct glue_spinlock *lock, enum glue_lock_class lock_class);
void glue_spin_lock(struct glue_spinlock *lock);
void glue_spin_unlock(struct glue_spinlock *lock);
/* With interrupts off on this CPU, which it gives back as they were. Any context but NMI. */
glue_u64 glue_spin_lock_irqsave(struct glue_spinlock *lock);
void glue_spin_unlock_irqrestore(struct glue_spinlock *lock, glue_u64 flags);

/* A spin lock that several may have at a time who only read. */
void glue_rwlock_init(struct glue_rwlock *lock, enum glue_lock_class lock_class);
void glue_read_lock(struct glue_rwlock *lock);
void glue_read_unlock(struct glue_rwlock *lock);
void glue_write_lock(struct glue_rwlock *lock);
void glue_write_unlock(struct glue_rwlock *lock);

/* 0 or -ENOMEM. May sleep. */
int glue_srcu_init(struct glue_srcu *srcu) MAY_SLEEP;
void glue_srcu_cleanup(struct glue_srcu *srcu) MAY_SLEEP;
int glue_srcu_read_lock(struct glue_srcu *srcu);
void glue_srcu_read_unlock(struct glue_srcu *srcu, int index);
/* Waits for every reader that may have seen the state before the call. Sleeps. */
void glue_srcu_synchronize(struct glue_srcu *srcu) MAY_SLEEP;

/* Inside, nobody may sleep. Read sides nest. */
void glue_rcu_read_lock(void);
void glue_rcu_read_unlock(void);
/*
 * Has function(head) called once every reader is out that was in; does not wait for that. The call
 * comes in a softirq: it must not sleep. Any context.
 */
void glue_rcu_call(struct glue_rcu_head *head, void (*function)(struct glue_rcu_head *head));
/* Frees what glue_page_alloc() gave once every reader is out that was in. Any context. */
void glue_page_free_rcu(void *page);
/* Waits for the calls, and the pages, that were asked for before. Sleeps. */
void glue_rcu_barrier(void) MAY_SLEEP;

/*
 * Sleeps until *@count is 0, which it may not be any more on return. Who makes it 0 does so with a
 * locked instruction, and calls glue_count_is_zero() then, in any context that takes spin locks.
 */
void glue_wait_for_zero(glue_u32 *count) MAY_SLEEP;
void glue_count_is_zero(glue_u32 *count);

GLUE_END

#endif
