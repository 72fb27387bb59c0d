/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a step touches, and what follows from that: which steps must keep their order. Two steps that
 * touch nothing in common commute, and only one of their two orders is explored.
 */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::explore
{

/* Processes 0 to 31 of the model; 32 + p stands for the store buffer of process p. */
inline constexpr int max_processes = 32, max_parties = 2 * max_processes;
/* Bit i is party i. */
using Parties = u64;

constexpr Parties party(int i)
{
	return Parties{1} << i;
}
constexpr int buffer_of(int process)
{
	return max_processes + process;
}

enum class Kind : u8 {
	read,         /* commutes with other reads; taking one of many tokens, as a reader's lock */
	write,        /* commutes with nothing; taking a lock */
	join,         /* waits for what was published; never the other way round */
	publish,      /* gives a lock back: nobody could have come before */
	publish_read, /* gives a token back */
};

struct Access {
	u16 object;
	Kind kind;
};

struct Accesses {
	static constexpr int capacity = 24;
	Access items[capacity];
	u8 count = 0;

	void add(u16 object, Kind kind);
	bool conflict_with(const Accesses &other) const;
	const Access *begin() const { return items; }
	const Access *end() const { return items + count; }
};

/* For each party, the last of its steps that is known to have come before. Step 0 is "none". */
struct Clock {
	u16 last[max_parties] = {};

	void join(const Clock &other)
	{
		for (int i = 0; i < max_parties; i++)
			last[i] = last[i] > other.last[i] ? last[i] : other.last[i];
	}
};

} // namespace kvmpp::explore
