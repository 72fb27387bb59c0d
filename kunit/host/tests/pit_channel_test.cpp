// SPDX-License-Identifier: GPL-2.0
/* A counter of the 8254: what it counts and puts out over time, and how it is read and written. */
#include "host_insn.hpp"

#include "virt/irqchip/pit_channel.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <utility>
#include <vector>

using namespace kvmpp;

namespace
{

constexpr u8 latch = 0x00, low = 0x10, high = 0x20, word = 0x30;

class PitChannelTest : public testing::Test
{
protected:
	PitChannelTest() { channel.reset(true, begin); }

	/* Loaded at `begin`. */
	void load(u8 mode, u16 count)
	{
		channel.control(word | mode << 1, begin);
		EXPECT_FALSE(channel.write(count & 0xff, begin));
		EXPECT_TRUE(channel.write(count >> 8, begin));
	}
	static u64 after(u64 ticks) { return begin + pit::ns_of(ticks); }
	u16 count(u64 ticks)
	{
		u8 first = channel.read(after(ticks));

		return static_cast<u16>(first | channel.read(after(ticks)) << 8);
	}
	bool output(u64 ticks) { return channel.output(after(ticks)); }
	/* At which ticks the output changes, below an end. */
	std::vector<u64> edges(u64 end)
	{
		std::vector<u64> found;

		for (u64 t = 1; t < end; t++)
			if (output(t) != output(t - 1))
				found.push_back(t);
		return found;
	}

	static constexpr u64 begin = 1'000'000'007;
	PitChannel channel;
};

using Edges = std::vector<u64>;

} // namespace

TEST(PitTime, ticks_and_nanoseconds)
{
	EXPECT_EQ(pit::ns_of(0), 0u);
	EXPECT_EQ(pit::ns_of(1), 839u);
	EXPECT_EQ(pit::ns_of(pit::frequency), pit::second);
	EXPECT_EQ(pit::ticks_in(838), 0u);
	EXPECT_EQ(pit::ticks_in(839), 1u);
	u64 year = pit::frequency * 86400 * 365;
	for (u64 ticks : {u64{1}, u64{238}, u64{65536}, pit::frequency - 1, pit::frequency + 1,
			  year, 500 * year + 12345}) {
		EXPECT_EQ(pit::ticks_in(pit::ns_of(ticks)), ticks);
		EXPECT_EQ(pit::ticks_in(pit::ns_of(ticks) - 1), ticks - 1);
	}
}

/* "Interrupt on Terminal Count", "Software Triggered Strobe" and those with a gate count on below 0. */
TEST_F(PitChannelTest, modes_that_wrap_around)
{
	for (u8 mode : {0, 1, 4, 5}) {
		load(mode, 1000);
		for (auto [ticks, expected] : std::vector<std::pair<u64, u16>>{
			     {0, 1000}, {1, 999}, {999, 1}, {1000, 0}, {1001, 65535}, {66536, 0}})
			EXPECT_EQ(count(ticks), expected) << int{mode} << " after " << ticks;
	}
	load(0, 1000);
	EXPECT_EQ(edges(3000), Edges{1000});
	EXPECT_TRUE(output(1000));
	load(1, 1000);
	EXPECT_EQ(edges(3000), Edges{1000});
	EXPECT_FALSE(output(1000));
	for (u8 mode : {4, 5}) {
		load(mode, 1000);
		EXPECT_EQ(edges(3000), (Edges{1000, 1001})) << int{mode};
		EXPECT_TRUE(output(1000));
	}
}

TEST_F(PitChannelTest, rate_generator)
{
	for (u8 mode : {2, 6}) {
		load(mode, 1000);
		EXPECT_EQ(channel.mode(), 2);
		for (auto [ticks, expected] : std::vector<std::pair<u64, u16>>{
			     {0, 1000}, {1, 999}, {999, 1}, {1000, 1000}, {1001, 999}, {5999, 1}})
			EXPECT_EQ(count(ticks), expected) << ticks;
		EXPECT_EQ(edges(2500), (Edges{1000, 1001, 2000, 2001}));
		EXPECT_FALSE(output(0));
	}
}

TEST_F(PitChannelTest, square_wave)
{
	for (u8 mode : {3, 7}) {
		load(mode, 1000);
		EXPECT_EQ(channel.mode(), 3);
		for (auto [ticks, expected] : std::vector<std::pair<u64, u16>>{
			     {0, 1000}, {1, 998}, {499, 2}, {500, 1000}, {999, 2}, {1000, 1000}})
			EXPECT_EQ(count(ticks), expected) << ticks;
		EXPECT_EQ(edges(2400), (Edges{500, 1000, 1500, 2000}));
		EXPECT_TRUE(output(0));
	}
	load(3, 5);
	EXPECT_EQ(edges(10), (Edges{3, 5, 8})) << "high for one tick more";
}

TEST_F(PitChannelTest, counts_at_the_limits)
{
	load(2, 0);
	EXPECT_EQ(channel.initial_count(), 0x10000u);
	EXPECT_EQ(count(0), 0);
	EXPECT_EQ(count(1), 0xffff);
	EXPECT_EQ(count(0x10000), 0);
	load(2, 1);
	EXPECT_EQ(count(12345), 1);
	load(3, 1);
	EXPECT_EQ(count(12345), 1);
}

/* In binary, as KVM has it. */
TEST_F(PitChannelTest, bcd_is_kept)
{
	channel.control(word | 2 << 1 | 1, begin);
	channel.write(0x00, begin);
	channel.write(0x10, begin);
	EXPECT_EQ(channel.state().bcd, 1);
	EXPECT_EQ(count(1), 0x0fff);
	channel.latch_status(after(1));
	EXPECT_EQ(channel.read(after(1)), 0x35);
}

TEST_F(PitChannelTest, access_modes)
{
	channel.control(low | 0 << 1, begin);
	EXPECT_TRUE(channel.write(0x12, begin));
	EXPECT_EQ(channel.initial_count(), 0x12u);
	EXPECT_EQ(channel.read(after(1)), 0x11);
	EXPECT_EQ(channel.read(after(1)), 0x11);
	channel.control(high | 0 << 1, begin);
	EXPECT_TRUE(channel.write(0x12, begin));
	EXPECT_EQ(channel.initial_count(), 0x1200u);
	EXPECT_EQ(channel.read(after(1)), 0x11);
	EXPECT_EQ(channel.read(after(1)), 0x11);
	/* The first half loads nothing; a control word begins anew. */
	channel.control(word | 0 << 1, begin);
	EXPECT_FALSE(channel.write(0x34, begin));
	EXPECT_EQ(channel.initial_count(), 0x1200u);
	channel.control(word | 0 << 1, begin);
	EXPECT_FALSE(channel.write(0x78, begin));
	EXPECT_TRUE(channel.write(0x56, begin));
	EXPECT_EQ(channel.initial_count(), 0x5678u);
	EXPECT_EQ(channel.read(after(1)), 0x77);
	EXPECT_EQ(channel.read(after(1)), 0x56);
	EXPECT_EQ(channel.read(after(1)), 0x77);
}

TEST_F(PitChannelTest, latched_count)
{
	load(2, 0x1234);
	channel.control(latch, after(4));
	channel.control(latch, after(8)); /* the first one stays */
	EXPECT_EQ(channel.read(after(100)), 0x30);
	EXPECT_EQ(channel.read(after(200)), 0x12);
	EXPECT_EQ(count(0x10), 0x1224) << "and then what it counts";

	channel.control(low | 2 << 1, begin);
	channel.latch_count(after(4));
	EXPECT_EQ(channel.read(after(100)), 0x30);
	EXPECT_EQ(channel.read(after(0x10)), 0x24);
	channel.control(high | 2 << 1, begin);
	channel.latch_count(after(4));
	EXPECT_EQ(channel.read(after(0x300)), 0x12);
	EXPECT_EQ(channel.read(after(0x300)), 0x0f);
}

TEST_F(PitChannelTest, latched_status)
{
	load(3, 1000);
	channel.latch_status(after(499));
	channel.latch_status(after(500)); /* the first one stays */
	channel.latch_count(after(1));
	EXPECT_EQ(channel.read(after(600)), 0xb6) << "output, word, mode 3";
	EXPECT_EQ(channel.read(after(600)), 998 & 0xff) << "the status goes first";
	EXPECT_EQ(channel.read(after(600)), 998 >> 8);
	channel.latch_status(after(500));
	EXPECT_EQ(channel.read(after(600)), 0x36);
	EXPECT_EQ(count(600), 800);
}

TEST_F(PitChannelTest, gate_starts_a_count)
{
	for (u8 mode : {1, 2, 3, 5}) {
		load(mode, 1000);
		channel.set_gate(true, after(100));
		EXPECT_EQ(channel.state().count_load_time, s64{begin}) << "no edge";
		channel.set_gate(false, after(100));
		EXPECT_FALSE(channel.gate());
		EXPECT_EQ(channel.state().count_load_time, s64{begin}) << int{mode};
		channel.set_gate(true, after(100));
		EXPECT_TRUE(channel.gate());
		EXPECT_EQ(channel.state().count_load_time, static_cast<s64>(after(100)));
	}
	for (u8 mode : {0, 4}) {
		load(mode, 1000);
		channel.set_gate(false, after(100));
		channel.set_gate(true, after(100));
		EXPECT_EQ(count(100), 900) << int{mode};
	}
}

TEST_F(PitChannelTest, after_reset)
{
	channel.reset(false, begin);
	EXPECT_EQ(channel.mode(), 0xff) << "as KVM has it";
	EXPECT_EQ(channel.initial_count(), 0x10000u);
	EXPECT_FALSE(channel.gate());
	EXPECT_FALSE(output(0xffff));
	EXPECT_TRUE(output(0x10000));
	/* Without a control word: low bytes. */
	EXPECT_TRUE(channel.write(0x20, begin));
	EXPECT_EQ(channel.initial_count(), 0x20u);
	channel.latch_count(after(1));
	EXPECT_EQ(channel.read(after(2)), 0x1e) << "nothing is latched";
}

/* User space may put in anything. */
TEST_F(PitChannelTest, any_state)
{
	for (unsigned byte = 0; byte < 256; byte++) {
		kvm_pit_channel_state state{};

		std::memset(&state, static_cast<int>(byte), sizeof(state));
		if (byte & 1)
			state.count = 0;
		channel.set(state, begin);
		EXPECT_NE(channel.initial_count(), 0u);
		EXPECT_EQ(channel.state().count_load_time, s64{begin});
		for (u64 ticks : {0ull, 1ull, 70000ull, 1ull << 40}) {
			u64 now = after(ticks);

			(void)channel.output(now);
			channel.latch_status(now);
			channel.latch_count(now);
			for (int i = 0; i < 8; i++)
				(void)channel.read(now);
		}
		for (int i = 0; i < 4; i++)
			channel.write(static_cast<u8>(byte), begin);
		channel.set_gate(true, begin);
	}
}

TEST_F(PitChannelTest, state_goes_there_and_back)
{
	load(2, 0x1234);
	channel.latch_count(after(10));
	channel.latch_status(after(10));
	channel.write(0x55, after(10));
	kvm_pit_channel_state state = channel.state();
	EXPECT_EQ(state.count, 0x1234u);
	EXPECT_EQ(state.latched_count, 0x122a);
	EXPECT_EQ(state.count_latched, 3);
	EXPECT_EQ(state.status_latched, 1);
	EXPECT_EQ(state.rw_mode, 3);
	EXPECT_EQ(state.write_state, 4);
	EXPECT_EQ(state.write_latch, 0x55);

	PitChannel other;
	other.set(state, after(20));
	state.count_load_time = static_cast<s64>(after(20));
	EXPECT_EQ(std::memcmp(&other.state(), &state, sizeof(state)), 0);
	EXPECT_EQ(other.read(after(30)), 0x34) << "status";
	EXPECT_EQ(other.read(after(30)), 0x2a);
	EXPECT_EQ(other.read(after(30)), 0x12);
	EXPECT_TRUE(other.write(0x66, after(30)));
	EXPECT_EQ(other.initial_count(), 0x6655u);
}
