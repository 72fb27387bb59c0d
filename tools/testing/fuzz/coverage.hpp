// SPDX-License-Identifier: GPL-2.0
//
// Which basic blocks of the module's code were executed in system calls, by the kernel's KCOV.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace fuzz
{

// Of all threads and processes of a run.
class Coverage
{
public:
	// In memory that children share; null where the kernel has no KCOV, or the module is not there.
	static Coverage *create();

	void add(uint64_t address);
	// Where the module is, and lines of distances from there: for scripts/check.d/coverage.py.
	void print() const;

private:
	static constexpr size_t largest_module = 0x800000;

	Coverage(uint64_t base, size_t size) : base_(base), size_(size) {}

	const uint64_t base_;
	const size_t size_;
	std::atomic<uint8_t> reached_[largest_module];
};

// The calling thread's, from now to the end of its life.
class ThreadCoverage
{
public:
	// @all may be null.
	explicit ThreadCoverage(Coverage *all);
	ThreadCoverage(const ThreadCoverage &) = delete;
	ThreadCoverage &operator=(const ThreadCoverage &) = delete;
	~ThreadCoverage();

	// Between two system calls; what does not fit is lost.
	void collect();

private:
	Coverage *const all_;
	int fd_ = -1;
	// How many there are, and the addresses.
	uint64_t *trace_ = nullptr;
};

} // namespace fuzz
