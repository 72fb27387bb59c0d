// SPDX-License-Identifier: GPL-2.0
#include "directed_yield.hpp"

namespace kvmpp
{

namespace
{

/* The scheduler refuses where it would be of no use: it will not be wiser about many more. */
constexpr unsigned most_refused = 3;

/* Each change costs far less than what it counts. */
constinit std::atomic<u64> tried{0};
constinit std::atomic<u64> done{0};

} // namespace

VcpuEntry *BoostWalk::next(const VcpuEntry &spinner)
{
	while (left_ > 0) {
		u32 id = next_ < end_ ? next_ : 0;

		left_--;
		next_ = id + 1;
		VcpuEntry *entry = table_.find(id);
		if (entry && entry != &spinner && entry->may_be_boosted())
			return entry;
	}
	return nullptr;
}

void DirectedYield::yield(const VcpuTable &table, VcpuEntry &spinner)
{
	BoostWalk walk(table, last_.load(std::memory_order_relaxed));

	spinner.begin_spin();
	for (unsigned refused = 0; refused < most_refused;) {
		glue_task *task;
		u32 id;
		{
			/* Not while it yields, which sleeps: the task is held, its vCPU may go. */
			RcuRead read;
			VcpuEntry *entry = walk.next(spinner);
			if (!entry)
				break;
			id = entry->id();
			task = entry->task();
		}
		if (!task)
			continue;
		tried.fetch_add(1, std::memory_order_relaxed);
		int yielded = glue_yield_to(task);
		glue_task_put(task);
		if (yielded > 0) {
			done.fetch_add(1, std::memory_order_relaxed);
			last_.store(id, std::memory_order_relaxed);
			break;
		}
		refused += yielded < 0;
	}
	spinner.end_spin();
}

DirectedYield::Stats DirectedYield::stats()
{
	return {tried.load(std::memory_order_relaxed), done.load(std::memory_order_relaxed)};
}

} // namespace kvmpp
