// SPDX-License-Identifier: GPL-2.0
#include "measured.hpp"

#include "bochs.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <algorithm>
#include <cstdlib>
#include <ctime>

namespace measured
{

using expect::that;

void need_device()
{
	if (!bochs::present())
		ktap::skip("not in our Bochs");
}

void need_cpus(unsigned least)
{
	need_device();
	if (host::online_cpus().size() < least)
		ktap::skip("fewer than %u CPUs", least);
}

void need_one_cpu()
{
	need_device();
	if (host::online_cpus().size() != 1)
		ktap::skip("more than one CPU");
	bochs::give_up_ports();
}

unsigned wanted(const char *variable, unsigned otherwise)
{
	const char *text = std::getenv(variable);
	return text && *text ? static_cast<unsigned>(std::strtoul(text, nullptr, 0)) : otherwise;
}

uint64_t Samples::median() const
{
	that("something was measured", !values_.empty());
	std::vector<uint64_t> sorted = values_;
	std::sort(sorted.begin(), sorted.end());
	return sorted[(sorted.size() - 1) / 2];
}

uint64_t Samples::least() const
{
	that("something was measured", !values_.empty());
	return *std::min_element(values_.begin(), values_.end());
}

void Samples::say(const char *name) const
{
	const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
	const uint64_t middle = median();
	const auto [least, most] = std::minmax_element(values_.begin(), values_.end());
	expect::note("measured %s %llu %llu %llu %zu", name, number(middle), number(*least),
		     number(*most), values_.size());
}

void say(const char *name, double value)
{
	expect::note("measured %s %.3f", name, value);
}

uint64_t instructions_of_all(unsigned cpus)
{
	uint64_t sum = 0;
	for (unsigned cpu = 0; cpu < cpus; cpu++)
		sum += bochs::instructions(cpu);
	return sum;
}

void spin_microseconds(uint64_t count)
{
	const auto now = [] {
		timespec time;
		clock_gettime(CLOCK_MONOTONIC, &time);
		return uint64_t(time.tv_sec) * 1'000'000 + uint64_t(time.tv_nsec) / 1'000;
	};
	const uint64_t end = now() + count;
	while (now() < end)
		;
}

} // namespace measured
