// SPDX-License-Identifier: GPL-2.0
//
// Test cases, each run in a process of its own, reported as KTAP version 1.
//
// A process per case: a case that hangs or dies takes nothing along, and its end closes every file
// the case left open, which is itself a test of the module's release paths.
#pragma once

#include <source_location>
#include <span>

namespace ktap
{

struct Case {
	const char *name;
	void (*run)();
	// Seconds of the emulated machine's time, which runs at some 50 million instructions each.
	unsigned timeout_s = 30;
};

// Runs the cases named in argv, or all. Returns main's exit status.
int run(std::span<const Case> cases, int argc, char **argv);

// Ends the case, from any thread or child process of it whose exit status child_ok() judges.
// A case fails by expect::fail().
[[noreturn, gnu::format(printf, 1, 2)]] void skip(const char *format, ...);

// Waits for a child the case has forked; fails unless it ended by exit(0).
void child_ok(int pid, const std::source_location &where = std::source_location::current());

} // namespace ktap
