/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Searches, each in a process of its own, as many at a time as there are CPUs: a mutant that crashes or
 * runs for ever takes nobody with it.
 */
#pragma once

#include "search.hpp"

#include <deque>
#include <functional>

namespace kvmpp::explore
{

struct Job {
	std::string variant;  /* "right" or "mutant_..." */
	std::string scenario; /* its name */
	Limits limits;
	/* With the outcome, in the parent; may add more jobs. */
	std::function<void(const Outcome &)> done;
};

class Jobs
{
public:
	explicit Jobs(unsigned at_a_time) : at_a_time_(at_a_time) {}
	void add(Job job) { waiting_.push_back(std::move(job)); }
	void run();

private:
	unsigned at_a_time_;
	std::deque<Job> waiting_;
};

} // namespace kvmpp::explore
