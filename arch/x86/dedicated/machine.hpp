/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a CPU stands on that Linux does not have: descriptor tables, stacks, and what happens there on an
 * exception, an NMI and an interrupt.
 */
#pragma once

#include "arch/x86/dedicated_cpu.hpp"

namespace kvmpp
{

/* "Task Management in 64-bit Mode" */
struct [[gnu::packed]] Tss {
	u32 reserved;
	u64 rsp[3];
	u64 reserved2;
	u64 ist[7];
	u64 reserved3;
	u16 reserved4;
	u16 io_map_base;
};

/* "64-Bit Mode IDT" */
struct IdtGate {
	u16 offset_low;
	u16 selector;
	u8 ist;
	u8 type;
	u16 offset_middle;
	u32 offset_high;
	u32 reserved;
};

/* An operand of LGDT and LIDT, with its base aligned. */
struct DescriptorPointer {
	u16 unused[3];
	u16 limit;
	const void *base;
};

struct alignas(4096) DedicatedMachine {
	/* traps.S knows the places of these two. */
	DescriptorPointer gdt_pointer, idt_pointer;
	u64 gdt[8];
	Tss tss;
	DedicatedCpu record;

	alignas(4096) IdtGate idt[256];
	/* NMI, double fault and machine check each begin on a stack of their own. */
	alignas(4096) u8 nmi_stack[4096];
	u8 fault_stack[4096];
	u8 machine_check_stack[4096];
	u8 stack[4 * 4096];

	/* Same selectors as Linux's, which are in the saved state of whoever is interrupted there. */
	static constexpr u16 code_selector = 0x10, data_selector = 0x18, tss_selector = 0x20;

	/* Fills the tables; the rest of the record is the caller's. */
	void prepare();
	void *stack_top() { return stack + sizeof(stack); }
};

/* Where a CPU goes when it is in 64-bit mode; the argument is its DedicatedMachine. */
extern "C" void kvmpp_dedicated_start(void *machine);

/* What the stubs of traps.S leave on the stack, lowest address first. */
struct TrapFrame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	u64 vector, error_code;
	u64 rip, cs, rflags, rsp, ss;
};

} // namespace kvmpp
