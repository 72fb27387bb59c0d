// SPDX-License-Identifier: GPL-2.0
#include "locks.hpp"

#include "cpus.hpp"
#include "dedicated.hpp"
#include "violation.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace kvmpp::host
{

namespace
{

constexpr LockKind kinds[] = {
	[GLUE_LOCK_USAGE] = {"kvmpp_usage_lock", 0},
	[GLUE_LOCK_VM] = {"kvmpp_vm_lock", 2},
	[GLUE_LOCK_VCPU] = {"kvmpp_vcpu_mutex", 3},
	[GLUE_LOCK_SLOTS] = {"kvmpp_slots_lock", 4},
	[GLUE_LOCK_MMU] = {"kvmpp_mmu_lock", place_of_leaves},
	[GLUE_LOCK_DEDICATED] = {"kvmpp_dedicated_lock", place_of_leaves},
	[GLUE_LOCK_IO] = {"kvmpp_io_lock", 4},
	[GLUE_LOCK_RING] = {"kvmpp_ring_lock", place_of_leaves},
	[GLUE_LOCK_CLOCK] = {"kvmpp_clock_lock", place_of_leaves},
	[GLUE_LOCK_IRQCHIP] = {"kvmpp_irqchip_lock", place_of_leaves},
	[GLUE_LOCK_PIT] = {"kvmpp_pit_lock", place_of_leaves - 1},
	[GLUE_LOCK_IRQFDS] = {"kvmpp_irqfds_lock", 4},
	[GLUE_LOCK_INVALIDATE] = {"kvmpp_invalidate_lock", place_of_leaves},
};
static_assert(std::size(kinds) == GLUE_LOCK_CLASSES);

/* Nobody waits to get in. */
bool is_read_side(const LockKind &kind)
{
	return &kind == &srcu_read_side || &kind == &rcu_read_side;
}

/* In the order in which they were taken. */
std::vector<const LockKind *> held;

} // namespace

const LockKind &kind_of(glue_lock_class lock_class)
{
	return kinds[lock_class];
}

void reset_locks()
{
	held.clear();
	reset_rcu();
}

void note_taken(const LockKind &kind)
{
	forbid_bare(kind.name);
	for (const LockKind *outer : held)
		if (outer->place >= kind.place && !is_read_side(kind))
			violation("%s taken inside %s", kind.name, outer->name);
	held.push_back(&kind);
}

void note_released(const LockKind &kind)
{
	auto it = std::find(held.rbegin(), held.rend(), &kind);

	if (it == held.rend())
		violation("%s released that is not held", kind.name);
	else
		held.erase(std::next(it).base());
}

bool any_lock_held()
{
	return !held.empty();
}

void return_to_user(const char *from)
{
	for (const LockKind *kind : held)
		violation("return to user space from %s with %s held", from, kind->name);
	if (!may_sleep())
		violation("return to user space from %s with interrupts or preemption off", from);
}

AnotherThread::AnotherThread() : held_by_first_(std::exchange(held, {}))
{
}

AnotherThread::~AnotherThread()
{
	held = std::move(held_by_first_);
}

} // namespace kvmpp::host
