/* SPDX-License-Identifier: GPL-2.0 */
/* What of the x86 CPU is Linux's to say or to change. */
#ifndef LINUX_GLUE_X86_H
#define LINUX_GLUE_X86_H

#include "base.h"

GLUE_BEGIN

/* CR4.VMXE of this CPU: the register itself, not Linux's shadow. Any context. */
int glue_vmxe_is_set(void);
/*
 * Sets CR4.VMXE on this CPU and in Linux's shadow of CR4. -EBUSY, and nothing changed, when it is
 * set already: then another module is in VMX operation. Interrupts off.
 */
int glue_vmxe_set(void) NEEDS_IRQS_OFF;
/* Clears it again. Interrupts off, or NMI. */
void glue_vmxe_clear(void);

/* Tells Intel PT that VMX operation begins (1) or has ended (0) on this CPU. Interrupts off. */
void glue_intel_pt_vmx(int on) NEEDS_IRQS_OFF;

/* 0, or -EIO when the MSR does not exist. */
int glue_rdmsr_safe(glue_u32 msr, glue_u64 *value);

/* The CPU's values of host state that a VM exit loads, as of now. Preemption off. */
struct glue_host_state {
	glue_u64 tr_base;
	glue_u64 gdt_base;
	glue_u64 idt_base;
	glue_u64 gs_base;
	glue_u64 sysenter_esp;
	glue_u64 sysenter_eip;
	glue_u64 efer;
	glue_u64 pat;
	glue_u32 sysenter_cs;
	glue_u16 cs, ss, tr;
};
void glue_host_state_read(struct glue_host_state *state);

/* CR3 and CR4 that the host has now and a VM exit must bring back. Interrupts off. */
glue_u64 glue_host_cr3(void) NEEDS_IRQS_OFF;
glue_u64 glue_host_cr4(void);

/*
 * Tells Linux of a split lock in a guest at @rip, which slows it down or warns. 0 where it is none
 * of Linux's business, and the guest gets its #AC. May sleep.
 */
int glue_split_lock(glue_u64 rip) MAY_SLEEP;

/* Ticks of the TSC in a millisecond. */
glue_u64 glue_tsc_khz(void);

/* XCR0 of the host; 0 where the host does not use XSAVE. */
glue_u64 glue_host_xcr0(void);

GLUE_END

#endif
