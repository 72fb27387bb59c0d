// SPDX-License-Identifier: GPL-2.0
//
// Machines with the two guests that most tests use.
#pragma once

#include "longmode.hpp"
#include "real.hpp"
#include "vm.hpp"

// What guest/longmode.S's exception handlers leave at GUEST_FAULT.
struct Fault {
	uint64_t vector, error, cr2, rip, cs, rflags, dr6, count;
};

// guest/real.S, at one of its entries.
struct RealMachine : Machine {
	explicit RealMachine(uint64_t entry, size_t memory_size = GUEST_MEMORY);
};

// guest/longmode.S, at one of its entries.
struct LongMachine : Machine {
	explicit LongMachine(uint64_t entry, size_t memory_size = GUEST_MEMORY);

	const Fault &fault() const { return at<Fault>(GUEST_FAULT); }
};

// Runs an entry to its HLT, with the registers as they are but for RIP.
void call(Machine &machine, uint64_t entry);
// The same for entries that take arguments in RAX, RBX and RCX.
void call(Machine &machine, uint64_t entry, uint64_t rax, uint64_t rbx = 0, uint64_t rcx = 0);

constexpr uint64_t bit(unsigned n)
{
	return 1ul << n;
}

inline constexpr uint64_t non_canonical = 0x8000'0000'0000;

// What the guest's CPUID gives, in RAX, RBX, RCX and RDX.
kvm_regs identify(Machine &machine, uint32_t leaf, uint32_t subleaf = 0);

// An entry of guest/longmode.S that is to raise an exception, given some registers.
struct Raise {
	struct Registers {
		uint64_t rax = 0, rbx = 0, rcx = 0, rdx = 0;
	};

	const char *name;
	uint64_t entry, rip;
	unsigned vector;
	uint64_t error;
	Registers regs;
};

// Runs it in a machine of its own, to HLT.
void expect_fault(const Raise &raise);
// The machine's first exception must have been this one.
void check_fault(const LongMachine &machine, const Raise &raise);

inline constexpr uint32_t msr_apic_base = 0x1b;
inline constexpr uint32_t msr_sysenter_cs = 0x174;
inline constexpr uint32_t msr_sysenter_esp = 0x175;
inline constexpr uint32_t msr_sysenter_eip = 0x176;
inline constexpr uint32_t msr_pat = 0x277;
inline constexpr uint32_t msr_efer = 0xc0000080;
inline constexpr uint32_t msr_star = 0xc0000081;
inline constexpr uint32_t msr_lstar = 0xc0000082;
inline constexpr uint32_t msr_cstar = 0xc0000083;
inline constexpr uint32_t msr_fmask = 0xc0000084;
inline constexpr uint32_t msr_fs_base = 0xc0000100;
inline constexpr uint32_t msr_gs_base = 0xc0000101;
inline constexpr uint32_t msr_kernel_gs_base = 0xc0000102;
inline constexpr uint32_t msr_tsc_aux = 0xc0000103;

// The MSRs as the guest reads and writes them.
class Msrs
{
public:
	explicit Msrs(Machine &machine) : machine_(machine) {}

	void write(uint32_t index, uint64_t value) const;
	uint64_t read(uint32_t index) const;

private:
	Machine &machine_;
};
