// SPDX-License-Identifier: GPL-2.0
#include "crash.hpp"

#include "machine.hpp"
#include "memory.hpp"
#include "races.hpp"
#include "scenario.hpp"
#include "vmx.hpp"

#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace kvmpp::explore
{

bool crashes_come;

namespace
{

/* The hook takes a few dozen. */
constexpr unsigned most_accesses = 10000;

struct Written {
	void *address;
	unsigned bytes;
	u8 before[16];
};

int interrupted = nobody;
int crashing_cpu;
const char *next_step;
u64 next_argument;
unsigned accesses;
std::vector<Written> written;

void undo()
{
	for (; !written.empty(); written.pop_back())
		std::memcpy(written.back().address, written.back().before, written.back().bytes);
}

} // namespace

bool crashing()
{
	return interrupted != nobody;
}

void crash_may_come(const char *what, u64 argument)
{
	if (!crashes_come || !exploring())
		return;
	interrupted = std::exchange(running, nobody);
	next_step = what;
	next_argument = argument;
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		if (!cpus[cpu].online)
			continue;
		crashing_cpu = cpu;
		accesses = 0;
		keep_vmx_for_crash();
		run_at_once(
			cpu, [](void *) { variant->crash(); }, nullptr);
		check_cpu_at_rest(cpu);
		undo_vmx_of_crash();
		undo();
	}
	running = std::exchange(interrupted, nobody);
}

void crash_accesses(const void *address, unsigned bytes, bool write)
{
	check_alive(address);
	if (++accesses > most_accesses)
		fail("the hook does not end");
	if (!write || !watched(address))
		return;
	Written w{.address = const_cast<void *>(address), .bytes = bytes, .before = {}};
	std::memcpy(w.before, address, bytes);
	written.push_back(w);
}

void crash_fails(char *text, unsigned bytes)
{
	char step[100];
	std::string failed = text;

	running = std::exchange(interrupted, nobody);
	/* What it changed is put back with all else before the next schedule. */
	written.clear();
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	std::snprintf(step, sizeof(step), next_step,
		      static_cast<unsigned long long>(next_argument));
#pragma GCC diagnostic pop
	std::snprintf(text, bytes, "a crash seen by CPU %d, before %s's \"%s\": %s", crashing_cpu,
		      self().name, step, failed.c_str());
}

} // namespace kvmpp::explore
