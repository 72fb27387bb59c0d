/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The seam between the module's C++ and the model of the CPU: the compiler is told to read this before
 * any source (-include). It reads the module's own headers of instructions under another name of their
 * namespace, so that `#pragma once` keeps them from being read again, and declares functions of the
 * same names and types that the model implements. The module's files stay as they are, and a change of
 * one of these headers that the model does not follow is a compile error.
 */
#pragma once

#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"

#define insn processor_insn
#include "arch/x86/cpu_insn.hpp"
#include "arch/x86/vmx_insn.hpp"
#undef insn

#include <type_traits>

namespace kvmpp::insn
{

using processor_insn::CpuidResult;
using processor_insn::Invalidate;
using processor_insn::InvalidationDescriptor;

CpuidResult cpuid(u32 leaf, u32 subleaf = 0);
u64 rdtsc();
u64 rdmsr(u32 msr);
void wrmsr(u32 msr, u64 value);
void xsetbv(u32 index, u64 value);
u64 read_cr0();
u64 read_cr2();
void write_cr4(u64 value);
u64 gdt_base();
void fence_before_ipi();
[[noreturn]] void halt();
void write_debug_registers(const u64 (&dr)[4]);

Result<> vmxon(HostPhys region);
Result<> vmxoff();
Result<> vmclear(HostPhys vmcs);
Result<> vmptrld(HostPhys vmcs);
bool vmread(u64 field, u64 &value);
bool vmwrite(u64 field, u64 value);
Result<> invept(Invalidate type, u64 ept_pointer);
Result<> invvpid(Invalidate type, u16 vpid);

/* The stand-ins are what they stand in for. */
#define SAME_AS_PROCESSOR(name)                                                                    \
	static_assert(std::is_same_v<decltype(insn::name), decltype(processor_insn::name)>)
SAME_AS_PROCESSOR(cpuid);
SAME_AS_PROCESSOR(rdtsc);
SAME_AS_PROCESSOR(rdmsr);
SAME_AS_PROCESSOR(wrmsr);
SAME_AS_PROCESSOR(xsetbv);
SAME_AS_PROCESSOR(read_cr0);
SAME_AS_PROCESSOR(read_cr2);
SAME_AS_PROCESSOR(write_cr4);
SAME_AS_PROCESSOR(gdt_base);
SAME_AS_PROCESSOR(fence_before_ipi);
SAME_AS_PROCESSOR(halt);
SAME_AS_PROCESSOR(write_debug_registers);
SAME_AS_PROCESSOR(vmxon);
SAME_AS_PROCESSOR(vmxoff);
SAME_AS_PROCESSOR(vmclear);
SAME_AS_PROCESSOR(vmptrld);
SAME_AS_PROCESSOR(vmread);
SAME_AS_PROCESSOR(vmwrite);
SAME_AS_PROCESSOR(invept);
SAME_AS_PROCESSOR(invvpid);
#undef SAME_AS_PROCESSOR

} // namespace kvmpp::insn
