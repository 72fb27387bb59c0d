// SPDX-License-Identifier: GPL-2.0
#include "model/locks.hpp"

#include "model/cpus.hpp"
#include "model/memory.hpp"
#include "model/violation.hpp"

#include <asm/errno.h>

#include <algorithm>
#include <utility>
#include <vector>

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
static_assert(sizeof(Lock) <= GLUE_MUTEX_SIZE && sizeof(Lock) <= GLUE_SPINLOCK_SIZE);

struct SrcuDomain {
	unsigned magic;
	int readers;
};
static_assert(sizeof(SrcuDomain) <= GLUE_SRCU_SIZE);

std::vector<glue_lock_class> held;
bool killed;
int rcu_readers;
std::vector<glue_rcu_head *> rcu_waiting;

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

	/* The classes are declared in the order in which they may be taken, outermost first. */
	for (glue_lock_class outer : held)
		if (outer >= lock.lock_class)
			violation("lock class %d taken inside class %d", lock.lock_class, outer);
	if (std::exchange(lock.held, true))
		violation("deadlock: a lock of class %d is held already", lock.lock_class);
	held.push_back(lock.lock_class);
}

void release(void *storage)
{
	Lock &lock = lock_in(storage);

	if (!std::exchange(lock.held, false))
		violation("a lock of class %d released that is not held", lock.lock_class);
	auto it = std::find(held.begin(), held.end(), lock.lock_class);
	if (it != held.end())
		held.erase(it);
}

/* A softirq, as soon as nobody is inside. */
void end_grace_period()
{
	if (rcu_readers)
		return;
	add_preempt_off(1);
	for (glue_rcu_head *head : std::exchange(rcu_waiting, {}))
		head->function(head);
	add_preempt_off(-1);
}

} // namespace

void reset_locks()
{
	held.clear();
	killed = false;
	if (rcu_readers || !rcu_waiting.empty())
		violation("an RCU read side has not ended");
}

bool is_held(glue_lock_class lock_class)
{
	return std::find(held.begin(), held.end(), lock_class) != held.end();
}

bool any_lock_held()
{
	return !held.empty();
}

void kill_next_lock()
{
	killed = true;
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
	add_preempt_off(1);
	acquire(lock->opaque);
}

void glue_spin_unlock(glue_spinlock *lock)
{
	release(lock->opaque);
	add_preempt_off(-1);
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
	return domain.readers++;
}

void glue_srcu_read_unlock(glue_srcu *srcu, int index)
{
	SrcuDomain &domain = *reinterpret_cast<SrcuDomain *>(srcu->opaque);

	if (--domain.readers != index)
		violation("SRCU readers not nested");
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
	add_preempt_off(1);
	rcu_readers++;
}

void glue_rcu_read_unlock(void)
{
	if (--rcu_readers < 0)
		violation("rcu_read_unlock() without lock");
	add_preempt_off(-1);
	end_grace_period();
}

void glue_rcu_call(glue_rcu_head *head, void (*function)(glue_rcu_head *))
{
	head->function = function;
	rcu_waiting.push_back(head);
	end_grace_period();
}

void glue_rcu_barrier(void)
{
	might_sleep("rcu_barrier()");
	end_grace_period();
}
