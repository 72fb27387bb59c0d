// SPDX-License-Identifier: GPL-2.0
#include "coverage.hpp"

#include "expect.hpp"
#include "host.hpp"

#include <cstdio>
#include <fcntl.h>
#include <linux/kcov.h>
#include <new>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace fuzz
{
namespace
{

const char *const kcov = "/sys/kernel/debug/kcov";
constexpr size_t trace_words = 0x8000, trace_size = trace_words * sizeof(uint64_t);

} // namespace

Coverage *Coverage::create()
{
	host::have_debugfs();
	const std::string modules = "\n" + host::read_file("/proc/modules");
	const size_t at = modules.find("\nkvmpp ");
	unsigned long size, base;
	if (at == std::string::npos || access(kcov, R_OK | W_OK) ||
	    std::sscanf(modules.c_str() + at, " kvmpp %lu %*s %*s %*s %lx", &size, &base) != 2)
		return nullptr;
	expect::that("the module fits", size <= largest_module);
	void *memory = mmap(nullptr, sizeof(Coverage), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	expect::that("memory can be mapped", memory != MAP_FAILED);
	return new (memory) Coverage(base, size);
}

void Coverage::add(uint64_t address)
{
	if (address - base_ < size_)
		reached_[address - base_].store(1, std::memory_order_relaxed);
}

void Coverage::print() const
{
	constexpr unsigned a_line = 12;
	expect::note("the module is at %#lx", base_);
	std::string line;
	unsigned count = 0;
	for (size_t offset = 0; offset < size_; offset++) {
		if (!reached_[offset])
			continue;
		char text[24];
		std::snprintf(text, sizeof(text), " %zx", offset);
		line += text;
		if (++count % a_line)
			continue;
		expect::note("reached%s", line.c_str());
		line.clear();
	}
	expect::note("reached%s", line.c_str());
}

ThreadCoverage::ThreadCoverage(Coverage *all) : all_(all)
{
	if (!all_)
		return;
	fd_ = open(kcov, O_RDWR | O_CLOEXEC);
	expect::that("KCOV", fd_ >= 0 && ioctl(fd_, KCOV_INIT_TRACE, trace_words) == 0);
	void *trace = mmap(nullptr, trace_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
	expect::that("memory can be mapped", trace != MAP_FAILED);
	trace_ = static_cast<uint64_t *>(trace);
	expect::equal("KCOV_ENABLE", ioctl(fd_, KCOV_ENABLE, KCOV_TRACE_PC), 0);
}

ThreadCoverage::~ThreadCoverage()
{
	if (!all_)
		return;
	collect();
	ioctl(fd_, KCOV_DISABLE, 0);
	munmap(trace_, trace_size);
	close(fd_);
}

void ThreadCoverage::collect()
{
	if (!all_)
		return;
	const uint64_t count = std::atomic_ref(trace_[0]).exchange(0, std::memory_order_relaxed);
	for (uint64_t i = 1; i <= count; i++)
		all_->add(trace_[i]);
}

} // namespace fuzz
