// SPDX-License-Identifier: GPL-2.0
/* The table of vCPUs: what is in it, for how long, and who of it is given a CPU. */
#include "fixture.hpp"

#include "virt/directed_yield.hpp"

#include <asm/errno.h>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class TableTest : public MachineTest
{
protected:
	TableTest() { table->init(); }
	/* Whose vCPU is in thread 100 + id, preempted. */
	VcpuEntry &add(u32 id, bool preempted = true)
	{
		entries.emplace_back(Owned<VcpuEntry>::create(id));
		VcpuEntry &entry = *entries.back();
		switch_thread(100 + static_cast<int>(id));
		EXPECT_TRUE(entry.set_thread_to_current());
		switch_thread(0);
		entry.set_preempted(preempted);
		Locked locked(table->lock);
		table->add(entry);
		return entry;
	}
	void remove(VcpuEntry &entry)
	{
		Locked locked(table->lock);
		table->remove(entry);
	}
	VcpuEntry *find(u32 id)
	{
		RcuRead read;
		return table->find(id);
	}
	/* The ids that a walk by @spinner finds worth it. */
	std::vector<u32> walk(u32 last, const VcpuEntry &spinner)
	{
		std::vector<u32> ids;
		BoostWalk walk(*table, last);
		RcuRead read;

		while (VcpuEntry *entry = walk.next(spinner))
			ids.push_back(entry->id());
		return ids;
	}

	Owned<VcpuTable> table = Owned<VcpuTable>::create();
	std::vector<RcuOwned<VcpuEntry>> entries;
};

using Ids = std::vector<u32>;

class YieldTest : public TableTest
{
protected:
	YieldTest()
	{
		on_yield([&](int thread) {
			threads.push_back(thread);
			return answer;
		});
	}
	std::vector<int> yield(VcpuEntry &spinner)
	{
		threads.clear();
		directed.yield(*table, spinner);
		return threads;
	}

	DirectedYield directed;
	std::vector<int> threads;
	int answer = 1;
};

using Threads = std::vector<int>;

} // namespace

TEST_F(TableTest, add_find_remove)
{
	EXPECT_EQ(table->count(), 0u);
	EXPECT_EQ(table->end(), 0u);
	VcpuEntry &three = add(3), &last = add(VcpuTable::max_vcpus - 1), &one = add(1);
	EXPECT_EQ(table->count(), 3u);
	EXPECT_EQ(table->end(), VcpuTable::max_vcpus);
	EXPECT_EQ(find(3), &three);
	EXPECT_EQ(find(2), nullptr);
	remove(last);
	EXPECT_EQ(table->count(), 2u);
	EXPECT_EQ(table->end(), 4u);
	EXPECT_EQ(find(VcpuTable::max_vcpus - 1), nullptr);
	remove(one);
	EXPECT_EQ(table->end(), 4u);
	VcpuEntry &again = add(1);
	EXPECT_EQ(find(1), &again) << "the id is free at once";
	remove(three);
	EXPECT_EQ(table->end(), 2u);
	remove(again);
	EXPECT_EQ(table->end(), 0u);
	EXPECT_EQ(table->count(), 0u);
}

TEST_F(TableTest, reader_keeps_what_it_found)
{
	add(5);
	int with = live_allocations();
	{
		RcuRead read;
		VcpuEntry *found = table->find(5);

		ASSERT_NE(found, nullptr);
		{
			/* Another thread: locks, which a reader may not. */
			add_preempt_off(-1);
			remove(*found);
			entries.clear();
			add_preempt_off(1);
		}
		EXPECT_EQ(table->find(5), nullptr) << "gone for those who come now";
		EXPECT_EQ(found->id(), 5u) << "there for those who were before";
		EXPECT_EQ(live_allocations(), with);
	}
	EXPECT_LT(live_allocations(), with);
}

TEST_F(TableTest, thread_is_the_last_that_ran_it)
{
	VcpuEntry &entry = add(0);
	int before = live_allocations();
	auto thread_ends = [&] {
		glue_task *task;
		{
			RcuRead read;
			task = entry.task();
		}
		if (task)
			glue_task_put(task);
		return task == nullptr;
	};

	for (int thread : {7, 7, 8}) {
		switch_thread(thread);
		EXPECT_TRUE(entry.set_thread_to_current());
		EXPECT_EQ(live_allocations(), before) << "the one before is given up";
	}
	end_thread(7);
	EXPECT_FALSE(thread_ends());
	end_thread(8);
	EXPECT_TRUE(thread_ends());
	switch_thread(9);
	fail_allocation_after(0);
	EXPECT_EQ(entry.set_thread_to_current().error(), Errno::nomem);
	EXPECT_EQ(live_allocations(), before);
	remove(entry);
}

TEST_F(TableTest, never_run_has_no_thread)
{
	auto entry = Owned<VcpuEntry>::create(0u);
	RcuRead read;

	EXPECT_EQ(entry->task(), nullptr);
	entry = {};
}

TEST_F(TableTest, walk_goes_once_round_from_the_next)
{
	VcpuEntry &spinner = add(2, false);
	for (u32 id : {0, 1, 5, 9})
		add(id);
	add(7, false);

	EXPECT_EQ(walk(0, spinner), (Ids{1, 5, 9, 0}));
	EXPECT_EQ(walk(1, spinner), (Ids{5, 9, 0, 1}));
	EXPECT_EQ(walk(2, spinner), (Ids{5, 9, 0, 1}));
	EXPECT_EQ(walk(8, spinner), (Ids{9, 0, 1, 5}));
	EXPECT_EQ(walk(9, spinner), (Ids{0, 1, 5, 9}));
	EXPECT_EQ(walk(1023, spinner), (Ids{0, 1, 5, 9})) << "an id that was";
	EXPECT_EQ(walk(~0u, spinner), (Ids{0, 1, 5, 9}));
}

TEST_F(TableTest, walk_passes_over_itself_and_those_that_run)
{
	VcpuEntry &spinner = add(0, true), &other = add(1, false);

	EXPECT_EQ(walk(0, spinner), Ids{});
	other.set_preempted(true);
	EXPECT_EQ(walk(0, spinner), Ids{1});
	EXPECT_EQ(walk(1, spinner), Ids{1}) << "itself is no candidate, wherever it begins";
	remove(other);
	EXPECT_EQ(walk(0, spinner), Ids{});
}

TEST_F(TableTest, those_that_spin_every_other_time)
{
	VcpuEntry &spinner = add(0, false), &other = add(1);

	other.begin_spin();
	EXPECT_EQ(walk(0, spinner), Ids{});
	EXPECT_EQ(walk(0, spinner), Ids{1});
	EXPECT_EQ(walk(0, spinner), Ids{});
	other.end_spin();
	EXPECT_EQ(walk(0, spinner), Ids{1});
	EXPECT_EQ(walk(0, spinner), Ids{1});
	other.begin_spin();
	EXPECT_EQ(walk(0, spinner), Ids{}) << "passed over anew";
}

TEST_F(YieldTest, nobody_to_yield_to)
{
	VcpuEntry &spinner = add(0, false);

	add(1, false);
	EXPECT_EQ(yield(spinner), Threads{});
}

TEST_F(YieldTest, goes_on_after_the_last)
{
	VcpuEntry &spinner = add(0, false);

	for (u32 id : {1, 2, 3})
		add(id);
	EXPECT_EQ(yield(spinner), Threads{101});
	EXPECT_EQ(yield(spinner), Threads{102});
	EXPECT_EQ(yield(spinner), Threads{103});
	EXPECT_EQ(yield(spinner), Threads{101});
}

TEST_F(YieldTest, last_one_gone)
{
	VcpuEntry &spinner = add(0, false), &two = add(2);

	add(1);
	yield(spinner);
	EXPECT_EQ(yield(spinner), Threads{102});
	remove(two);
	EXPECT_EQ(yield(spinner), Threads{101});
}

TEST_F(YieldTest, goes_on_where_nothing_comes_of_it)
{
	VcpuEntry &spinner = add(0, false);

	for (u32 id = 1; id <= 6; id++)
		add(id);
	answer = 0;
	EXPECT_EQ(yield(spinner), (Threads{101, 102, 103, 104, 105, 106})) << "once round";
	answer = -ESRCH;
	EXPECT_EQ(yield(spinner), (Threads{101, 102, 103})) << "three refusals are enough";
	answer = 1;
	EXPECT_EQ(yield(spinner), Threads{101}) << "only a success counts as the last";
}

TEST_F(YieldTest, thread_that_has_ended)
{
	VcpuEntry &spinner = add(0, false);

	add(1);
	add(2);
	end_thread(101);
	EXPECT_EQ(yield(spinner), Threads{102});
}

TEST_F(YieldTest, vcpu_that_goes_meanwhile)
{
	VcpuEntry &spinner = add(0, false);

	add(1);
	add(2);
	on_yield([&](int thread) {
		threads.push_back(thread);
		/* Its last file is closed; then there is no entry 1, and no entry 2 either. */
		if (table->count() == 3) {
			for (size_t i : {1u, 2u}) {
				remove(*entries[i]);
				entries[i] = {};
			}
		}
		return 0;
	});
	EXPECT_EQ(yield(spinner), Threads{101});
}

TEST_F(YieldTest, spins_only_meanwhile)
{
	VcpuEntry &spinner = add(0, true), &other = add(1);

	on_yield([&](int) {
		EXPECT_EQ(walk(0, other), Ids{}) << "passed over the first time";
		return 1;
	});
	yield(spinner);
	EXPECT_EQ(walk(0, other), Ids{0});
}

TEST_F(YieldTest, is_counted)
{
	VcpuEntry &spinner = add(0, false);
	DirectedYield::Stats before = DirectedYield::stats();

	add(1);
	answer = 0;
	yield(spinner);
	answer = 1;
	yield(spinner);
	EXPECT_EQ(DirectedYield::stats().tried - before.tried, 2u);
	EXPECT_EQ(DirectedYield::stats().done - before.done, 1u);
}
