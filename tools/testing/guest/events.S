/* SPDX-License-Identifier: GPL-2.0 */
/* Interrupts, NMIs and a debugger, in real mode; the test fills the vector table. */
#include "entry.h"

	.code16
	.text

/* Counts what comes, at GUEST_RESULTS: 0 interrupts, 1 NMIs. */
entry on_interrupt
	incw GUEST_RESULTS
	iret

entry on_nmi
	incw GUEST_RESULTS + 8
	out %al, $0x81
	iret

/* Waits with interrupts off, then opens a window of one instruction. */
entry closed_then_open
	cli
	out %al, $0x80
	sti
entry in_shadow
	nop
entry open
	nop
	cli
	hlt

/* Halts with interrupts on; whoever wakes it finds it after HLT. */
entry halts
	sti
	hlt
entry woken
	cli
	hlt

/* Of each kind, one instruction after the other. */
entry steps
	nop
entry step1
	mov $5, %ax
entry step2
	out %al, $0x80
entry step3
	mov %eax, %cr2
entry step4
	cpuid
entry step5
	sti
entry step6
	nop
entry step7
	hlt

entry breaks
	nop
entry break_at
	int3
entry after_break
	mov %ax, GUEST_RESULTS + 0x40
	hlt

entry on_breakpoint
	incw GUEST_RESULTS + 16
	iret

entry on_debug
	incw GUEST_RESULTS + 24
	iret

entry spins
	sti
1:	jmp 1b

/*
 * Rounds with a breakpoint and an INT n each, and all that comes in between, until it is told to stop: see
 * injection_test.cpp. Numbers of 32 bits, at COUNTS.
 */
#define COUNTS	(GUEST_RESULTS + 0x100)
#define STOP	COUNTS
#define ROUNDS	(COUNTS + 4)

.macro counts_at name, index
entry \name
	incl COUNTS + 4 * \index
	iret
.endm

	counts_at counts_breakpoint, 2
	counts_at counts_int_n, 3
	counts_at counts_debug, 4
	counts_at counts_nmi, 5
	counts_at counts_interrupt0, 6
	counts_at counts_interrupt1, 7
	counts_at counts_interrupt2, 8
	counts_at counts_interrupt3, 9

entry rounds
	sti
1:	int3
	int $0x30
	cli
	xor %eax, %eax
	cpuid
	incl ROUNDS
	sti
	nop
	testb $0x3f, ROUNDS
	jnz 2f
	hlt
2:	cmpl $0, STOP
	je 1b
	cli
	out %al, $0x80
	hlt
