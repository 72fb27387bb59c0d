/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The ways in and out of a CPU that Linux does not have. All of it is bare (dedicated_cpu.hpp), and in a
 * section where Linux sets no probes.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/nospec-branch.h>

	.section .kprobes.text, "ax"

/* Offsets in DedicatedMachine, and its selectors. */
#define GDT_POINTER 6
#define IDT_POINTER 22
#define CODE 0x10
#define DATA 0x18
#define TASK 0x20

/* void kvmpp_dedicated_start(DedicatedMachine *machine): from start.S, on the stack of the machine's. */
/* No function, to objtool: it has a far return in it. */
	.globl kvmpp_dedicated_start
kvmpp_dedicated_start:
	ENDBR
	lgdt GDT_POINTER(%rdi)
	lidt IDT_POINTER(%rdi)
	mov $DATA, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	xor %eax, %eax
	mov %eax, %fs
	mov %eax, %gs
	push $CODE
	lea 1f(%rip), %rax
	push %rax
	lretq
1:	mov $TASK, %eax
	ltr %ax
	call kvmpp_dedicated_main
	/* It does not come back. */
	ud2

/*
 * int kvmpp_dedicated_wait(const u32 *bell)
 *
 * Halts until *bell is not 0. An NMI that comes after the look and before HLT has ended goes to
 * kvmpp_wait_out.
 */
	.globl kvmpp_dedicated_wait
	.type kvmpp_dedicated_wait, @function
kvmpp_dedicated_wait:
	.globl kvmpp_wait_window
kvmpp_wait_window:
	ANNOTATE_NOENDBR
	cmpl $0, (%rdi)
	jne kvmpp_wait_out
	hlt
	.globl kvmpp_wait_window_end
kvmpp_wait_window_end:
	ANNOTATE_NOENDBR
	.globl kvmpp_wait_out
kvmpp_wait_out:
	ANNOTATE_NOENDBR
	RET
	.size kvmpp_dedicated_wait, . - kvmpp_dedicated_wait

/* void kvmpp_unblock_nmis(void): IRET to where it is anyway. */
	.globl kvmpp_unblock_nmis
	.type kvmpp_unblock_nmis, @function
kvmpp_unblock_nmis:
	mov %rsp, %rax
	push $DATA
	push %rax
	pushfq
	push $CODE
	lea 1f(%rip), %rax
	push %rax
	iretq
1:	RET
	.size kvmpp_unblock_nmis, . - kvmpp_unblock_nmis

/* void kvmpp_take_interrupts(void): STI holds them back for one instruction. */
	.globl kvmpp_take_interrupts
	.type kvmpp_take_interrupts, @function
kvmpp_take_interrupts:
	sti
	nop
	nop
	cli
	RET
	.size kvmpp_take_interrupts, . - kvmpp_take_interrupts

/* void kvmpp_fpu_save(void *image, u64 mask), void kvmpp_fpu_load(const void *image, u64 mask) */
	.globl kvmpp_fpu_save
	.type kvmpp_fpu_save, @function
kvmpp_fpu_save:
	test %rsi, %rsi
	jz 1f
	mov %esi, %eax
	xor %edx, %edx
	xsave64 (%rdi)
	RET
1:	fxsave64 (%rdi)
	RET
	.size kvmpp_fpu_save, . - kvmpp_fpu_save

	.globl kvmpp_fpu_load
	.type kvmpp_fpu_load, @function
kvmpp_fpu_load:
	test %rsi, %rsi
	jz 1f
	mov %esi, %eax
	xor %edx, %edx
	xrstor64 (%rdi)
	RET
1:	fxrstor64 (%rdi)
	RET
	.size kvmpp_fpu_load, . - kvmpp_fpu_load

.macro SAVE_REGISTERS
	push %rax
	push %rcx
	push %rdx
	push %rbx
	push %rbp
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
.endm

.macro RESTORE_REGISTERS
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rbp
	pop %rbx
	pop %rdx
	pop %rcx
	pop %rax
	/* vector, error code */
	add $16, %rsp
.endm

/* Calls \handler(TrapFrame *) on an aligned stack. */
.macro CALL_WITH_FRAME handler
	SAVE_REGISTERS
	mov %rsp, %rdi
	mov %rsp, %rbx
	and $~0xf, %rsp
	call \handler
	mov %rbx, %rsp
	RESTORE_REGISTERS
	iretq
.endm

	.balign 16
.Lexception:
	CALL_WITH_FRAME kvmpp_dedicated_exception
.Linterrupt:
	CALL_WITH_FRAME kvmpp_dedicated_interrupt

/*
 * An entry of 16 bytes for each vector. Of the exceptions, 8, 10 to 14, 17, 21, 29 and 30 come with an error
 * code.
 */
	.balign 16
	.globl kvmpp_dedicated_stubs
kvmpp_dedicated_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	ENDBR
	.if vector < 32
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
	push $0
	.endif
	push $vector
	jmp .Lexception
	.else
	push $0
	/* Sign-extended from 8 bits where it is above 127; the handler takes the low 8. */
	.byte 0x6a, vector
	jmp .Linterrupt
	.endif
	.set vector, vector + 1
	.endr

	.balign 16
	.globl kvmpp_dedicated_nmi_stub
kvmpp_dedicated_nmi_stub:
	ENDBR
	push $0
	push $2
	CALL_WITH_FRAME kvmpp_dedicated_nmi
