// SPDX-License-Identifier: GPL-2.0
/* Mutexes, spin locks, SRCU, and counts that are waited for. */
#include "machine.hpp"
#include "memory.hpp"
#include "races.hpp"
#include "rcu.hpp"

#include <linux_glue/lock.h>

#include <utility>

namespace kvmpp::explore
{

namespace
{

u16 srcu_entered[max_processes];
/* How often those who wait for a count were woken. */
u64 wakes;
/* The end of a process's n-th read side, which a grace period may wait for. */
u16 srcu_section(int process)
{
	static char sections[max_processes][16];

	return object_at(&sections[process][srcu_entered[process] % 16]);
}

/* Takes a lock whose holder is in *word. */
void take(u64 &word, const char *what)
{
	if (word == holder() && !(exploring() && buffered_store(&word)))
		fail("a lock is taken that the thread holds already");
	step(Op{.what = what, .fence = true}
		     .write(object_at(&word))
		     .when([](u64 w) { return *reinterpret_cast<u64 *>(w) == 0; },
			   reinterpret_cast<u64>(&word)));
	if (word)
		fail("deadlock");
	word = holder();
	if (exploring())
		seen[running].join(published_by(object_at(&word)));
}

void check_holder(u64 word)
{
	if (word != holder())
		fail("a lock is given back by who does not hold it");
}

} // namespace

void reset_waits()
{
	wakes = 0;
	keep(&wakes, sizeof(wakes));
}

} // namespace kvmpp::explore

using namespace kvmpp::explore;
using kvmpp::u64;

void glue_mutex_init(glue_mutex *mutex, glue_lock_class)
{
	mutex->opaque[0] = 0;
}

void glue_mutex_lock(glue_mutex *mutex)
{
	might_sleep("a mutex");
	take(mutex->opaque[0], "locks a mutex");
}

int glue_mutex_lock_killable(glue_mutex *mutex)
{
	glue_mutex_lock(mutex);
	return 0;
}

void glue_mutex_unlock(glue_mutex *mutex)
{
	u64 &word = mutex->opaque[0];

	full_barrier("unlocks a mutex");
	check_holder(word);
	word = 0;
	give_back(object_at(&word), Kind::publish);
}

void glue_spin_init(glue_spinlock *lock, glue_lock_class)
{
	lock->opaque[0] = 0;
}

/*
 * A lock that is taken in an interrupt is never held with interrupts on, where that interrupt could
 * come and wait for ever. As lockdep does, this looks for the two uses, not for them to meet.
 */
void glue_spin_lock(glue_spinlock *lock)
{
	u64 &uses = lock->opaque[1];

	if (exploring() && (self().nmi || self().bare != nobody))
		fail("a lock is taken by an NMI, or on a CPU that Linux does not have");

	if (exploring())
		uses |= irqs_off() ? self().handler : 2;
	if ((uses & 3) == 3)
		fail("a spin lock taken in an interrupt is also held with interrupts on");
	preempt_disable();
	take(lock->opaque[0], "locks a spin lock");
	if (exploring()) {
		uses += 4;
		self().polled.lock_takes = &uses;
		self().polled.takes = uses;
	}
}

/* A plain store: it goes behind those that were before it, and what follows may overtake it. */
void glue_spin_unlock(glue_spinlock *lock)
{
	u64 &word = lock->opaque[0];

	check_holder(word);
	if (exploring())
		buffer_store(&word, sizeof(word), 0, release_now(), Kind::publish);
	else
		word = 0;
	preempt_enable();
}

glue_u64 glue_spin_lock_irqsave(glue_spinlock *lock)
{
	bool flags = irq_save();

	glue_spin_lock(lock);
	return flags;
}

void glue_spin_unlock_irqrestore(glue_spinlock *lock, glue_u64 flags)
{
	glue_spin_unlock(lock);
	irq_restore(flags);
}

void glue_rwlock_init(glue_rwlock *lock, glue_lock_class)
{
	lock->opaque[0] = lock->opaque[1] = 0;
}

/* The writer is in the first word; how many read, in the second. Nobody of this kind takes it in interrupts. */
void glue_read_lock(glue_rwlock *lock)
{
	if (exploring() && irqs_off())
		fail("a lock is waited for with interrupts off");
	preempt_disable();
	step(Op{.what = "locks to read", .fence = true}
		     .read(object_at(&lock->opaque[0]))
		     .when([](u64 w) { return *reinterpret_cast<u64 *>(w) == 0; },
			   reinterpret_cast<u64>(&lock->opaque[0])));
	lock->opaque[1]++;
	if (exploring())
		seen[running].join(published_by(object_at(&lock->opaque[0])));
}

/* What readers did is ordered before a writer, not before each other. */
void glue_read_unlock(glue_rwlock *lock)
{
	full_barrier("unlocks, has read");
	lock->opaque[1]--;
	if (exploring())
		published_by(object_at(&lock->opaque[1])).join(release_now());
	give_back(object_at(&lock->opaque[0]), Kind::publish_read);
	preempt_enable();
}

void glue_write_lock(glue_rwlock *lock)
{
	if (exploring() && irqs_off())
		fail("a lock is waited for with interrupts off");
	preempt_disable();
	step(Op{.what = "locks to write", .fence = true}
		     .write(object_at(&lock->opaque[0]))
		     .when(
			     [](u64 w) {
				     const u64 *words = reinterpret_cast<u64 *>(w);
				     return words[0] == 0 && words[1] == 0;
			     },
			     reinterpret_cast<u64>(&lock->opaque[0])));
	lock->opaque[0] = holder();
	if (exploring()) {
		seen[running].join(published_by(object_at(&lock->opaque[0])));
		seen[running].join(published_by(object_at(&lock->opaque[1])));
	}
}

void glue_write_unlock(glue_rwlock *lock)
{
	full_barrier("unlocks, has written");
	check_holder(lock->opaque[0]);
	lock->opaque[0] = 0;
	give_back(object_at(&lock->opaque[0]), Kind::publish);
	preempt_enable();
}

int glue_srcu_init(glue_srcu *srcu)
{
	srcu->opaque[0] = 0;
	return 0;
}

void glue_srcu_cleanup(glue_srcu *srcu)
{
	if (srcu->opaque[0])
		fail("SRCU cleaned up with readers");
}

/* The readers' bits; a reader inside a reader is index 1 and changes nothing. */
int glue_srcu_read_lock(glue_srcu *srcu)
{
	if (!exploring() || (srcu->opaque[0] >> running & 1))
		return 1;
	step(Op{.what = "begins an SRCU read side", .fence = true}.read(object_at(srcu)));
	srcu->opaque[0] |= u64{1} << running;
	srcu_entered[running]++;
	seen[running].join(published_by(object_at(srcu)));
	return 0;
}

void glue_srcu_read_unlock(glue_srcu *srcu, int index)
{
	if (index == 1)
		return;
	step(Op{.what = "ends the SRCU read side", .fence = true}.read(object_at(srcu)));
	srcu->opaque[0] &= ~(u64{1} << running);
	published_by(object_at(&srcu->opaque[1])).join(seen[running]);
	give_back(srcu_section(running), Kind::publish);
}

namespace
{
struct GracePeriod {
	glue_srcu *srcu;
	u64 waits_for;
	kvmpp::u16 entered[max_processes];

	bool over() const
	{
		for (u64 rest = srcu->opaque[0] & waits_for; rest; rest &= rest - 1)
			if (int p = __builtin_ctzll(rest); srcu_entered[p] == entered[p])
				return false;
		return true;
	}
};
} // namespace

void glue_srcu_synchronize(glue_srcu *srcu)
{
	might_sleep("synchronize_srcu()");
	if (!exploring())
		return;
	step(Op{.what = "synchronize_srcu() begins", .fence = true}.write(object_at(srcu)));
	published_by(object_at(srcu)).join(release_now());
	GracePeriod period{.srcu = srcu, .waits_for = srcu->opaque[0], .entered = {}};
	Clock ended = published_by(object_at(&srcu->opaque[1]));
	Op op{.what = "synchronize_srcu() has waited"};
	for (int p = 0; p < max_processes; p++) {
		period.entered[p] = srcu_entered[p];
		if (period.waits_for >> p & 1)
			op.accesses.add(srcu_section(p), Kind::join);
	}
	Accesses sections = op.accesses;
	step(std::move(op).when([](u64 g) { return reinterpret_cast<GracePeriod *>(g)->over(); },
				reinterpret_cast<u64>(&period)));
	/* Also what those did that had ended before. */
	seen[running].join(ended);
	for (const Access &section : sections)
		seen[running].join(published_by(section.object));
}

/* As wait_var_event(): it says that it waits, looks, and sleeps until somebody wakes it. */
void glue_wait_for_zero(glue_u32 *count)
{
	might_sleep("wait_var_event()");
	if (!exploring())
		return;
	step(Op{.what = "waits for a count", .fence = true}.write(object_at(&wakes)));
	u64 before = wakes;
	step(Op{.what = "looks at the count"}.read(object_at(count)));
	if (*count == 0)
		return;
	step(Op{.what = "is woken"}
		     .read(object_at(&wakes))
		     .when([](u64 b) { return wakes != b; }, before));
}

void glue_count_is_zero(glue_u32 *)
{
	step(Op{.what = "wakes who waits for the count"}.write(object_at(&wakes)));
	wakes++;
}
