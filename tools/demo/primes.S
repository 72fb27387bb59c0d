/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The demo's guest, in long mode with paging: counts and sums the primes below LIMIT by trial
 * division, over and over, and prints a line each time to the port.
 */
#include "primes.h"

	.code64
	.text
	.globl start
start:
	xor %r12d, %r12d
round:
	inc %r12
	xor %r13d, %r13d		/* how many */
	xor %r14d, %r14d		/* their sum */
	mov $2, %ebx
candidate:
	mov $2, %ecx
divisor:
	mov %ecx, %eax
	imul %ecx, %eax
	cmp %ebx, %eax
	ja prime
	mov %ebx, %eax
	xor %edx, %edx
	div %ecx
	test %edx, %edx
	jz composite
	inc %ecx
	jmp divisor
prime:
	inc %r13
	add %rbx, %r14
composite:
	inc %ebx
	cmp $LIMIT, %ebx
	jb candidate

	lea text_round(%rip), %rsi
	call print
	mov %r12, %rax
	call print_number
	lea text_count(%rip), %rsi
	call print
	mov %r13, %rax
	call print_number
	lea text_limit(%rip), %rsi
	call print
	mov $LIMIT, %eax
	call print_number
	lea text_sum(%rip), %rsi
	call print
	mov %r14, %rax
	call print_number
	mov $'\n', %al
	mov $PORT, %dx
	out %al, %dx
	cmpl $0, STOP
	je round
	hlt

/* The text at RSI, up to a zero. */
print:
	mov $PORT, %dx
1:	lodsb
	test %al, %al
	jz 2f
	out %al, %dx
	jmp 1b
2:	ret

/* RAX in decimal. */
print_number:
	mov $10, %ecx
	push $0
1:	xor %edx, %edx
	div %rcx
	add $'0', %edx
	push %rdx
	test %rax, %rax
	jnz 1b
	mov $PORT, %dx
2:	pop %rax
	test %al, %al
	jz 3f
	out %al, %dx
	jmp 2b
3:	ret

text_round:	.asciz "round "
text_count:	.asciz ": "
text_limit:	.asciz " primes below "
text_sum:	.asciz ", sum "
