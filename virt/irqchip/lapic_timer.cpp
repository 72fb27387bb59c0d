// SPDX-License-Identifier: GPL-2.0
#include "lapic_timer.hpp"

#include "lapic.hpp"

#include <linux_glue/x86.h>

#include <algorithm>

namespace kvmpp
{

namespace
{

/* As good as never, such that nothing overflows. */
constexpr u64 longest = u64{1} << 62;

u64 tsc_to_ns(u64 ticks)
{
	u64 khz = glue_tsc_khz();

	if (ticks / khz >= longest / 1'000'000)
		return longest;
	return ticks / khz * 1'000'000 + ticks % khz * 1'000'000 / khz;
}

} // namespace

void LapicTimer::stop()
{
	glue_timer_cancel(this);
	target_.store(0, std::memory_order_relaxed);
	deadline_.store(0, std::memory_order_relaxed);
}

void LapicTimer::start_at(u64 when)
{
	target_.store(when, std::memory_order_relaxed);
	glue_timer_start(this, when);
}

void LapicTimer::start(u32 initial, u32 left, u32 divisor)
{
	stop();
	divisor_ = divisor;
	/* Of one-shot ones as well: the guest may make one periodic that is under way. */
	period_ = std::max(u64{initial} * divisor, shortest_period);
	if (!initial)
		return;
	u64 ns = u64{left} * divisor;
	if (lapic_.timer_is_periodic() && left == initial)
		ns = period_;
	start_at(glue_timer_now() + ns);
}

void LapicTimer::change_divisor(u32 initial, u32 divisor)
{
	u32 left = this->left();

	if (left)
		start(initial, left, divisor);
	else
		divisor_ = divisor;
}

u32 LapicTimer::left() const
{
	u64 target = target_.load(std::memory_order_relaxed), now = glue_timer_now();

	if (!target || deadline())
		return 0;
	/* 0 is for what has gone off: whoever saves the state at this moment is to restore a timer that does. */
	u64 counts = target > now ? (target - now) / divisor_ : 0;
	return counts ? static_cast<u32>(counts) : 1;
}

void LapicTimer::start_deadline(u64 deadline, u64 tsc)
{
	stop();
	if (!deadline)
		return;
	deadline_.store(deadline, std::memory_order_relaxed);
	start_at(glue_timer_now() + (deadline > tsc ? tsc_to_ns(deadline - tsc) : 0));
}

u64 LapicTimer::expired(glue_timer *timer)
{
	return static_cast<LapicTimer *>(timer)->expire();
}

u64 LapicTimer::expire()
{
	u64 target = 0;

	if (lapic_.timer_is_periodic()) {
		u64 now = glue_timer_now();

		target = target_.load(std::memory_order_relaxed) + period_;
		/* Those that nobody could take are lost, as in hardware. */
		if (target <= now)
			target += (now - target) / period_ * period_ + period_;
	}
	/* Before the guest can look: it is told last. */
	target_.store(target, std::memory_order_relaxed);
	deadline_.store(0, std::memory_order_relaxed);
	lapic_.timer_expired();
	return target;
}

} // namespace kvmpp
