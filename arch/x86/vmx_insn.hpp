/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The VMX instructions, one function each. A VMfail or a fault is an errno; nothing here asserts.
 * "Conventions" of the manual's chapter "VMX Instruction Reference": CF or ZF set is VMfail.
 *
 * All of them: preemption off at least, in VMX operation on this CPU except for vmxon(). An
 * instruction outside VMX operation raises #UD, which the exception table turns into Errno::io.
 */
#pragma once

#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"

namespace kvmpp::insn
{

/* An exception-table entry of EX_TYPE_DEFAULT: a fault at label `from` goes on at label `to`. */
#define VMX_EXTABLE(from, to)                                                                      \
	".pushsection \"__ex_table\", \"a\"\n"                                                     \
	".balign 4\n"                                                                              \
	".long (" from ") - .\n"                                                                   \
	".long (" to ") - .\n"                                                                     \
	".long 1\n"                                                                                \
	".popsection\n"

/* Operand of INVEPT and INVVPID, "INVEPT Descriptor" and "INVVPID Descriptor". */
struct InvalidationDescriptor {
	u64 first;
	u64 second;
};

enum class Invalidate : u64 {
	single_context = 1,
	all_contexts = 2,
};

inline Result<> vmxon(HostPhys region)
{
	asm goto("1: vmxon %0\n"
		 "jbe %l[failed]\n" VMX_EXTABLE("1b", "%l[failed]")
		 :
		 : "m"(region.value)
		 : "cc", "memory"
		 : failed);
	return {};
failed:
	return Errno::io;
}

inline Result<> vmxoff()
{
	asm goto("1: vmxoff\n"
		 "jbe %l[failed]\n" VMX_EXTABLE("1b", "%l[failed]")
		 :
		 :
		 : "cc", "memory"
		 : failed);
	return {};
failed:
	return Errno::io;
}

inline Result<> vmclear(HostPhys vmcs)
{
	asm goto("1: vmclear %0\n"
		 "jbe %l[failed]\n" VMX_EXTABLE("1b", "%l[failed]")
		 :
		 : "m"(vmcs.value)
		 : "cc", "memory"
		 : failed);
	return {};
failed:
	return Errno::io;
}

inline Result<> vmptrld(HostPhys vmcs)
{
	asm goto("1: vmptrld %0\n"
		 "jbe %l[failed]\n" VMX_EXTABLE("1b", "%l[failed]")
		 :
		 : "m"(vmcs.value)
		 : "cc", "memory"
		 : failed);
	return {};
failed:
	return Errno::io;
}

/* False on VMfail or fault; @value is then 0. */
inline bool vmread(u64 field, u64 &value)
{
	u64 v;

	asm goto("1: vmread %[field], %[v]\n"
		 "jbe %l[failed]\n" VMX_EXTABLE("1b", "%l[failed]")
		 : [v] "=r"(v)
		 : [field] "r"(field)
		 : "cc"
		 : failed);
	asm volatile(""); /* gcc 12 may misplace an output of asm goto: its bug 113921 */
	value = v;
	return true;
failed:
	value = 0;
	return false;
}

inline bool vmwrite(u64 field, u64 value)
{
	asm goto("1: vmwrite %[value], %[field]\n"
		 "jbe %l[failed]\n" VMX_EXTABLE("1b", "%l[failed]")
		 :
		 : [field] "r"(field), [value] "rm"(value)
		 : "cc", "memory"
		 : failed);
	return true;
failed:
	return false;
}

inline Result<> invept(Invalidate type, u64 ept_pointer)
{
	InvalidationDescriptor descriptor{ept_pointer, 0};

	asm goto("1: invept %0, %1\n"
		 "jbe %l[failed]\n" VMX_EXTABLE("1b", "%l[failed]")
		 :
		 : "m"(descriptor), "r"(static_cast<u64>(type))
		 : "cc", "memory"
		 : failed);
	return {};
failed:
	return Errno::io;
}

inline Result<> invvpid(Invalidate type, u16 vpid)
{
	InvalidationDescriptor descriptor{vpid, 0};

	asm goto("1: invvpid %0, %1\n"
		 "jbe %l[failed]\n" VMX_EXTABLE("1b", "%l[failed]")
		 :
		 : "m"(descriptor), "r"(static_cast<u64>(type))
		 : "cc", "memory"
		 : failed);
	return {};
failed:
	return Errno::io;
}

#undef VMX_EXTABLE

} // namespace kvmpp::insn
