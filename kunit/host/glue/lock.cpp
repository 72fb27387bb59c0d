// SPDX-License-Identifier: GPL-2.0
#include "model/locks.hpp"

#include "model/cpus.hpp"
#include "model/memory.hpp"
#include "model/violation.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/cpu.h>

#include <asm/errno.h>

#include <utility>

namespace kvmpp::host
{

namespace
{

constexpr unsigned initialised = 0x10c4ed;

/* What is in the opaque storage of each kind. */
struct Lock {
	unsigned magic;
	glue_lock_class lock_class;
	bool held;
};
static_assert(sizeof(Lock) <= GLUE_MUTEX_SIZE && sizeof(Lock) <= GLUE_SPINLOCK_SIZE &&
	      sizeof(Lock) <= GLUE_RWLOCK_SIZE);

struct SrcuDomain {
	unsigned magic;
	int readers;
};
static_assert(sizeof(SrcuDomain) <= GLUE_SRCU_SIZE);

bool killed;
int rcu_readers;
bool rcu_held_up;
std::vector<glue_rcu_head *> rcu_waiting;
std::vector<void *> pages_waiting;
std::function<void()> zero_hook;

Lock &lock_in(void *storage)
{
	Lock &lock = *static_cast<Lock *>(storage);

	if (lock.magic != initialised)
		violation("use of a lock before its initialisation");
	return lock;
}

void acquire(void *storage)
{
	Lock &lock = lock_in(storage);
	const LockKind &kind = kind_of(lock.lock_class);

	note_taken(kind);
	if (std::exchange(lock.held, true))
		violation("deadlock: a %s is held already", kind.name);
}

void release(void *storage)
{
	Lock &lock = lock_in(storage);

	lock.held = false;
	note_released(kind_of(lock.lock_class));
}

/* A softirq, as soon as nobody is inside. */
void end_grace_period()
{
	if (rcu_readers || rcu_held_up)
		return;
	add_preempt_off(1);
	for (glue_rcu_head *head : std::exchange(rcu_waiting, {}))
		head->function(head);
	for (void *page : std::exchange(pages_waiting, {}))
		glue_page_free(page);
	add_preempt_off(-1);
}

/* There is one thread, so readers are no different but in what they may do. */
void spin_lock(void *storage)
{
	/* Its holder may be waiting for this CPU's answer to an IPI. */
	if (irqs_off())
		violation("a spin lock waited for with interrupts off");
	add_preempt_off(1);
	acquire(storage);
}

void spin_unlock(void *storage)
{
	release(storage);
	add_preempt_off(-1);
}

} // namespace

void reset_rcu()
{
	if (rcu_readers || !rcu_waiting.empty() || !pages_waiting.empty())
		violation("an RCU read side has not ended");
	rcu_held_up = false;
}

void hold_grace_periods()
{
	rcu_held_up = true;
}

void kill_next_lock()
{
	killed = true;
}

void on_wait_for_zero(std::function<void()> function)
{
	zero_hook = std::move(function);
}

} // namespace kvmpp::host

using namespace kvmpp::host;

void glue_mutex_init(glue_mutex *mutex, glue_lock_class lock_class)
{
	*reinterpret_cast<Lock *>(mutex->opaque) = {initialised, lock_class, false};
}

void glue_mutex_lock(glue_mutex *mutex)
{
	might_sleep("a mutex");
	acquire(mutex->opaque);
}

int glue_mutex_lock_killable(glue_mutex *mutex)
{
	might_sleep("a mutex");
	if (std::exchange(killed, false))
		return -EINTR;
	acquire(mutex->opaque);
	return 0;
}

void glue_mutex_unlock(glue_mutex *mutex)
{
	release(mutex->opaque);
}

void glue_spin_init(glue_spinlock *lock, glue_lock_class lock_class)
{
	*reinterpret_cast<Lock *>(lock->opaque) = {initialised, lock_class, false};
}

void glue_spin_lock(glue_spinlock *lock)
{
	spin_lock(lock->opaque);
}

void glue_spin_unlock(glue_spinlock *lock)
{
	spin_unlock(lock->opaque);
}

void glue_rwlock_init(glue_rwlock *lock, glue_lock_class lock_class)
{
	*reinterpret_cast<Lock *>(lock->opaque) = {initialised, lock_class, false};
}

void glue_read_lock(glue_rwlock *lock)
{
	spin_lock(lock->opaque);
}

void glue_read_unlock(glue_rwlock *lock)
{
	spin_unlock(lock->opaque);
}

void glue_write_lock(glue_rwlock *lock)
{
	spin_lock(lock->opaque);
}

void glue_write_unlock(glue_rwlock *lock)
{
	spin_unlock(lock->opaque);
}

glue_u64 glue_spin_lock_irqsave(glue_spinlock *lock)
{
	glue_u64 flags = glue_irq_save();

	add_preempt_off(1);
	acquire(lock->opaque);
	return flags;
}

void glue_spin_unlock_irqrestore(glue_spinlock *lock, glue_u64 flags)
{
	release(lock->opaque);
	add_preempt_off(-1);
	glue_irq_restore(flags);
}

int glue_srcu_init(glue_srcu *srcu)
{
	might_sleep("allocation");
	if (!may_allocate())
		return -ENOMEM;
	count_allocation(1);
	*reinterpret_cast<SrcuDomain *>(srcu->opaque) = {initialised, 0};
	return 0;
}

void glue_srcu_cleanup(glue_srcu *srcu)
{
	SrcuDomain &domain = *reinterpret_cast<SrcuDomain *>(srcu->opaque);

	if (domain.magic != initialised || domain.readers)
		violation("SRCU cleaned up uninitialised or with %d readers", domain.readers);
	domain.magic = 0;
	count_allocation(-1);
}

int glue_srcu_read_lock(glue_srcu *srcu)
{
	SrcuDomain &domain = *reinterpret_cast<SrcuDomain *>(srcu->opaque);

	if (domain.magic != initialised)
		violation("SRCU read outside the domain's life");
	note_taken(srcu_read_side);
	return domain.readers++;
}

void glue_srcu_read_unlock(glue_srcu *srcu, int index)
{
	SrcuDomain &domain = *reinterpret_cast<SrcuDomain *>(srcu->opaque);

	if (--domain.readers != index)
		violation("SRCU readers not nested");
	note_released(srcu_read_side);
}

void glue_srcu_synchronize(glue_srcu *srcu)
{
	SrcuDomain &domain = *reinterpret_cast<SrcuDomain *>(srcu->opaque);

	might_sleep("synchronize_srcu()");
	if (domain.magic != initialised || domain.readers)
		violation("synchronize_srcu() waits for its own caller");
}

/* No more is asked of a reader than not to sleep; preemption is on in Linux. */
void glue_rcu_read_lock(void)
{
	note_taken(rcu_read_side);
	add_preempt_off(1);
	rcu_readers++;
}

void glue_rcu_read_unlock(void)
{
	if (--rcu_readers < 0)
		violation("rcu_read_unlock() without lock");
	note_released(rcu_read_side);
	add_preempt_off(-1);
	end_grace_period();
}

void glue_rcu_call(glue_rcu_head *head, void (*function)(glue_rcu_head *))
{
	head->function = function;
	rcu_waiting.push_back(head);
	end_grace_period();
}

void glue_page_free_rcu(void *page)
{
	pages_waiting.push_back(page);
	end_grace_period();
}

void glue_rcu_barrier(void)
{
	might_sleep("rcu_barrier()");
	rcu_held_up = false;
	end_grace_period();
}

void glue_wait_for_zero(glue_u32 *count)
{
	might_sleep("wait_var_event()");
	if (auto hook = std::exchange(zero_hook, nullptr))
		hook();
	if (*count)
		violation("nobody is there who would make the count 0");
}

void glue_count_is_zero(glue_u32 *)
{
}
