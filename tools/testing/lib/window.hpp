// SPDX-License-Identifier: GPL-2.0
//
// A machine in long mode with a slot for memory of the test's own, which the guest reads and writes
// a word at a time.
#pragma once

#include "dedicated.hpp"
#include "expect.hpp"
#include "guests.hpp"

#include <sys/mman.h>

namespace window_machine
{

constexpr uint64_t page_size = 0x1000;
constexpr uint64_t mib = 1 << 20;
// Where the tests put a slot of their own, beyond the default memory.
constexpr uint64_t window = 0x40000000;

inline uint64_t peek(Machine &machine, uint64_t address)
{
	call(machine, guest::longmode::peek, 0, address);
	return machine.vcpu.regs().rax;
}

inline void poke(Machine &machine, uint64_t address, uint64_t value)
{
	call(machine, guest::longmode::poke, value, address);
}

// KVM_RUN's result for a guest that is to read or write at the address.
inline long try_access(Machine &machine, uint64_t entry, uint64_t address)
{
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = entry;
	regs.rbx = address;
	machine.vcpu.set_regs(regs);
	return machine.vcpu.try_run();
}

// A machine with a slot at the window for the test's own memory.
struct WindowMachine : LongMachine {
	explicit WindowMachine(size_t size = 4 * page_size, uint32_t flags = 0)
		: LongMachine(guest::longmode::peek), memory_in_window(size)
	{
		vm.set_memory(1, window, size, memory_in_window.data(), flags);
		dedicated::place(*this);
	}

	uint64_t &word(size_t offset = 0) const { return memory_in_window.at<uint64_t>(offset); }
	void *address() const { return memory_in_window.data(); }

	Memory memory_in_window;
};

inline void remap(void *address, size_t size, int protection = PROT_READ | PROT_WRITE)
{
	expect::that("memory can be mapped anew",
		     mmap(address, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			  0) == address);
}

} // namespace window_machine
