/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The TSCs of a VM's vCPUs agree, as on a machine whose CPUs were reset together. A guest that sets them one
 * by one, to the same value or to what the first has become by then, means them to agree; what passes from
 * one write to the next would set them apart.
 */
#pragma once

#include "include/kvmpp/types.hpp"

#include <atomic>

namespace kvmpp
{

/*
 * Bare code takes no lock that a thread may hold while it is not running. None is needed: all there is to
 * know of the last write, its value and when it was, is their difference, the offset. In pages of its own,
 * for dedicated CPUs see it.
 */
class alignas(4096) TscRecord
{
public:
	/* All began at 0, now. */
	void begin(u64 host_tsc, u64 ticks_per_second)
	{
		second_ = ticks_per_second;
		offset_.store(-host_tsc, std::memory_order_relaxed);
	}
	/* The host's TSC has gone back by that much, for all. */
	void make_up_for(u64 ticks) { offset_.fetch_add(ticks, std::memory_order_relaxed); }
	u64 offset() const { return offset_.load(std::memory_order_relaxed); }

	/*
	 * A vCPU writes its TSC: what the offset becomes. That of the last write, if by this the TSC would be
	 * within a second of @value; else a new one begins, for those that follow.
	 */
	u64 offset_for(u64 value, u64 host_tsc)
	{
		u64 last = offset_.load(std::memory_order_relaxed);

		do {
			u64 later = value - (host_tsc + last), earlier = -later;

			if (later < second_ || earlier < second_)
				return last;
		} while (!offset_.compare_exchange_weak(last, value - host_tsc,
							std::memory_order_relaxed));
		return value - host_tsc;
	}

private:
	std::atomic<u64> offset_{0};
	u64 second_ = 0;
};

} // namespace kvmpp
