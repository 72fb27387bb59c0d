// SPDX-License-Identifier: GPL-2.0
//
// The ioctls of KVM's ABI on x86, whether kvmpp has them or not, and its own, with what their arguments
// are made of.
#pragma once

#include "random.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace fuzz
{

enum class File : uint8_t { device, vm, vcpu };
constexpr unsigned files = 3;

struct Ioctl {
	const char *name;
	unsigned long request;
	File file;
	// How often, beside the others.
	unsigned weight;
	// "=k": a number of kind k by value. Else a structure of fields of kind k and n bytes, "kn";
	// those after "*" are repeated. Empty: no argument.
	//
	//	0	reserved, or to be filled by the kernel	i	index: slot, vCPU, bank, interrupt
	//	a	any number				l	length of an access
	//	c	count of what is repeated		m	MSR
	//	d	file descriptor				p	size of memory, in pages
	//	e	capability				r	page of guest memory
	//	f	flags					s	set of signals
	//	g	address in guest memory			u	address in user space
	//	k	kind of a route				x	CPU
	const char *argument;
	// Which ioctl of the same file gives what this one takes, or 0.
	unsigned long from = 0;
};

std::span<const Ioctl> ioctls();
const Ioctl &any_ioctl(Random &random);

// What the arguments speak of.
struct Places {
	// Where the VMs have memory from guest address 0 on.
	uint64_t memory, memory_size;
	int (*descriptor)(Random &random);
};

constexpr size_t largest_argument = 0x6000;

uint64_t number_of_kind(char kind, Random &random, const Places &places);
// Fills the structure, and returns its size.
size_t fill_argument(const Ioctl &ioctl, Random &random, const Places &places, std::byte *to);
// Other values and bits here and there.
void mutate(Random &random, std::span<std::byte> argument);
// Takes out of it what would be the end of the fuzzer: a signal that a vCPU may not block, and dirty logs that are
// larger than the machine.
void tame(const Ioctl &ioctl, int needed_signal, std::byte *argument);

} // namespace fuzz
