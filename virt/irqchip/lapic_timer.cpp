// SPDX-License-Identifier: GPL-2.0
#include "lapic_timer.hpp"

#include "arch/x86/cpu_insn.hpp"
#include "include/kvmpp/guards.hpp"
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

u64 ns_to_tsc(u64 ns)
{
	u64 khz = glue_tsc_khz();

	return ns / 1'000'000 * khz + ns % 1'000'000 * khz / 1'000'000;
}

constexpr u64 left_until(u64 target, u64 now)
{
	return target > now ? target - now : 0;
}

/* A moment of the one clock in the other. Both are read at once, the one that goes on last: late, never early. */
u64 tsc_of(u64 ns)
{
	IrqOff irq;
	u64 left = left_until(ns, glue_timer_now());

	return insn::rdtsc() + ns_to_tsc(left);
}

u64 ns_of(u64 tsc)
{
	IrqOff irq;
	u64 left = left_until(tsc, insn::rdtsc());

	return glue_timer_now() + tsc_to_ns(left);
}

} // namespace

void LapicTimer::stop()
{
	if (!by_cpu_)
		glue_timer_cancel(this);
	target_.store(0, std::memory_order_relaxed);
	deadline_.store(0, std::memory_order_relaxed);
	tsc_target_ = never;
}

/* What target_ and deadline_ say. */
void LapicTimer::watch()
{
	u64 target = target_.load(std::memory_order_relaxed);

	tsc_target_ = never;
	if (!target && !deadline())
		return;
	if (by_cpu_)
		tsc_target_ = deadline() ? deadline_tsc_ : tsc_of(target);
	else
		glue_timer_start(this, deadline() ? ns_of(deadline_tsc_) : target);
}

void LapicTimer::hand_to_cpu()
{
	glue_timer_cancel(this);
	by_cpu_ = true;
	watch();
}

void LapicTimer::hand_to_linux()
{
	/* It may be on its way into the guest, past its look at the APIC. */
	run_down(false);
	by_cpu_ = false;
	watch();
}

void LapicTimer::run_down(bool looks_yet)
{
	if (tsc_target_ == never || insn::rdtsc() < tsc_target_)
		return;
	(void)expire(looks_yet);
	watch();
}

void LapicTimer::tsc_lost(u64 ticks)
{
	deadline_tsc_ = left_until(deadline_tsc_, ticks);
	if (by_cpu_)
		watch();
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
	target_.store(glue_timer_now() + ns, std::memory_order_relaxed);
	watch();
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
	u64 counts = left_until(target, now) / divisor_;
	return counts ? static_cast<u32>(counts) : 1;
}

void LapicTimer::start_deadline(u64 deadline, u64 tsc_offset)
{
	stop();
	set_deadline(deadline, tsc_offset);
}

bool LapicTimer::start_deadline_at_once(u64 deadline, u64 tsc_offset)
{
	if (!by_cpu_)
		return false;
	set_deadline(deadline, tsc_offset);
	return true;
}

void LapicTimer::set_deadline(u64 deadline, u64 tsc_offset)
{
	u64 now = insn::rdtsc(), left = left_until(deadline, now + tsc_offset);

	deadline_tsc_ = left < never - now ? now + left : never;
	deadline_.store(deadline, std::memory_order_relaxed);
	watch();
}

u64 LapicTimer::expired(glue_timer *timer)
{
	return static_cast<LapicTimer *>(timer)->expire(false);
}

/* Returns when it goes off next, 0 for never. */
u64 LapicTimer::expire(bool by_thread)
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
	lapic_.timer_expired(by_thread);
	return target;
}

} // namespace kvmpp
