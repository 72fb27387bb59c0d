/* SPDX-License-Identifier: GPL-2.0 */
/* Long mode: guests with a local APIC that the hypervisor has. Results and vectors as in apic.S. */
#include "x2apic.h"

#define RESULT(n) (GUEST_RESULTS + 8 * (n))
#define TICKS	RESULT(0)
#define WANTED	RESULT(1)
#define PERIOD	RESULT(2)
#define LEFT	RESULT(5)	/* of the count, or the deadline, after the last tick */
#define XAPIC	0xfee00000

	.text
	.code64

x2apic_on:
	x2apic_mode
	ret

/* WANTED times: PERIOD from now on one tick, halted until then. */
entry one_shot
	call x2apic_on
	wrmsr_imm X2APIC_DIVIDE, $0xb
	wrmsr_imm X2APIC_LVT_TIMER, $0x40
1:	mov PERIOD, %rax
	mov $X2APIC_INITIAL, %ecx
	xor %edx, %edx
	wrmsr
	mov TICKS, %rbx
2:	sti
	hlt
	cli
	cmp TICKS, %rbx
	je 2b
	mov TICKS, %rbx
	cmp WANTED, %rbx
	jb 1b
	mov $0x839, %ecx
	rdmsr
	mov %rax, LEFT
	out %al, $0x80
	hlt

/* The same with IA32_TSC_DEADLINE. */
entry deadline
	call x2apic_on
	wrmsr_imm X2APIC_LVT_TIMER, $0x40040
1:	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	add PERIOD, %rax
	mov %rax, %rdx
	shr $32, %rdx
	mov $0x6e0, %ecx
	mov TICKS, %rbx
	wrmsr
2:	sti
	hlt
	cli
	cmp TICKS, %rbx
	je 2b
	mov TICKS, %rbx
	cmp WANTED, %rbx
	jb 1b
	mov $0x6e0, %ecx
	rdmsr
	mov %rax, LEFT
	out %al, $0x80
	hlt

/* In xAPIC mode: WANTED ticks of the periodic timer. */
entry xapic_ticks
	mov $XAPIC, %edi
	movl $0x1ff, 0xf0(%rdi)
	movl $0xb, 0x3e0(%rdi)
	movl $0x20041, 0x320(%rdi)
	mov PERIOD, %rax
	mov %eax, 0x380(%rdi)
1:	sti
	hlt
	cli
	mov TICKS, %rax
	cmp WANTED, %rax
	jb 1b
	movl $0, 0x380(%rdi)
	mov 0x30(%rdi), %eax
	mov %rax, LEFT
	out %al, $0x80
	hlt

/* The timer's, vector 0x40. */
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

/* The timer's, vector 0x41. */
entry xapic_tick
	push %rdi
	incq TICKS
	mov $XAPIC, %edi
	movl $0, 0xb0(%rdi)
	pop %rdi
	iretq

/* Starts the processor with APIC id 1 at RBX << 12, and waits for what it leaves at LEFT. */
entry start_other
	call x2apic_on
	mov $X2APIC_ICR, %ecx
	mov $1, %edx
	mov $0x4500, %eax
	wrmsr
	mov %ebx, %eax
	or $0x4600, %eax
	wrmsr
1:	cmpl $0, LEFT
	je 1b
	out %al, $0x80
	hlt
