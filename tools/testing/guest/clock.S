/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Long mode: a guest that looks at kvmclock all the time, by the rules of struct pvclock_vcpu_time_info, which is at
 * GUEST_SCRATCH, and notes at GUEST_RESULTS:
 *	0	how often it has looked
 *	8	stop when it is not 0
 *	16	the time, last time it looked
 *	24	times that it was less than the time before
 *	32	times that it was written while it was looked at
 */
#include "entry.h"

#define VERSION		0
#define TSC_TIMESTAMP	8
#define SYSTEM_TIME	16
#define MUL		24
#define SHIFT		28

	.text
	.code64

entry watch
	mov $GUEST_SCRATCH, %ebx
	mov $GUEST_RESULTS, %edi
1:	mov VERSION(%rbx), %esi
	lfence
	rdtsc
	shl $32, %rdx
	or %rdx, %rax
	sub TSC_TIMESTAMP(%rbx), %rax
	mov SHIFT(%rbx), %cl
	test %cl, %cl
	js 2f
	shl %cl, %rax
	jmp 3f
2:	neg %cl
	shr %cl, %rax
3:	mov MUL(%rbx), %edx
	mul %rdx
	shrd $32, %rdx, %rax
	add SYSTEM_TIME(%rbx), %rax
	test $1, %esi
	jnz 4f
	cmp %esi, VERSION(%rbx)
	je 5f
4:	incq 32(%rdi)
	jmp 1b
5:	cmp 16(%rdi), %rax
	jae 6f
	incq 24(%rdi)
6:	mov %rax, 16(%rdi)
	incq (%rdi)
	cmpq $0, 8(%rdi)
	je 1b
	out %al, $0x80
	hlt
