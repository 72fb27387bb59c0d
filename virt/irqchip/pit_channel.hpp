/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A counter of the 8254, "82C54 CHMOS Programmable Interval Timer": what it counts and puts out is a function
 * of the time since it was loaded. It is as KVM has it: BCD is kept and counted in binary, a gate starts a
 * count and does not hold it.
 */
#pragma once

#include "include/kvmpp/types.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

namespace pit
{

inline constexpr u64 frequency = 1193181; /* Hz */
inline constexpr u64 second = 1'000'000'000;

/* Whole ticks in so many nanoseconds. */
constexpr u64 ticks_in(u64 ns)
{
	return ns / second * frequency + ns % second * frequency / second;
}

/* After how many nanoseconds the tick is over. */
constexpr u64 ns_of(u64 ticks)
{
	return ticks / frequency * second +
	       (ticks % frequency * second + frequency - 1) / frequency;
}

} // namespace pit

/* Times are those of glue_timer_now(), and do not go back. */
class PitChannel
{
public:
	/* As KVM_GET_PIT2 and KVM_SET_PIT2 have it; it may be anything. The count is loaded. */
	const kvm_pit_channel_state &state() const { return state_; }
	void set(const kvm_pit_channel_state &state, u64 now);
	void reset(bool gate, u64 now);

	/* What is written to the control word register for this counter. */
	void control(u8 word, u64 now);
	/* The read-back command. */
	void latch_count(u64 now);
	void latch_status(u64 now);
	/* The counter's own port. True: the count was loaded. */
	u8 read(u64 now);
	bool write(u8 value, u64 now);

	void set_gate(bool gate, u64 now);
	bool gate() const { return state_.gate & 1; }
	bool output(u64 now) const;
	u8 mode() const { return state_.mode; }
	/* 1 to 65,536, but by KVM_SET_PIT up to 32 bits. */
	u32 initial_count() const { return state_.count; }

private:
	void load(u32 count, u64 now);
	/* Since it was loaded or, in some modes, the gate rose. */
	u64 ticks(u64 now) const;
	u16 count(u64 now) const;

	kvm_pit_channel_state state_{};
};

} // namespace kvmpp
