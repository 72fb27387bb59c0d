/* SPDX-License-Identifier: GPL-2.0 */
/* The other instructions that a hypervisor needs, by their names. */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::insn
{

struct CpuidResult {
	u32 eax, ebx, ecx, edx;
};

inline CpuidResult cpuid(u32 leaf, u32 subleaf = 0)
{
	CpuidResult r;

	asm volatile("cpuid"
		     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
		     : "a"(leaf), "c"(subleaf));
	return r;
}

inline u64 rdtsc()
{
	u32 low, high;

	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return u64{high} << 32 | low;
}

/* The MSR must exist: for those of the architecture and those found in CPUID. */
inline u64 rdmsr(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return u64{high} << 32 | low;
}

inline void wrmsr(u32 msr, u64 value)
{
	asm volatile("wrmsr"
		     :
		     : "c"(msr), "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32))
		     : "memory");
}

inline void xsetbv(u32 index, u64 value)
{
	asm volatile("xsetbv"
		     :
		     : "c"(index), "a"(static_cast<u32>(value)),
		       "d"(static_cast<u32>(value >> 32)));
}

inline u64 read_cr0()
{
	u64 value;

	asm volatile("mov %%cr0, %0" : "=r"(value));
	return value;
}

inline u64 read_cr2()
{
	u64 value;

	asm volatile("mov %%cr2, %0" : "=r"(value));
	return value;
}

inline void write_cr4(u64 value)
{
	asm volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}

/* Where this CPU's GDT is. */
inline u64 gdt_base()
{
	struct [[gnu::packed]] {
		u16 limit;
		u64 base;
	} gdt;

	asm volatile("sgdt %0" : "=m"(gdt));
	return gdt.base;
}

/* A write to the ICR may overtake stores ("WRMSR to x2APIC MSRs"): not those before this. */
inline void fence_before_ipi()
{
	asm volatile("mfence; lfence" : : : "memory");
}

/* For good: it goes on with what interrupts it, and comes back to this. */
[[noreturn]] inline void halt()
{
	for (;;)
		asm volatile("cli; hlt" : : : "memory");
}

/* Addresses of a guest's breakpoints; none can hit in the host, whose own are switched off first. */
inline void write_debug_registers(const u64 (&dr)[4])
{
	asm volatile("mov %0, %%db7" : : "r"(u64{0}));
	asm volatile("mov %0, %%db0\n\tmov %1, %%db1\n\tmov %2, %%db2\n\tmov %3, %%db3"
		     :
		     : "r"(dr[0]), "r"(dr[1]), "r"(dr[2]), "r"(dr[3]));
}

} // namespace kvmpp::insn
