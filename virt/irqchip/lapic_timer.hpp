/* SPDX-License-Identifier: GPL-2.0 */
/* The timer of a local APIC, "APIC Timer": its bus has a cycle of one nanosecond, as KVM's. */
#pragma once

#include "include/kvmpp/contexts.hpp"
#include "include/kvmpp/types.hpp"

#include <linux_glue/timer.h>

#include <atomic>

namespace kvmpp
{

class Lapic;

class LapicTimer : private glue_timer
{
public:
	/* As KVM's: none goes off more often. */
	static constexpr u64 shortest_period = 200'000;

	explicit LapicTimer(Lapic &lapic) : lapic_(lapic) { glue_timer_init(this, expired); }
	LapicTimer(const LapicTimer &) = delete;
	LapicTimer &operator=(const LapicTimer &) = delete;

	/* All by the vCPU's thread, or nobody has the vCPU any more. */
	void stop() MAY_SLEEP;
	/* From @initial, of which @left are to go; each count takes @divisor ns. 0 is stopped. */
	void start(u32 initial, u32 left, u32 divisor) MAY_SLEEP;
	/* What is left goes on with counts of another length. */
	void change_divisor(u32 initial, u32 divisor) MAY_SLEEP;
	u32 left() const;
	/* IA32_TSC_DEADLINE of a guest whose TSC is @tsc now; 0 is stopped. */
	void start_deadline(u64 deadline, u64 tsc) MAY_SLEEP;
	u64 deadline() const { return deadline_.load(std::memory_order_relaxed); }

private:
	static u64 expired(glue_timer *timer);
	u64 expire();
	void start_at(u64 when) MAY_SLEEP;

	Lapic &lapic_;
	u32 divisor_ = 1;
	u64 period_ = 0;
	/* When it goes off, 0 for never; expire(), too, writes these. */
	std::atomic<u64> target_{0};
	std::atomic<u64> deadline_{0};
};

} // namespace kvmpp
