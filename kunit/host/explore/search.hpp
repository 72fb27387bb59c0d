/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The explorer: depth-first over all schedules of a scenario, each run from the start ("stateless"),
 * of those that differ only in the order of steps that commute one. By dynamic partial-order reduction
 * (Flanagan and Godefroid, 2005): where two steps of a schedule touch the same and nothing else orders
 * them, their other order is explored too; and by sleep sets: a step that was explored first somewhere
 * is not taken there again until something happened that it does not commute with.
 */
#pragma once

#include "scenario.hpp"

#include "include/kvmpp/types.hpp"

#include <string>
#include <vector>

namespace kvmpp::explore
{

struct Choice {
	u8 party;
	u8 cpu;
	bool operator==(const Choice &) const = default;
};

std::string to_string(const std::vector<Choice> &schedule);
/* False where it is no such string. */
bool from_string(const std::string &text, std::vector<Choice> &schedule);

struct Limits {
	u64 schedules;
	double seconds;
	/* By sleep sets alone, which leave out no class of schedules: to check the reduction by. */
	bool all_orders = false;
	/* Count the classes of schedules that differ in more than the order of commuting steps. */
	bool classes = false;
	/* After a failure: how many more for a shorter one. */
	u64 shorten = 0;
};

struct Outcome {
	u64 schedules = 0; /* run to their end */
	u64 cut = 0;       /* given up, being one of those already */
	u64 longest = 0;   /* steps */
	bool complete = false;
	u64 classes = 0, fingerprint = 0; /* how many, and of which */
	u64 found_after = 0;
	std::string failure; /* empty: none */
	std::vector<Choice> schedule;
	double seconds = 0;
};

Outcome search(const Scenario &scenario, const Limits &limits);
/* Runs one schedule and prints it; what follows @schedule, if anything, goes on as it comes. */
Outcome replay(const Scenario &scenario, const std::vector<Choice> &schedule);

} // namespace kvmpp::explore
