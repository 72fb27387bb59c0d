// SPDX-License-Identifier: GPL-2.0
#include "tally.hpp"

#include "expect.hpp"
#include "vm.hpp"

#include <cstring>
#include <new>
#include <string>
#include <sys/mman.h>

namespace fuzz
{

Tally &Tally::create()
{
	void *memory = mmap(nullptr, sizeof(Tally), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect::that("memory can be mapped", memory != MAP_FAILED);
	return *new (memory) Tally(Coverage::create());
}

void Tally::count(unsigned call, long result)
{
	const unsigned error = result < 0 ? static_cast<unsigned>(-result) : 0;
	calls_++;
	results_[call % most_calls][error < most_errnos ? error : most_errnos - 1]++;
}

void Tally::print(const std::vector<const char *> &names) const
{
	expect::note("%-32s %8s %8s  errors", "call", "calls", "ok");
	for (unsigned call = 0; call < names.size(); call++) {
		uint64_t all = 0;
		std::string errors;
		for (unsigned error = 0; error < most_errnos; error++) {
			const uint32_t times = results_[call][error];
			all += times;
			if (times && error)
				errors += std::string(" ") +
					  strerrorname_np(static_cast<int>(error)) + " " +
					  std::to_string(times);
		}
		if (all)
			expect::note("%-32s %8llu %8u %s", names[call],
				     static_cast<unsigned long long>(all), results_[call][0].load(),
				     errors.c_str());
	}
	for (unsigned reason = 0; reason < most_exits; reason++)
		if (exits_[reason])
			expect::note("%-32s %8u", exit_name(reason), exits_[reason].load());
	if (coverage_)
		coverage_->print();
}

} // namespace fuzz
