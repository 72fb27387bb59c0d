// SPDX-License-Identifier: GPL-2.0
//
// What Linux does to memory that it needs or wants to have otherwise - it swaps it out, moves it, makes it huge,
// merges equal pages - done to the memory of a guest that runs. The guest goes over its words all the while, and
// goes wrong when one is not what it wrote there: see guest/accounts.S.

#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "steady.hpp"
#include "window.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <span>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <sys/swap.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using namespace window_machine;
namespace lm = guest::longmode;

constexpr size_t large = 2 * mib;
constexpr size_t pages = 64, size = pages * page_size;
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

// Memory that begins where a large page can.
struct Aligned {
	explicit Aligned(size_t bytes) : room(bytes + large)
	{
		const auto address = reinterpret_cast<uintptr_t>(room.data());
		at = room.data() + (-address & (large - 1));
	}

	Memory room;
	std::byte *at;
};

void set(const std::string &path, const std::string &value)
{
	if (const int error = host::write_file(path, value); error)
		expect::fail("%s: %s", path.c_str(), std::strerror(-error));
}

uint64_t count_in(const std::string &path, const std::string &name)
{
	std::istringstream lines(host::read_file(path));
	std::string word;
	uint64_t value = 0;

	while (lines >> word >> value)
		if (word == name)
			return value;
	expect::fail("%s is not in %s", name.c_str(), path.c_str());
}

// The page frames behind memory; 0 where there is none.
std::vector<uint64_t> frames(const void *at, size_t bytes)
{
	constexpr uint64_t present = bit(63), frame = bit(55) - 1;
	std::vector<uint64_t> entries(bytes / page_size);
	const size_t length = entries.size() * sizeof(uint64_t);
	const int fd = open("/proc/self/pagemap", O_RDONLY);

	that("pagemap", fd >= 0 && pread(fd, entries.data(), length,
					 static_cast<off_t>(reinterpret_cast<uintptr_t>(at) /
							    page_size * sizeof(uint64_t))) ==
					   static_cast<ssize_t>(length));
	close(fd);
	for (uint64_t &entry : entries)
		entry = entry & present ? entry & frame : 0;
	return entries;
}

size_t count_differing(const std::vector<uint64_t> &a, const std::vector<uint64_t> &b)
{
	size_t count = 0;
	for (size_t i = 0; i < a.size(); i++)
		count += a[i] != b[i];
	return count;
}

// A disk in memory to swap to.
class Swap
{
public:
	Swap()
	{
		// What mkswap writes: union swap_header.
		constexpr size_t disk_pages = 2048;
		const struct {
			uint32_t version, last_page, bad_pages;
		} header{.version = 1, .last_page = disk_pages - 1, .bad_pages = 0};

		equal("modprobe brd", host::insert_module("brd"), 0);
		const int fd = open(disk, O_WRONLY);
		that("open", fd >= 0);
		that("header", pwrite(fd, &header, sizeof(header), 1024) == sizeof(header) &&
				       pwrite(fd, "SWAPSPACE2", 10, page_size - 10) == 10);
		close(fd);
		equal("swapon", swapon(disk, 0), 0);
	}
	~Swap() { swapoff(disk); }

private:
	static constexpr const char *disk = "/dev/ram0";
};

void swapped_out()
{
	Swap swap;
	Aligned memory(size);
	madvise(memory.at, size, MADV_NOHUGEPAGE);
	SteadyGuest guest(size / sizeof(uint64_t), memory.at);
	const uint64_t out = count_in("/proc/vmstat", "pswpout"),
		       in = count_in("/proc/vmstat", "pswpin");
	constexpr unsigned rounds = 20;

	guest.check_progress();
	for (unsigned i = 0; i < rounds; i++) {
		for (size_t page = 0; page < pages; page++) {
			std::byte *const at = memory.at + page * page_size;
			// The guest has used it: it goes at the second time, if the guest does not come first.
			for (unsigned time = 0; time < 2; time++)
				equal("madvise", madvise(at, page_size, MADV_PAGEOUT), 0);
		}
		guest.check_progress();
	}
	guest.finish();
	const uint64_t written = count_in("/proc/vmstat", "pswpout") - out,
		       read = count_in("/proc/vmstat", "pswpin") - in;
	expect::note("%llu pages written, %llu read", static_cast<unsigned long long>(written),
		     static_cast<unsigned long long>(read));
	that("pages were written", written > rounds * pages / 2);
	that("pages were read", read > rounds * pages / 2);
}

// A block of Linux's memory, which can be taken offline when all that is there can be moved.
struct Block {
	static constexpr size_t bytes = 128 * mib;

	explicit Block(uint64_t frame)
		: number(frame * page_size / bytes),
		  path("/sys/devices/system/memory/memory" + std::to_string(number) + "/")
	{
	}
	bool has(uint64_t frame) const { return frame * page_size / bytes == number; }

	uint64_t number;
	std::string path;
};

// Pages get other frames, as they do by compaction and between NUMA nodes.
void moved()
{
	// It is more than a block, of which the lowest is taken: that at the end has something of Linux's own.
	Memory memory(Block::bytes + size);
	madvise(memory.data(), memory.size(), MADV_NOHUGEPAGE);
	const auto touch = [&](size_t offset) { memory.at<uint8_t>(offset) = 1; };
	touch(0);
	if (host::read_file(Block(frames(memory.data(), page_size)[0]).path + "valid_zones") !=
	    "Movable\n")
		ktap::skip("not in memory that Linux can do without: see testing.rst");
	for (size_t offset = page_size; offset < memory.size(); offset += page_size)
		touch(offset);
	const auto all = frames(memory.data(), memory.size());
	size_t lowest = 0;
	for (size_t i = 0; i < all.size(); i += pages)
		if (all[i] < all[lowest])
			lowest = i;
	const size_t below = lowest * page_size, above = memory.size() - below - size;
	std::byte *const at = memory.data() + below;
	equal("madvise", madvise(memory.data(), below, MADV_DONTNEED), 0);
	equal("madvise", madvise(at + size, above, MADV_DONTNEED), 0);
	SteadyGuest guest(size / sizeof(uint64_t), at);
	guest.check_progress();

	const Block block(frames(at, size)[0]);
	// What ran before may have left a page there that somebody holds.
	int error = -EBUSY;
	for (int tries = 0; error == -EBUSY && tries < 5; tries++)
		error = host::write_file(block.path + "state", "offline");
	if (error == -EBUSY)
		ktap::skip("a page in the block is in use");
	equal("offline", error, 0);
	for (const uint64_t frame : frames(at, size))
		that("it has left the block", !block.has(frame));
	guest.check_progress();
	set(block.path + "state", "online_movable");
	guest.finish();
}

// Small pages become a large one, and it becomes small ones.
void made_large_and_small()
{
	Aligned memory(large);
	madvise(memory.at, large, MADV_NOHUGEPAGE);
	SteadyGuest guest(size / sizeof(uint64_t), memory.at);

	guest.check_progress();
	for (unsigned i = 0; i < 10; i++) {
		const auto before = frames(memory.at, size);
		madvise(memory.at, large, MADV_HUGEPAGE);
		// Once more, says madvise(2), where a page was busy: the guest's fault has just looked it up, or it
		// waits to be put into another of Linux's lists, of those that are used.
		int error = EAGAIN;
		for (int tries = 0; error == EAGAIN && tries < 100; tries++)
			error = madvise(memory.at, large, MADV_COLLAPSE) ? errno : 0;
		equal("MADV_COLLAPSE", error, 0);
		const auto after = frames(memory.at, size);
		that("it is large now", after[0] % (large / page_size) == 0 &&
						after[pages - 1] == after[0] + pages - 1);
		that("it is elsewhere", count_differing(before, after) >= pages - 1);
		guest.check_progress();
		// A part that goes, of which the guest has nothing.
		equal("madvise", madvise(memory.at + large - page_size, page_size, MADV_DONTNEED),
		      0);
		guest.check_progress();
	}
	guest.finish();
}

// Two halves with equal pages, which a guest reads all the time.
void merged()
{
	static constexpr const char *ksm = "/sys/kernel/mm/ksm/";
	Aligned memory(2 * size);
	madvise(memory.at, 2 * size, MADV_NOHUGEPAGE);
	LongMachine machine(lm::checksum);
	const auto word = [&](size_t page) -> uint64_t & {
		return *reinterpret_cast<uint64_t *>(memory.at + page * page_size);
	};
	const auto guests = [](size_t page) { return window + page * page_size; };
	const auto sum = [&] {
		call(machine, lm::checksum, 0, window, window + 2 * size);
		return machine.vcpu.regs().rax;
	};
	machine.vm.set_memory(1, window, 2 * size, memory.at);
	for (size_t i = 0; i < 2 * pages; i++)
		word(i) = 1000 + i % pages;
	const uint64_t at_first = sum();
	equal("MADV_MERGEABLE", madvise(memory.at, 2 * size, MADV_MERGEABLE), 0);

	std::atomic<bool> over = false;
	std::thread runner([&] {
		while (!over)
			equal("the guest's sum", sum(), at_first);
	});
	const auto not_merged = [&] {
		const auto now = frames(memory.at, 2 * size);
		return count_differing({now.begin(), now.begin() + pages},
				       {now.begin() + pages, now.end()});
	};
	set(std::string(ksm) + "pages_to_scan", "5000");
	set(std::string(ksm) + "sleep_millisecs", "10");
	set(std::string(ksm) + "run", "1");
	for (unsigned tries = 0; tries < 1000 && not_merged(); tries++)
		usleep(10'000);
	set(std::string(ksm) + "run", "0");
	equal("pages that are not merged", not_merged(), 0u);
	over = true;
	runner.join();

	// Who writes gets a copy.
	poke(machine, guests(3), 1);
	word(pages + 4) = 2;
	equal("pages of their own", not_merged(), 2u);
	equal("what the guest wrote", word(3), 1u);
	equal("the other of the two", word(pages + 3), 1003u);
	equal("as the guest sees it", peek(machine, guests(pages + 3)), 1003u);
	equal("what the VMM wrote", peek(machine, guests(pages + 4)), 2u);
	equal("the other of the two", peek(machine, guests(4)), 1004u);
	equal("as the guest sees what it wrote", peek(machine, guests(3)), 1u);
	poke(machine, guests(pages + 4), 3);
	equal("what the guest wrote", word(pages + 4), 3u);
	equal("the other of the two", word(4), 1004u);
}

constexpr ktap::Case cases[] = {
	{"swapped_out", swapped_out},
	{"moved", moved},
	{"made_large_and_small", made_large_and_small},
	{"merged", merged},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
