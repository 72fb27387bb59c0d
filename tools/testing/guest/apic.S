/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Long mode: a guest with the local APIC of a CPU of its own, in x2APIC mode. It counts its interrupts at
 * GUEST_RESULTS: see dedicated_test.cpp for what is at which place.
 */
#include "entry.h"

#define X2APIC_ID	0x802
#define X2APIC_TPR	0x808
#define X2APIC_EOI	0x80b
#define X2APIC_SVR	0x80f
#define X2APIC_ICR	0x830
#define X2APIC_LVT_TIMER 0x832
#define X2APIC_INITIAL	0x838
#define X2APIC_DIVIDE	0x83e

#define RESULT(n) (GUEST_RESULTS + 8 * (n))
#define TICKS	RESULT(0)	/* timer interrupts taken */
#define WANTED	RESULT(1)	/* how many there are to be */
#define PERIOD	RESULT(2)	/* initial count of the timer */
#define IPIS	RESULT(3)	/* IPIs taken */
#define ROUNDS	RESULT(4)	/* of the loop */
#define STOP	RESULT(5)
#define READY	RESULT(6)	/* its APIC is on */
#define QUIET	RESULT(7)
#define DELAY	RESULT(7)	/* before the next IPI is sent, in rounds of a loop */
#define ORDER	RESULT(8)	/* vectors in the order they came, a byte each */

	.text
	.code64

.macro wrmsr_imm msr, low
	mov $\msr, %ecx
	mov \low, %eax
	xor %edx, %edx
	wrmsr
.endm

/* x2APIC mode on, the APIC enabled. */
x2apic_on:
	mov $0x1b, %ecx
	rdmsr
	or $0xc00, %eax
	wrmsr
	wrmsr_imm X2APIC_SVR, $0x1ff
	movq $1, READY
	ret

/* Takes WANTED ticks of its own timer, halted in between; then stops the timer and halts for good. */
entry ticks
	call x2apic_on
	wrmsr_imm X2APIC_DIVIDE, $0xb
	wrmsr_imm X2APIC_LVT_TIMER, $0x20040	/* periodic, vector 0x40 */
	mov PERIOD, %rax
	mov $X2APIC_INITIAL, %ecx
	xor %edx, %edx
	wrmsr
1:	sti
	hlt
	cli
	incq ROUNDS
	mov TICKS, %rax
	cmp WANTED, %rax
	jb 1b
	wrmsr_imm X2APIC_INITIAL, $0
	out %al, $0x80
	hlt

/* The same, but computing. */
entry ticks_busy
	call x2apic_on
	wrmsr_imm X2APIC_DIVIDE, $0xb
	wrmsr_imm X2APIC_LVT_TIMER, $0x20040
	mov PERIOD, %rax
	mov $X2APIC_INITIAL, %ecx
	xor %edx, %edx
	wrmsr
	sti
1:	incq ROUNDS
	mov TICKS, %rax
	cmp WANTED, %rax
	jb 1b
	cli
	wrmsr_imm X2APIC_INITIAL, $0
	out %al, $0x80
	hlt

/* The APIC's timer. */
entry tick
	push %rax
	push %rcx
	push %rdx
	incq TICKS
	wrmsr_imm X2APIC_EOI, $0
	pop %rdx
	pop %rcx
	pop %rax
	iretq

/* An IPI. */
entry ipi
	push %rax
	push %rcx
	push %rdx
	incq IPIS
	wrmsr_imm X2APIC_EOI, $0
	pop %rdx
	pop %rcx
	pop %rax
	iretq

/* Computes until it is told to stop. No exits. */
entry spin
	incq ROUNDS
	cmpq $0, STOP
	je spin
	out %al, $0x80
	hlt

/* An exit that is answered where it is, every round; none while it is to be quiet. */
entry cpuids
	xor %eax, %eax
	cpuid
	incq ROUNDS
1:	cmpq $0, QUIET
	jne 1b
	cmpq $0, STOP
	je cpuids
	out %al, $0x80
	hlt

/* Takes IPIs until it is told to stop, halted in between. */
entry take_ipis
	call x2apic_on
1:	sti
	hlt
	cli
	incq ROUNDS
	cmpq $0, STOP
	je 1b
	out %al, $0x80
	hlt

/* The same, computing. */
entry take_ipis_busy
	call x2apic_on
	sti
1:	incq ROUNDS
	cmpq $0, STOP
	je 1b
	cli
	out %al, $0x80
	hlt

/* Writes the ICR with RBX, once. */
entry send_ipi
	call x2apic_on
	mov $X2APIC_ICR, %ecx
	mov %ebx, %eax
	mov %rbx, %rdx
	shr $32, %rdx
	wrmsr
	out %al, $0x80
	hlt

/* Sends WANTED IPIs (RBX to the ICR), each after the one before was counted at RSI. */
entry send_ipis
	call x2apic_on
	xor %edi, %edi
1:	mov $X2APIC_ICR, %ecx
	mov %ebx, %eax
	mov %rbx, %rdx
	shr $32, %rdx
	wrmsr
	inc %rdi
	/* No PAUSE, which exits in a loop. */
2:	cmp %rdi, (%rsi)
	jb 2b
	mov DELAY, %rcx
	jrcxz 4f
3:	dec %rcx
	jnz 3b
4:	cmp WANTED, %rdi
	jb 1b
	out %al, $0x80
	hlt

/* RBX times an exit that is answered in the kernel. */
entry cpuid_rounds
	mov %rbx, %rdi
1:	xor %eax, %eax
	cpuid
	dec %rdi
	jnz 1b
	out %al, $0x80
	hlt

/* One for user space after the other. */
entry outs
1:	incq ROUNDS
	out %al, $0x80
	jmp 1b

entry halt_enabled
	sti
	hlt
	cli
	out %al, $0x81
	hlt
