/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From one mode into another: paging switched on in protected mode, and the whole way from real to
 * long mode. Tables are the test's.
 */
#include "entry.h"

	.text
	.code32

/*
 * 32-bit paging of whatever kind CR4 (given in EBX) and the tables at GUEST_TABLES make it. The
 * page at 0x80000 is really GUEST_SCRATCH, 0xc0000000 is 0 in a large page.
 */
entry paging
	mov %ebx, %cr4
	mov $GUEST_TABLES, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	jmp 1f
1:	mov 0x80000, %eax
	mov %eax, GUEST_RESULTS
	movl $0x600dcafe, 0xc0000000 + GUEST_SCRATCH + 4
	mov 0x80004, %eax
	mov %eax, GUEST_RESULTS + 8
	mov %cr3, %eax
	mov %eax, GUEST_RESULTS + 16
	/* And off again. */
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	jmp 1f
1:	mov 0x80000, %eax
	mov %eax, GUEST_RESULTS + 24
	hlt

/* A 32-bit exception: GUEST_FAULT gets vector, error code, CR2 and EIP; ends there. */
entry fault32
	mov 0xd0000000, %eax
entry fault32_handler
	pop GUEST_FAULT + 8
	pop GUEST_FAULT + 24
	movl $14, GUEST_FAULT
	mov %cr2, %eax
	mov %eax, GUEST_FAULT + 16
	hlt

/* Paging on, then straight to the faulting load. */
entry paging_fault
	mov %ebx, %cr4
	mov $GUEST_TABLES, %eax
	mov %eax, %cr3
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	jmp fault32

	.code16
entry from_real
	cli
	lgdtl gdt_pointer
	mov $0x20, %eax
	mov %eax, %cr4
	mov $GUEST_TABLES, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000001, %eax
	mov %eax, %cr0
	ljmpl $SEL_CODE64, $long_mode
gdt_pointer:
	.word GDT_ENTRIES * 8 - 1
	.long GUEST_GDT

	.code64
long_mode:
	mov $SEL_DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $GUEST_STACK, %esp
	mov $0x0123456789abcdef, %rax
	mov %rax, %r15
	rol $8, %r15
	mov %r15, GUEST_RESULTS
	mov $0xc0000080, %ecx
	rdmsr
	mov %eax, GUEST_RESULTS + 8
	mov %cr0, %rax
	mov %rax, GUEST_RESULTS + 16
	hlt

	/* All the way back: compatibility mode, paging off, LME off, real mode. */
	ljmp *to_compat(%rip)
to_compat:
	.long compat
	.word SEL_CODE16
	.code16
compat:
	mov $SEL_DATA16, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov $0xc0000080, %ecx
	rdmsr
	and $~0x100, %eax
	wrmsr
	mov %cr0, %eax
	and $~1, %eax
	mov %eax, %cr0
	ljmp $0, $real_again
real_again:
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	movl $0x4ea1, GUEST_RESULTS + 24
	hlt
