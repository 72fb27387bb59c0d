// SPDX-License-Identifier: GPL-2.0
/* The table of vCPUs under Linux's own RCU. */
#include "virt/directed_yield.cpp"
#include "virt/vcpu_table.cpp"

#include "expect.hpp"

using namespace kvmpp;

namespace
{

RcuOwned<VcpuEntry> make(u32 id)
{
	auto entry = Owned<VcpuEntry>::create(id);

	if (entry && !entry->set_thread_to_current())
		entry = {};
	if (entry)
		entry->set_preempted(true);
	return entry;
}

void add(VcpuTable &table, VcpuEntry &entry)
{
	Locked locked(table.lock);
	table.add(entry);
}

void remove(VcpuTable &table, const VcpuEntry &entry)
{
	Locked locked(table.lock);
	table.remove(entry);
}

Owned<VcpuTable> make_table()
{
	auto table = Owned<VcpuTable>::create();

	if (table)
		table->init();
	return table;
}

/* Counts how often it was ended, and in what context. */
struct Counted : RcuHead {
	~Counted() { ended++; }
	static unsigned ended;
};
constinit unsigned Counted::ended = 0;

TEST_CASE(ids)
{
	auto table = make_table();
	auto first = make(0), last = make(VcpuTable::max_vcpus - 1), again = make(0);

	ASSERT(table && first && last && again);
	add(*table, *first);
	add(*table, *last);
	EXPECT_EQ(table->count(), 2);
	EXPECT_EQ(table->end(), VcpuTable::max_vcpus);
	remove(*table, *last);
	EXPECT_EQ(table->count(), 1);
	EXPECT_EQ(table->end(), 1);
	remove(*table, *first);
	add(*table, *again);
	{
		RcuRead read;
		EXPECT_EQ(table->find(0), &*again);
		EXPECT(table->find(1) == nullptr);
	}
	remove(*table, *again);
	EXPECT_EQ(table->count(), 0);
	first = {};
	last = {};
	again = {};
	glue_rcu_barrier();
}

TEST_CASE(reader_keeps_what_it_found)
{
	auto object = Owned<Counted>::create();

	ASSERT(object);
	Counted::ended = 0;
	{
		RcuRead read;
		{
			RcuOwned<Counted> gone(std::move(object));
		}
		/* No softirq may end it here, however long this takes. */
		for (unsigned i = 0; i < 100000; i++)
			EXPECT_EQ(const_cast<volatile unsigned &>(Counted::ended), 0);
	}
	glue_rcu_barrier();
	EXPECT_EQ(Counted::ended, 1);
}

TEST_CASE(barrier_waits_for_all)
{
	constexpr unsigned count = 200;
	unsigned made = 0;

	Counted::ended = 0;
	for (unsigned i = 0; i < count; i++) {
		RcuOwned<Counted> object(Owned<Counted>::create());
		made += !!object;
	}
	glue_rcu_barrier();
	EXPECT_EQ(Counted::ended, made);
}

TEST_CASE(thread_of_an_entry)
{
	auto entry = make(0);
	glue_task *task;

	ASSERT(entry);
	EXPECT(entry->set_thread_to_current());
	{
		RcuRead read;
		task = entry->task();
	}
	ASSERT(task);
	/* It runs: there is nothing to give it. */
	EXPECT(glue_yield_to(task) <= 0);
	glue_task_put(task);
	entry = {};
	glue_rcu_barrier();
}

TEST_CASE(who_is_boosted)
{
	auto table = make_table();
	auto spinner = make(0), runs = make(1), waits = make(4);

	ASSERT(table && spinner && runs && waits);
	add(*table, *spinner);
	add(*table, *runs);
	add(*table, *waits);
	runs->set_preempted(false);
	for (u32 last : {0u, 1u, 4u, 1023u, ~0u}) {
		BoostWalk walk(*table, last);
		RcuRead read;

		EXPECT_EQ(walk.next(*spinner), &*waits);
		EXPECT(walk.next(*spinner) == nullptr);
	}
	waits->begin_spin();
	for (bool turn : {false, true, false, true}) {
		BoostWalk walk(*table, 0);
		RcuRead read;

		EXPECT_EQ(walk.next(*spinner) != nullptr, turn);
	}
	waits->end_spin();
	DirectedYield::Stats before = DirectedYield::stats();
	DirectedYield directed;
	directed.yield(*table, *spinner);
	EXPECT_EQ(DirectedYield::stats().tried - before.tried, 1);
	remove(*table, *spinner);
	remove(*table, *runs);
	remove(*table, *waits);
	spinner = {};
	runs = {};
	waits = {};
	glue_rcu_barrier();
}

} // namespace

DEFINE_TEST_SUITE(VCPU_TABLE_CASES)
