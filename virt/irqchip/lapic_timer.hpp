/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The timer of a local APIC, "APIC Timer": its bus has a cycle of one nanosecond, as KVM's.
 *
 * Who watches it: while the vCPU's thread runs the guest on a CPU of Linux's, that CPU, which comes out of the
 * guest by its VMX-preemption timer. So neither setting it nor its end takes a timer of Linux's and an interrupt
 * of the host's. Else Linux does: while the thread sleeps in HLT, and while the guest has a CPU of its own.
 */
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
	static constexpr u64 never = ~u64{0};

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
	/* IA32_TSC_DEADLINE of a guest whose TSC is the host's plus @tsc_offset; 0 is stopped. */
	void start_deadline(u64 deadline, u64 tsc_offset) MAY_SLEEP;
	/* False, and nothing is done, if Linux watches it. */
	[[nodiscard]] bool start_deadline_at_once(u64 deadline, u64 tsc_offset);
	u64 deadline() const { return deadline_.load(std::memory_order_relaxed); }

	/* The CPU that runs the guest watches it, or Linux does, as at first. */
	void watch_by_cpu() MAY_SLEEP
	{
		if (!by_cpu_)
			hand_to_cpu();
	}
	void watch_by_linux()
	{
		if (by_cpu_)
			hand_to_linux();
	}
	/* When the CPU is to come out of the guest and call run_down(), in the host's TSC; `never` if Linux watches. */
	u64 tsc_target() const { return tsc_target_; }
	/*
	 * It goes off if its time has come. @looks_yet: the thread is still to look at the APIC before the
	 * guest goes on; else it is asked to.
	 */
	void run_down(bool looks_yet = true);
	/* The host's TSC has gone back by @ticks. */
	void tsc_lost(u64 ticks);

private:
	static u64 expired(glue_timer *timer);
	u64 expire(bool by_thread);
	void set_deadline(u64 deadline, u64 tsc_offset);
	void watch();
	void hand_to_cpu() MAY_SLEEP;
	void hand_to_linux();

	Lapic &lapic_;
	u32 divisor_ = 1;
	u64 period_ = 0;
	/* When it goes off: as glue_timer_now(), or a deadline; 0 for never. expire(), too, writes these. */
	std::atomic<u64> target_{0};
	std::atomic<u64> deadline_{0};
	/* The deadline in the host's TSC. */
	u64 deadline_tsc_ = 0;
	bool by_cpu_ = false;
	u64 tsc_target_ = never;
};

} // namespace kvmpp
