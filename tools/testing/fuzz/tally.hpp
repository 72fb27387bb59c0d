// SPDX-License-Identifier: GPL-2.0
//
// How often what was called, what came of it, and what code that was; shared by all processes of a run.
#pragma once

#include "coverage.hpp"

#include <atomic>
#include <cstdint>
#include <vector>

namespace fuzz
{

class Tally
{
public:
	static constexpr unsigned most_calls = 192, most_errnos = 134, most_exits = 64;

	// In memory that children share.
	static Tally &create();

	// @result is what the call returned, or -errno.
	void count(unsigned call, long result);
	void count_exit(uint32_t reason) { exits_[reason % most_exits]++; }
	uint64_t calls() const { return calls_; }
	// Null where it cannot be had.
	Coverage *coverage() const { return coverage_; }

	// A line for each call: how often, and by errno. @names has a name for each number. Then the coverage.
	void print(const std::vector<const char *> &names) const;

private:
	explicit Tally(Coverage *coverage) : coverage_(coverage) {}

	Coverage *const coverage_;
	std::atomic<uint64_t> calls_;
	std::atomic<uint32_t> results_[most_calls][most_errnos];
	std::atomic<uint32_t> exits_[most_exits];
};

} // namespace fuzz
