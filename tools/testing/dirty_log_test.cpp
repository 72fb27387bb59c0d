// SPDX-License-Identifier: GPL-2.0
//
// The dirty log: every page that was written to since it was asked last, and none that was not.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "window.hpp"

#include <atomic>
#include <cerrno>
#include <sched.h>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using namespace window_machine;
namespace lm = guest::longmode;

constexpr uint32_t logged = KVM_MEM_LOG_DIRTY_PAGES;
constexpr uint64_t manual = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
		   initially_set = KVM_DIRTY_LOG_INITIALLY_SET;

long try_log(Vm &vm, uint32_t slot, void *bitmap)
{
	kvm_dirty_log log{};
	log.slot = slot;
	log.dirty_bitmap = bitmap;
	return vm.fd().call(KVM_GET_DIRTY_LOG, &log);
}

// The log of the window, of up to 64 pages.
uint64_t dirty(WindowMachine &machine)
{
	uint64_t bitmap = ~0ull;
	equal("KVM_GET_DIRTY_LOG", try_log(machine.vm, 1, &bitmap), 0);
	return bitmap;
}

void set_log(WindowMachine &machine, bool on)
{
	machine.vm.set_memory(1, window, machine.memory_in_window.size(), machine.address(),
			      on ? logged : 0);
}

void errors()
{
	WindowMachine machine;
	uint64_t bitmap;
	equal("no log", try_log(machine.vm, 1, &bitmap), -ENOENT);
	equal("no slot", try_log(machine.vm, 77, &bitmap), -ENOENT);
	const auto slots =
		static_cast<uint32_t>(machine.device.check_extension(KVM_CAP_NR_MEMSLOTS));
	equal("no such slot", try_log(machine.vm, slots, &bitmap), -EINVAL);
	equal("no such argument", machine.vm.fd().call(KVM_GET_DIRTY_LOG, 8ul), -EFAULT);
	set_log(machine, true);
	equal("no memory for it", try_log(machine.vm, 1, nullptr), -EFAULT);
	equal("as it should be", try_log(machine.vm, 1, &bitmap), 0);
	equal("flag",
	      machine.vm.try_set_memory(1, window, 4 * page_size, machine.address(),
					KVM_MEM_READONLY | logged),
	      -EINVAL);
	set_log(machine, false);
	equal("no log any more", try_log(machine.vm, 1, &bitmap), -ENOENT);
}

void writes_and_reads()
{
	WindowMachine machine(64 * page_size);
	for (unsigned i = 0; i < 64; i++)
		poke(machine, window + i * page_size, i);
	set_log(machine, true);
	equal("what was written before", dirty(machine), 0u);
	poke(machine, window + 3 * page_size, 1);
	peek(machine, window + 4 * page_size);
	poke(machine, window + 63 * page_size + 8, 1);
	equal("what was written", dirty(machine), 1ull << 63 | 1 << 3);
	equal("nothing since", dirty(machine), 0u);
	peek(machine, window + 3 * page_size);
	equal("nor by reading", dirty(machine), 0u);
	poke(machine, window + 3 * page_size, 2);
	equal("the same again", dirty(machine), 1u << 3);
	machine.word(5 * page_size) = 1;
	equal("the VMM's own writes are none", dirty(machine), 0u);
	poke(machine, window + page_size - 4, 1);
	equal("over the border of two", dirty(machine), 3u);
}

void first_touch()
{
	WindowMachine machine(64 * page_size, logged);
	poke(machine, window + 7 * page_size, 1);
	equal("written first by the guest", dirty(machine), 1u << 7);
	machine.word(8 * page_size) = 1;
	poke(machine, window + 8 * page_size, 2);
	equal("written first by the VMM", dirty(machine), 1u << 8);
}

void page_that_is_replaced()
{
	WindowMachine machine(64 * page_size, logged);
	poke(machine, window, 1);
	that("madvise", !madvise(machine.address(), page_size, MADV_DONTNEED));
	equal("the page has gone, the write has been", dirty(machine), 1u);
	poke(machine, window, 1);
	equal("written anew", dirty(machine), 1u);
	remap(machine.address(), page_size);
	poke(machine, window, 1);
	equal("and another one", dirty(machine), 1u);
}

void read_only_slot()
{
	WindowMachine machine;
	Memory rom(page_size);
	machine.vm.set_memory(2, 2 * window, page_size, rom.data(), KVM_MEM_READONLY | logged);
	equal("KVM_RUN", try_access(machine, lm::poke, 2 * window), 0);
	equal("exit of a write", machine.vcpu.state().exit_reason, KVM_EXIT_MMIO);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	uint64_t bitmap = ~0ull;
	equal("KVM_GET_DIRTY_LOG", try_log(machine.vm, 2, &bitmap), 0);
	equal("nothing was written", bitmap, 0u);
}

// A CPU that sets flags in EPT entries takes its walks of these tables for writes; their own flags are all set.
void page_tables_in_read_only_slot()
{
	constexpr uint64_t at = 2 * window, size = 6 * page_size, in_use = 0x60;
	if (!Device::is_kvmpp() &&
	    host::read_file("/sys/module/kvm_intel/parameters/eptad") == "Y\n")
		ktap::skip("KVM has the guest try for ever");
	WindowMachine machine(64 * page_size, logged);
	Memory rom(size);
	for (uint64_t offset = 0; offset < size; offset += 8) {
		const uint64_t entry = machine.at<uint64_t>(GUEST_TABLES + offset);
		const uint64_t move = offset < 2 * page_size ? at - GUEST_TABLES : 0;
		rom.at<uint64_t>(offset) = entry ? (entry + move) | in_use : 0;
	}
	const std::vector<std::byte> before(rom.data(), rom.data() + size);
	machine.vm.set_memory(2, at, size, rom.data(), KVM_MEM_READONLY);
	poke(machine, window + page_size, 1);
	peek(machine, window + 2 * page_size);
	equal("written with other tables", dirty(machine), 1u << 1);
	poke(machine, window + 5 * page_size, 1);
	peek(machine, window + 6 * page_size);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cr3 = at;
	machine.vcpu.set_sregs(sregs);
	equal("read", peek(machine, window + 5 * page_size), 1u);
	for (uint64_t page : {1, 2, 4})
		poke(machine, window + page * page_size, page);
	equal("written", machine.word(4 * page_size), 4u);
	equal("in the log, with what was there before", dirty(machine),
	      1u << 5 | 1u << 4 | 1u << 2 | 1u << 1);
	poke(machine, window + 6 * page_size, 2);
	poke(machine, window + 2 * page_size, 2);
	equal("the next ones", dirty(machine), 1u << 6 | 1u << 2);
	that("the tables are as they were", !std::memcmp(rom.data(), before.data(), size));
}

void moved_slot()
{
	WindowMachine machine(64 * page_size, logged);
	poke(machine, window + page_size, 1);
	machine.vm.set_memory(1, 2 * window, 64 * page_size, machine.address(), logged);
	poke(machine, 2 * window + 2 * page_size, 1);
	equal("from both places", dirty(machine), 6u);
}

long try_manual(Vm &vm, uint64_t flags)
{
	kvm_enable_cap cap{};
	cap.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
	cap.args[0] = flags;
	return vm.fd().call(KVM_ENABLE_CAP, &cap);
}

long try_clear(Vm &vm, uint64_t first, uint32_t pages, void *bitmap, uint32_t slot = 1)
{
	kvm_clear_dirty_log log{};
	log.slot = slot;
	log.first_page = first;
	log.num_pages = pages;
	log.dirty_bitmap = bitmap;
	return vm.fd().call(KVM_CLEAR_DIRTY_LOG, &log);
}

void manual_errors()
{
	WindowMachine machine(100 * page_size);
	uint64_t bitmap[2] = {};
	equal("both flags are there",
	      machine.device.check_extension(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), 3);
	equal("a flag that is not there", try_manual(machine.vm, 4), -EINVAL);
	equal("the second flag alone", try_manual(machine.vm, initially_set), -EINVAL);
	equal("no log", try_clear(machine.vm, 0, 64, bitmap), -ENOENT);
	equal("no slot", try_clear(machine.vm, 0, 64, bitmap, 77), -ENOENT);
	set_log(machine, true);
	equal("not at a word", try_clear(machine.vm, 1, 64, bitmap), -EINVAL);
	equal("no whole word", try_clear(machine.vm, 0, 63, bitmap), -EINVAL);
	equal("beyond the slot", try_clear(machine.vm, 64, 64, bitmap), -EINVAL);
	equal("far beyond the slot", try_clear(machine.vm, 128, 0, bitmap), -EINVAL);
	equal("no memory for it", try_clear(machine.vm, 0, 100, nullptr), -EFAULT);
	equal("the last word", try_clear(machine.vm, 64, 36, bitmap), 0);
	equal("all of it", try_clear(machine.vm, 0, 100, bitmap), 0);
	equal("nothing of it", try_clear(machine.vm, 64, 0, bitmap), 0);
}

void cleared_by_hand()
{
	WindowMachine machine(64 * page_size);
	equal("KVM_ENABLE_CAP", try_manual(machine.vm, manual), 0);
	set_log(machine, true);
	poke(machine, window + 3 * page_size, 1);
	poke(machine, window + 4 * page_size, 1);
	equal("what was written", dirty(machine), 0x18u);
	equal("is there until it is cleared", dirty(machine), 0x18u);
	uint64_t cleared = 1 << 3 | 1 << 5;
	equal("KVM_CLEAR_DIRTY_LOG", try_clear(machine.vm, 0, 64, &cleared), 0);
	equal("what is left", dirty(machine), 0x10u);
	poke(machine, window + 3 * page_size, 2);
	poke(machine, window + 4 * page_size, 2);
	equal("written again", dirty(machine), 0x18u);
}

// A guest whose writes are known: each counts in a page. In large pages of the VMM, if it has them.
class Writer : public LongMachine
{
public:
	static constexpr size_t size = 4 * mib, pages = size / page_size, words = pages / 64;
	using Bitmap = std::vector<uint64_t>;

	Writer(bool huge, uint64_t flags)
		: LongMachine(lm::scatter), flags_(flags), room_(size + 2 * mib)
	{
		at_ = reinterpret_cast<uint64_t *>(
			(reinterpret_cast<uintptr_t>(room_.data()) + 2 * mib - 1) & ~(2 * mib - 1));
		madvise(at_, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		dedicated::place(*this);
		if (flags_)
			equal("KVM_ENABLE_CAP", try_manual(vm, flags_), 0);
		log(false);
		write(1000);
		log(true);
		if (flags_ & initially_set) {
			for (uint64_t word : take())
				equal("at first all is dirty", word, ~0ull);
		}
	}

	uint64_t &count(size_t page) { return at_[page * page_size / 8]; }
	void log(bool on) { vm.set_memory(1, window, size, at_, on ? logged : 0); }
	// What was dirty, and is no longer.
	Bitmap take()
	{
		Bitmap bitmap(words);
		equal("KVM_GET_DIRTY_LOG", try_log(vm, 1, bitmap.data()), 0);
		if (flags_)
			equal("KVM_CLEAR_DIRTY_LOG", try_clear(vm, 0, pages, bitmap.data()), 0);
		return bitmap;
	}
	// Returns which pages were written to.
	Bitmap write(unsigned times)
	{
		Bitmap written(words);
		kvm_regs regs = vcpu.regs();
		regs.rip = lm::scatter;
		regs.rax = random_;
		regs.rbx = window;
		regs.rcx = pages - 1;
		regs.rdx = times;
		vcpu.set_regs(regs);
		vcpu.run_until(KVM_EXIT_HLT);
		for (unsigned i = 0; i < times; i++) {
			random_ = random_ * 1664525 + 1013904223;
			const uint32_t page = random_ >> 12 & (pages - 1);
			written[page / 64] |= 1ull << page % 64;
		}
		equal("the guest's random number", vcpu.regs().rax, random_);
		return written;
	}

private:
	const uint64_t flags_;
	Memory room_;
	uint64_t *at_;
	uint32_t random_ = 1;
};

constexpr uint64_t all_flags[] = {0, manual, manual | initially_set};

// No page is missing, and none is there that was not written.
void exactly_what_was_written(bool huge)
{
	for (uint64_t flags : all_flags) {
		Writer writer(huge, flags);
		for (unsigned times : {1, 200, 0, 1000}) {
			const auto written =
				times ? writer.write(times) : Writer::Bitmap(Writer::words);
			const auto taken = writer.take();
			for (size_t i = 0; i < Writer::words; i++)
				equal("the log", taken[i], written[i]);
		}
		writer.log(false);
		writer.write(1000);
		writer.log(true);
	}
}

void exact()
{
	exactly_what_was_written(false);
}

void exact_in_large_pages()
{
	exactly_what_was_written(true);
}

// What the VMM copies when a page is reported is never older than what the guest wrote before: a copy
// kept in step by the log ends up the same. Meanwhile pages get other frames, and another thread reads.
void copy_in_step()
{
	for (uint64_t flags : all_flags) {
		Writer writer(true, flags);
		std::vector<uint64_t> copy(Writer::pages);
		for (size_t i = 0; i < Writer::pages; i++)
			copy[i] = writer.count(i);
		std::atomic<bool> ended = false;
		std::thread runner([&] {
			for (unsigned round = 0; round < 4; round++)
				writer.write(100);
			ended = true;
		});
		uint64_t reported = 0;
		for (bool last = false; !last;) {
			last = ended;
			const auto taken = writer.take();
			for (size_t i = 0; i < Writer::pages; i++) {
				if (!(taken[i / 64] >> i % 64 & 1))
					continue;
				reported++;
				copy[i] = *const_cast<volatile uint64_t *>(&writer.count(i));
			}
			// Has no effect but that its pages are taken out and come back.
			madvise(&writer.count(0), Writer::size, MADV_NOHUGEPAGE);
			mprotect(&writer.count(64), 64 * page_size,
				 PROT_READ | PROT_WRITE | PROT_EXEC);
			mprotect(&writer.count(64), 64 * page_size, PROT_READ | PROT_WRITE);
		}
		runner.join();
		that("something was reported", reported > 0);
		for (size_t i = 0; i < Writer::pages; i++)
			equal("the copy", copy[i], writer.count(i));
		writer.log(false);
		writer.write(10);
	}
}

// A guest that goes on writing is none the wiser: what it has written when the log is read is in there. On
// KVM, which does not wait for what a CPU has logged, it may be in there some later time.
void read_as_it_writes()
{
	for (uint64_t flags : all_flags) {
		WindowMachine machine(64 * page_size);
		if (flags)
			equal("KVM_ENABLE_CAP", try_manual(machine.vm, flags), 0);
		set_log(machine, true);
		auto take = [&] {
			const uint64_t taken = dirty(machine);
			uint64_t cleared = taken;
			if (flags)
				equal("KVM_CLEAR_DIRTY_LOG", try_clear(machine.vm, 0, 64, &cleared),
				      0);
			return taken;
		};
		auto count = [&] {
			return *const_cast<volatile uint64_t *>(&machine.word(5 * page_size));
		};
		take();
		kvm_regs regs = machine.vcpu.regs();
		regs.rip = lm::count_on;
		regs.rbx = window + 5 * page_size;
		machine.vcpu.set_regs(regs);
		dedicated::Runner runner(machine.vcpu);
		for (unsigned i = 0; i < 10; i++) {
			const uint64_t before = count();
			while (count() == before)
				sched_yield();
			uint64_t taken = take();
			for (unsigned i = 0; !taken && !Device::is_kvmpp() && i < 1'000; i++) {
				sched_yield();
				taken = take();
			}
			equal("the page that it writes to", taken, 1u << 5);
		}
	}
}

// With page-modification logging no write is an exit, but when the CPU's log is full.
void by_the_cpus_log()
{
	if (!Device::is_kvmpp() || host::read_file("/sys/module/kvmpp/parameters/pml") != "Y\n" ||
	    host::read_file("/proc/cpuinfo").find(" pml") == std::string::npos)
		ktap::skip("no page-modification logging");
	auto exits = [](const char *reason) {
		uint64_t sum = 0;
		for (long cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++)
			sum += dedicated::exits_by_reason(static_cast<unsigned>(cpu))[reason];
		return sum;
	};
	Writer writer(false, 0);
	// Each of its pages is there, and in no log, after this.
	writer.write(20000);
	writer.take();
	const uint64_t violations = exits("ept_violation"), full = exits("pml_full");
	// An exit for an interrupt of the host's in between empties it.
	for (unsigned rounds = 0; rounds < 10 && exits("pml_full") == full; rounds++) {
		writer.write(3000);
		writer.take();
	}
	that("it was full", exits("pml_full") > full);
	equal("EPT violations", exits("ept_violation"), violations);
}

constexpr ktap::Case cases[] = {
	{"errors", errors},
	{"writes_and_reads", writes_and_reads},
	{"first_touch", first_touch},
	{"page_that_is_replaced", page_that_is_replaced},
	{"read_only_slot", read_only_slot},
	{"page_tables_in_read_only_slot", page_tables_in_read_only_slot},
	{"moved_slot", moved_slot},
	{"manual_errors", manual_errors},
	{"cleared_by_hand", cleared_by_hand},
	{"exact", exact},
	{"exact_in_large_pages", exact_in_large_pages},
	// It takes two seconds; twenty where a fault waits for mprotect() to be over.
	{"copy_in_step", copy_in_step, 10},
	{"read_as_it_writes", read_as_it_writes},
	{"by_the_cpus_log", by_the_cpus_log},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
