// SPDX-License-Identifier: GPL-2.0
//
// The dirty log: every page that was written to since it was asked last, and none that was not.

#include "expect.hpp"
#include "guests.hpp"
#include "ktap.hpp"
#include "window.hpp"

#include <atomic>
#include <cerrno>
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

void moved_slot()
{
	WindowMachine machine(64 * page_size, logged);
	poke(machine, window + page_size, 1);
	machine.vm.set_memory(1, 2 * window, 64 * page_size, machine.address(), logged);
	poke(machine, 2 * window + 2 * page_size, 1);
	equal("from both places", dirty(machine), 6u);
}

// What the VMM copies when a page is reported is never older than what the guest wrote before: a copy
// kept in step by the log ends up the same.
void copy_in_step()
{
	constexpr size_t size = 4 * mib, pages = size / page_size;
	WindowMachine machine(size);
	madvise(machine.address(), size, MADV_HUGEPAGE);
	std::vector<uint64_t> copy(pages), bitmap(pages / 64);
	for (size_t i = 0; i < pages; i++)
		machine.word(i * page_size) = i;
	poke(machine, window + 8, 1);
	for (size_t i = 0; i < pages; i++)
		copy[i] = machine.word(i * page_size);
	set_log(machine, true);
	std::atomic<bool> ended = false;
	std::thread runner([&] {
		for (unsigned round = 1; round <= 3; round++)
			call(machine, lm::touch, 0, window, window + size);
		ended = true;
	});
	uint64_t reported = 0;
	for (bool last = false; !last;) {
		last = ended;
		equal("KVM_GET_DIRTY_LOG", try_log(machine.vm, 1, bitmap.data()), 0);
		for (size_t i = 0; i < pages; i++) {
			if (!(bitmap[i / 64] >> i % 64 & 1))
				continue;
			reported++;
			copy[i] = *const_cast<volatile uint64_t *>(&machine.word(i * page_size));
		}
	}
	runner.join();
	that("something was reported", reported > 0);
	for (size_t i = 0; i < pages; i++)
		equal("the copy", copy[i], machine.word(i * page_size));
	set_log(machine, false);
	poke(machine, window + 16, 5);
	equal("after the log", machine.word(16), 5u);
}

constexpr ktap::Case cases[] = {
	{"errors", errors},
	{"writes_and_reads", writes_and_reads},
	{"first_touch", first_touch},
	{"page_that_is_replaced", page_that_is_replaced},
	{"read_only_slot", read_only_slot},
	{"moved_slot", moved_slot},
	{"copy_in_step", copy_in_step},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
