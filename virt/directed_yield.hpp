/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A vCPU spins for a lock of the guest's, and whoever has the lock may be waiting for a CPU: the one
 * that spins gives its own to a vCPU of the same VM that was preempted.
 */
#pragma once

#include "vcpu_table.hpp"

namespace kvmpp
{

/* Once round the ids in use, from the one after @last, which need not be in use. */
class BoostWalk
{
public:
	BoostWalk(const VcpuTable &table, u32 last)
		: table_(table), next_(last + 1), end_(table.end()), left_(end_)
	{
	}

	/* The next one that may have @spinner's CPU, or null when it has been round. */
	VcpuEntry *next(const VcpuEntry &spinner) REQUIRES_SHARED(rcu);

private:
	const VcpuTable &table_;
	u32 next_;
	u32 end_;
	u32 left_;
};

class DirectedYield
{
public:
	/* Of all VMs, since the module came in. */
	struct Stats {
		u64 tried;
		u64 done;
	};
	static Stats stats();

	/*
	 * Gives the CPU of the calling thread, which runs @spinner, to another vCPU of @table, if
	 * one wants it. May sleep.
	 */
	void yield(const VcpuTable &table, VcpuEntry &spinner);

private:
	/*
	 * The id that had a CPU last. Written by whoever has given it one, and no vCPU need be there
	 * by now: a number out of date costs a try.
	 */
	std::atomic<u32> last_{0};
};

} // namespace kvmpp
