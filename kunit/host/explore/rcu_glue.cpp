// SPDX-License-Identifier: GPL-2.0
/*
 * RCU: a callback is a process of its own, which may go on as soon as those are out who were in when
 * it was asked for.
 */
#include "rcu.hpp"

#include "machine.hpp"
#include "memory.hpp"
#include "races.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/dedicated.h>
#include <linux_glue/lock.h>

#include <cstddef>

namespace kvmpp::explore
{

namespace
{

struct Readers {
	/* How often a process has been inside, this time included; and how deep it is in. */
	u16 entered[max_processes];
	u16 depth[max_processes];
	unsigned stores[max_processes]; /* when it went in */
};
Readers readers;

struct Callback {
	glue_rcu_head *head;
	void (*function)(glue_rcu_head *);
	/* Of each process, the last read side that it waits for. */
	u16 entered[max_processes];
};
Callback callbacks[max_processes];
alignas(4096) char stacks[max_processes][64 * 1024];

/* The end of a process's n-th read side. */
u16 section(int process, u16 entered)
{
	static char sections[max_processes][16];

	return object_at(&sections[process][entered % 16]);
}

bool grace_period_over(u64 process)
{
	const Callback &c = callbacks[process];

	for (int p = 0; p < max_processes; p++)
		if (readers.depth[p] && readers.entered[p] == c.entered[p])
			return false;
	return true;
}

void callback_main()
{
	Process &p = self();
	const Callback &c = callbacks[running];

	for (int q = 0; q < max_processes; q++)
		if (c.entered[q])
			seen[running].join(published_by(section(q, c.entered[q])));
	/* A softirq: it may not sleep. */
	preempt_disable();
	c.function(c.head);
	preempt_enable();
	p.state = Process::State::finished;
	p.fiber.suspend();
}

} // namespace

void reset_rcu()
{
	readers = {};
	keep(&readers, sizeof(readers));
}

bool inside_rcu()
{
	return readers.depth[running];
}

bool any_inside_rcu()
{
	for (u16 depth : readers.depth)
		if (depth)
			return true;
	return false;
}

} // namespace kvmpp::explore

using namespace kvmpp::explore;

void glue_rcu_read_lock(void)
{
	if (!exploring())
		return;
	if (readers.depth[running]) {
		readers.depth[running]++;
		return;
	}
	step(Op{.what = "begins an RCU read side"}.read(object_at(&readers)));
	readers.depth[running] = 1;
	readers.entered[running]++;
	readers.stores[running] = self().stores;
	seen[running].join(published_by(object_at(&readers)));
}

/*
 * A grace period ends after a barrier on each CPU: what a reader stored is in memory then. The model
 * has the reader wait for that, which is a little more than Linux does.
 */
void glue_rcu_read_unlock(void)
{
	if (!exploring())
		return;
	if (readers.depth[running] > 1) {
		readers.depth[running]--;
		return;
	}
	if (self().stores != readers.stores[running])
		full_barrier("ends the RCU read side");
	readers.depth[running] = 0;
	give_back(section(running, readers.entered[running]), Kind::publish);
}

void glue_rcu_call(glue_rcu_head *head, void (*function)(glue_rcu_head *))
{
	if (!exploring())
		return function(head);
	step(Op{.what = "asks for a call after a grace period", .fence = true}.write(
		object_at(&readers)));
	published_by(object_at(&readers)).join(release_now());
	int id = add_process("RCU");
	Process &p = processes[id];
	Callback &c = callbacks[id];

	c = {.head = head, .function = function, .entered = {}};
	p.next = {.what = "the grace period is over",
		  .ready_argument = static_cast<kvmpp::u64>(id)};
	p.next.ready = grace_period_over;
	for (int q = 0; q < max_processes; q++) {
		if (!readers.entered[q])
			continue;
		c.entered[q] = readers.entered[q];
		p.next.accesses.add(section(q, c.entered[q]), Kind::join);
	}
	p.fiber.start(stacks[id], sizeof(stacks[id]), callback_main);
}

/* Its head is in a place of its own, as Linux's is in struct page. */
void glue_page_free_rcu(void *page)
{
	struct Pending {
		glue_rcu_head head;
		void *page;
	};
	static Pending pages[max_processes];
	static_assert(offsetof(Pending, head) == 0);
	Pending &pending = pages[exploring() ? process_count : 0];

	pending.page = page;
	glue_rcu_call(&pending.head, [](glue_rcu_head *head) {
		glue_page_free(reinterpret_cast<Pending *>(head)->page);
	});
}

/*
 * As stop_machine(), since a section without pre-emption is a reader as well; that a moment in which
 * nobody is inside is waited for, is a little more than Linux does.
 */
void glue_synchronize_rcu(void)
{
	might_sleep("synchronize_rcu()");
	if (!exploring())
		return;
	step(Op{.what = "synchronize_rcu()", .fence = true}
		     .write(object_at(&readers))
		     .write(object_of(Fixed::standstill, 0))
		     .when(
			     [](kvmpp::u64) {
				     for (int p = 0; p < process_count; p++)
					     if (processes[p].steady)
						     return false;
				     return !any_inside_rcu();
			     },
			     0));
	for (int p = 0; p < process_count; p++)
		seen[running].join(seen[p]);
}

/* The module goes after all processes have ended, calls among them. */
void glue_rcu_barrier(void)
{
}
