/* SPDX-License-Identifier: GPL-2.0 */
/* Which locks the thread holds, checked against the order of Documentation/locking.rst. */
#pragma once

#include <linux_glue/lock.h>

#include <functional>
#include <vector>

namespace kvmpp::host
{

/* Inside a lock only those of a later place may be taken; inside a leaf, none. A read side may begin anywhere. */
struct LockKind {
	const char *name;
	int place;
};
inline constexpr LockKind cpus_read_lock{"cpus_read_lock", 1};
inline constexpr LockKind srcu_read_side{"the SRCU read side", 5};
inline constexpr LockKind wait_queue_lock{"an eventfd's wait queue lock", 6};
inline constexpr int place_of_leaves = 7;
inline constexpr LockKind rcu_read_side{"the RCU read side", 8};
const LockKind &kind_of(glue_lock_class lock_class);

void reset_locks();
/* Part of it. */
void reset_rcu();
void note_taken(const LockKind &kind);
void note_released(const LockKind &kind);
bool any_lock_held();
/* A system call ends: nothing may be held or off. */
void return_to_user(const char *from);
/* No RCU grace period ends from now on but by rcu_barrier(). */
void hold_grace_periods();
/* The next glue_mutex_lock_killable() is interrupted by a fatal signal. */
void kill_next_lock();
/* The next one who waits for a count to be 0 has this called meanwhile. */
void on_wait_for_zero(std::function<void()> function);

/* For its life, another thread acts, which holds nothing yet. */
class AnotherThread
{
public:
	AnotherThread();
	~AnotherThread();
	AnotherThread(const AnotherThread &) = delete;
	AnotherThread &operator=(const AnotherThread &) = delete;

private:
	std::vector<const LockKind *> held_by_first_;
};

} // namespace kvmpp::host
