/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Long mode: a guest that goes wrong, and says so, when any of its state is lost: memory, integer and
 * SSE registers, the bases of FS and GS.
 *
 * RDI words at FS hold i * R13 at first. Round R9 finds r * R12 + i * R13 in each of them, adds R12,
 * and adds what it wrote to R8; XMM0 becomes the sum of the rounds times XMM1. At GS:
 *	0	the rounds done
 *	8	stop when it is not 0; then
 *	16	R8
 *	24	XMM0
 *	32	where a word was wrong: 1, its index, what it was, what it should have been
 */
#include "entry.h"

	.text
	.code64

entry steady
	mov %r9, %r10
	inc %r10
	imul %r12, %r10
	xor %ecx, %ecx
1:	mov %fs:(,%rcx,8), %rdx
	add %r12, %rdx
	cmp %r10, %rdx
	jne 4f
	mov %rdx, %fs:(,%rcx,8)
	add %rdx, %r8
	add %r13, %r10
	inc %rcx
	cmp %rdi, %rcx
	jb 1b
	paddq %xmm1, %xmm0
	/* An exit that the kernel deals with; and sometimes one for the VMM. */
	xor %eax, %eax
	cpuid
	inc %r9
	mov %r9, %gs:0
	test $0x3f, %r9b
	jnz 2f
	out %al, $0x80
2:	cmpq $0, %gs:8
	je steady
	mov %r8, %gs:16
	movq %xmm0, %gs:24
	hlt
4:	movq $1, %gs:32
	mov %rcx, %gs:40
	sub %r12, %rdx
	mov %rdx, %gs:48
	sub %r12, %r10
	mov %r10, %gs:56
	hlt

/* Sets XMM0 and XMM1 to 0 and to the low word R11, then begins. */
entry start
	pxor %xmm0, %xmm0
	movq %r11, %xmm1
	jmp steady
