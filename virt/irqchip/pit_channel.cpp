// SPDX-License-Identifier: GPL-2.0
#include "pit_channel.hpp"

namespace kvmpp
{

namespace
{

/* Of read_state, write_state, count_latched; the first three are the control word's as well. */
enum Access : u8 { low = 1, high = 2, word_low = 3, word_high = 4 };

constexpr u8 mode_after_reset = 0xff; /* none of them */

} // namespace

void PitChannel::reset(bool gate, u64 now)
{
	state_ = {};
	state_.mode = mode_after_reset;
	state_.gate = gate;
	load(0, now);
}

void PitChannel::set(const kvm_pit_channel_state &state, u64 now)
{
	state_ = state;
	load(state.count, now);
}

void PitChannel::load(u32 count, u64 now)
{
	state_.count = count ? count : 0x10000;
	state_.count_load_time = static_cast<s64>(now);
}

u64 PitChannel::ticks(u64 now) const
{
	return pit::ticks_in(now - static_cast<u64>(state_.count_load_time));
}

u16 PitChannel::count(u64 now) const
{
	u64 gone = ticks(now);

	switch (state_.mode) {
	case 0:
	case 1:
	case 4:
	case 5:
		return static_cast<u16>(state_.count - gone);
	case 3:
		return static_cast<u16>(state_.count - 2 * gone % state_.count);
	default:
		return static_cast<u16>(state_.count - gone % state_.count);
	}
}

bool PitChannel::output(u64 now) const
{
	u64 gone = ticks(now);
	u64 count = state_.count;

	switch (state_.mode) {
	case 1:
		return gone < count;
	case 2:
		return gone && gone % count == 0;
	case 3:
		return gone % count < (count + 1) / 2;
	case 4:
	case 5:
		return gone == count;
	default:
		return gone >= count;
	}
}

void PitChannel::control(u8 word, u64 now)
{
	u8 access = word >> 4 & 3;
	u8 mode = word >> 1 & 7;

	if (access == 0) {
		latch_count(now);
		return;
	}
	state_.rw_mode = state_.read_state = state_.write_state = access;
	/* 6 and 7 are other names of 2 and 3. */
	state_.mode = mode > 5 ? mode - 4 : mode;
	state_.bcd = word & 1;
}

void PitChannel::latch_count(u64 now)
{
	/* One that was not read yet stays. */
	if (state_.count_latched)
		return;
	state_.latched_count = count(now);
	state_.count_latched = state_.rw_mode;
}

void PitChannel::latch_status(u64 now)
{
	if (state_.status_latched)
		return;
	state_.status = static_cast<u8>(output(now) << 7 | state_.rw_mode << 4 | state_.mode << 1 |
					state_.bcd);
	state_.status_latched = 1;
}

u8 PitChannel::read(u64 now)
{
	if (state_.status_latched) {
		state_.status_latched = 0;
		return state_.status;
	}
	if (u8 latched = state_.count_latched) {
		state_.count_latched = latched == word_low ? high : 0;
		return static_cast<u8>(latched == high ? state_.latched_count >> 8
						       : state_.latched_count);
	}
	u16 value = count(now);
	switch (state_.read_state) {
	case high:
		return static_cast<u8>(value >> 8);
	case word_low:
		state_.read_state = word_high;
		return static_cast<u8>(value);
	case word_high:
		state_.read_state = word_low;
		return static_cast<u8>(value >> 8);
	default:
		return static_cast<u8>(value);
	}
}

bool PitChannel::write(u8 value, u64 now)
{
	switch (state_.write_state) {
	case high:
		load(u32{value} << 8, now);
		return true;
	case word_low:
		state_.write_latch = value;
		state_.write_state = word_high;
		return false;
	case word_high:
		load(u32{value} << 8 | state_.write_latch, now);
		state_.write_state = word_low;
		return true;
	default:
		load(value, now);
		return true;
	}
}

void PitChannel::set_gate(bool gate, u64 now)
{
	bool restarts =
		state_.mode == 1 || state_.mode == 2 || state_.mode == 3 || state_.mode == 5;

	if (restarts && state_.gate < gate)
		state_.count_load_time = static_cast<s64>(now);
	state_.gate = gate;
}

} // namespace kvmpp
