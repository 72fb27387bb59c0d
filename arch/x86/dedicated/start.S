/* SPDX-License-Identifier: GPL-2.0 */
/*
 * From SIPI to 64-bit mode: copied to a page below 1 MiB (virt/linux/dedicated.c), which runs it as real-mode
 * code at offset 0 of the segment that the SIPI names. It stands among the data: no Linux CPU runs it.
 */
#include <linux/linkage.h>
#include <asm/msr-index.h>
#include <asm/processor-flags.h>

#define CODE32 0x08
#define DATA   0x10
#define CODE64 0x18
#define AT(label) ((label) - kvmpp_start_code)
/* Offsets in kvmpp_start_parameters. */
#define CR3	 0
#define CR4	 4
#define EFER	 8
#define ENTRY	 16
#define ARGUMENT 24
#define STACK	 32

	.section .rodata, "a"
	.balign 16
	.globl kvmpp_start_code
kvmpp_start_code:
	.code16
	cli
	cld
	mov %cs, %ax
	mov %ax, %ds
	/* Where this is, for code that has no segment to say so. */
	xorl %ebx, %ebx
	mov %cs, %bx
	shll $4, %ebx

	lgdtl AT(.Lgdt_pointer)
	movl $(X86_CR0_PE | X86_CR0_ET), %eax
	movl %eax, %cr0
	ljmpl *AT(.Lcode32_pointer)

	.code32
.Lcode32:
	mov $DATA, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	leal AT(kvmpp_start_parameters)(%ebx), %ebp

	movl CR4(%ebp), %eax
	movl %eax, %cr4
	movl CR3(%ebp), %eax
	movl %eax, %cr3
	/* NX before the tables are used that have it. */
	movl $MSR_EFER, %ecx
	movl EFER(%ebp), %eax
	xorl %edx, %edx
	wrmsr
	movl $(X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_AM | X86_CR0_MP | X86_CR0_ET | X86_CR0_PE), %eax
	movl %eax, %cr0
	ljmpl *AT(.Lcode64_pointer)(%ebx)

	.code64
.Lcode64:
	movl %ebp, %ebp
	movq STACK(%rbp), %rsp
	movq ARGUMENT(%rbp), %rdi
	movq ENTRY(%rbp), %rax
	xorl %ebp, %ebp
	jmp *%rax

	.balign 8
.Lgdt:
	.quad 0
	.quad 0x00cf9b000000ffff /* CODE32: flat, 32 bits */
	.quad 0x00cf93000000ffff /* DATA */
	.quad 0x00af9b000000ffff /* CODE64 */
.Lgdt_end:

	/* struct start_parameters. Offsets become addresses in the copy. */
	.balign 8
	.globl kvmpp_start_parameters
kvmpp_start_parameters:
	.long 0, 0, 0, 0
	.quad 0, 0, 0
.Lcode32_pointer:
	.long AT(.Lcode32)
	.word CODE32, 0
.Lcode64_pointer:
	.long AT(.Lcode64)
	.word CODE64, 0
	.word 0
.Lgdt_pointer:
	.word .Lgdt_end - .Lgdt - 1
	.long AT(.Lgdt)
	.globl kvmpp_start_code_end
kvmpp_start_code_end:
