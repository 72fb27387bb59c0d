/* SPDX-License-Identifier: GPL-2.0 */
/* The steps of one run, and which of them must have come before which. */
#pragma once

#include "machine.hpp"

#include <vector>

namespace kvmpp::explore
{

/* Who has touched an object, in this run. */
struct History {
	u32 run = 0;
	int writer;
	u16 written;
	Parties readers;
	u16 read[max_parties];
	Clock write_clock, read_clock;
};

class Past
{
public:
	/* Of another run: nothing has happened yet. */
	void begin();
	/* What @party's next step comes after in any case. */
	Clock before(int party) const;
	/* What it comes after with @accesses, after @before. */
	Clock after(const Accesses &accesses, Clock before);
	/* The step is over: what it came after, and what comes after it. */
	void add(const Step &step, const Clock &before);

	unsigned taken() const { return taken_; }
	/* Steps are numbered from 1. */
	const Step &step(unsigned number) const { return steps_[number - 1]; }
	const History &of(u16 object) { return history(object); }
	/* The same for schedules that differ only in the order of steps that commute. */
	u64 class_of_schedule() const;

private:
	History &history(u16 object);

	u32 run_ = 0;
	unsigned taken_ = 0;
	std::vector<Step> steps_;
	std::vector<History> histories_ = std::vector<History>(max_objects);
	Clock clocks_[max_parties];
};

} // namespace kvmpp::explore
