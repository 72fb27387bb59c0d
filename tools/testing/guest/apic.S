/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Long mode: a guest with the local APIC of a CPU of its own, in x2APIC mode. It counts its interrupts at
 * GUEST_RESULTS: see dedicated_test.cpp for what is at which place.
 */
#include "x2apic.h"

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
#define TSC	RESULT(16)	/* the TSC, last time somebody looked */
#define BACKWARDS RESULT(17)	/* times that it was less than the time before */
#define LARGEST	RESULT(18)	/* step from one look to the next */
#define TURN	RESULT(19)	/* in the game of two vCPUs */

	.text
	.code64

/* x2APIC mode on, the APIC enabled. */
x2apic_on:
	x2apic_mode
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

/* The same, by MMIO. */
entry stores
1:	incq ROUNDS
	mov %eax, GUEST_MMIO
	jmp 1b

entry halt_enabled
	sti
	hlt
	cli
	out %al, $0x81
	hlt

/* As ipi; notes which it was. */
.macro noted_ipi vector
entry ipi_\vector
	push %rbx
	mov IPIS, %rbx
	and $63, %ebx
	movb $0x\vector, ORDER(%rbx)
	pop %rbx
	jmp ipi
.endm
noted_ipi 61
noted_ipi 72
noted_ipi 83

/* As cpuids, with interrupts. */
entry take_ipis_cpuids
	call x2apic_on
	sti
1:	xor %eax, %eax
	cpuid
	incq ROUNDS
	cmpq $0, STOP
	je 1b
	cli
	out %al, $0x80
	hlt

/* Looks at the TSC until it is told to stop. */
entry tsc_steps
	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	mov %rax, TSC
1:	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	mov %rax, %rbx
	sub TSC, %rbx
	jae 2f
	incq BACKWARDS
	jmp 3f
2:	cmp LARGEST, %rbx
	jbe 3f
	mov %rbx, LARGEST
3:	mov %rax, TSC
	incq ROUNDS
	cmpq $0, STOP
	je 1b
	out %al, $0x80
	hlt

/* Two vCPUs look in turns, RBX is 0 in one and 1 in the other, until WANTED times. */
entry tsc_turns
1:	mov TURN, %rcx
	cmp WANTED, %rcx
	jae 3f
	mov %ecx, %eax
	and $1, %eax
	cmp %rbx, %rax
	jne 1b
	lfence
	rdtsc
	lfence
	shl $32, %rdx
	or %rdx, %rax
	cmp TSC, %rax
	jae 2f
	incq BACKWARDS
2:	mov %rax, TSC
	incq TURN
	jmp 1b
3:	out %al, $0x80
	hlt

/* Sets its TSC to RBX, and leaves it at RSI. */
entry write_tsc
	mov $0x10, %ecx
	mov %ebx, %eax
	mov %rbx, %rdx
	shr $32, %rdx
	wrmsr
	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	mov %rax, (%rsi)
	out %al, $0x80
	hlt
