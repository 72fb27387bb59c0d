// SPDX-License-Identifier: GPL-2.0
//
// What a round of the fuzzer has: files of the device, VMs, vCPUs and eventfds, which its threads open, close
// and use all at once, memory that guests have, and pages of kvm_run that are scribbled on.
#pragma once

#include "abi.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <linux/kvm.h>
#include <span>

namespace fuzz
{

class World
{
public:
	static constexpr unsigned places = 4;  // of files of a kind
	static constexpr unsigned players = 3; // threads at once
	static constexpr size_t memory_size = 0x80000;

	World();
	World(const World &) = delete;
	World &operator=(const World &) = delete;

	// -1: nobody has put one there.
	int file(File kind, unsigned place) const
	{
		return files_[static_cast<unsigned>(kind)][place];
	}
	int eventfd(unsigned place) const { return eventfds_[place]; }
	// Closes what was there, whoever uses it. A vCPU's kvm_run is mapped.
	void put(File kind, unsigned place, int fd, bool foreign = false);
	void put_eventfd(unsigned place, int fd);
	// The vCPU of that place, or what is mapped there without one.
	kvm_run &run(unsigned place) const;
	size_t run_size() const { return run_size_; }

	// The guests', whose mapping may be missing, or of other memory; and the same to write to.
	std::byte *memory() const { return memory_; }
	std::byte *alias() const { return alias_; }
	int memory_fd() const { return memory_fd_; }
	// Where a player has its arguments; the page behind it is not there. It is mapped before any part of
	// memory() is unmapped, for what is mapped later may get that part's place.
	std::byte *arena(unsigned player) const { return arenas_ + arena_stride * player; }

	// A file came from the process that this one was forked from.
	void forked();
	bool is_foreign(File kind, unsigned place) const
	{
		return foreign_[static_cast<unsigned>(kind)][place];
	}

	void close_all();

private:
	static constexpr size_t page_size = 0x1000, arena_stride = largest_argument + page_size;

	std::atomic<int> files_[files][places];
	std::atomic<bool> foreign_[files][places] = {};
	std::atomic<int> eventfds_[places];
	size_t run_size_;
	std::byte *runs_, *memory_, *alias_, *arenas_;
	int memory_fd_;
};

// What a vCPU says of itself; times, which go on, are not in it.
struct Snapshot {
	kvm_regs regs;
	kvm_sregs sregs;
	kvm_debugregs debug_registers;
	kvm_vcpu_events events;
	kvm_xcrs xcrs;
	kvm_fpu fpu;
	struct {
		kvm_msrs header;
		kvm_msr_entry entries[12];
	} msrs;

	// False where it cannot be had.
	bool take(int vcpu);
	// The name of what differs, or null.
	const char *difference(const Snapshot &other) const;
};

} // namespace fuzz
