/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a parked CPU runs, copied to PARKED_BASE; and a guest that shares the kernel's address
 * space, with an IDT of its own.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>

#include <asm/asm-offsets.h>
#include <asm/unwind_hints.h>

#include "emulated_cpu.h"

#define AT(label) (PARKED_BASE + (label) - parked_code)
#define MAILBOX(field) (PARKED_MAILBOX + MAILBOX_##field)

	.section .rodata, "a"
	.code16
SYM_DATA_START(parked_code)
	cli
	mov %cs, %ax
	mov %ax, %ds
	lgdtl .Lgdt_register - parked_code
	lidtl .Lidt_register - parked_code
	mov %cr0, %eax
	mov %eax, PARKED_MAILBOX - PARKED_BASE + MAILBOX_FIRST_CR0
	or $0x21, %eax			/* PE, and NE for VMXON */
	mov %eax, %cr0
	ljmpl $8, $AT(.Lprotected)

	.code32
.Lprotected:
	mov $16, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $PARKED_STACK, %esp
	lock incl MAILBOX(STARTS)
.Lwait:
	pause
	mov MAILBOX(COMMAND), %ebx
	test %ebx, %ebx
	jz .Lwait
	mov MAILBOX(INDEX), %ecx
	mov MAILBOX(LOW), %eax
	mov MAILBOX(HIGH), %edx
	cmp $COMMAND_RDMSR, %ebx
	je .Lrdmsr
	cmp $COMMAND_WRMSR, %ebx
	je .Lwrmsr
	cmp $COMMAND_VMXON, %ebx
	je .Lvmxon
	cmp $COMMAND_VMXOFF, %ebx
	je .Lvmxoff
	cmp $COMMAND_CR0, %ebx
	je .Lcr0
	cmp $COMMAND_HALT, %ebx
	je .Lhalt
	/* COMMAND_OPEN */
	sti
	nop
	nop
	cli
.Ldone:
	mov %eax, MAILBOX(LOW)
	mov %edx, MAILBOX(HIGH)
	movl $0, MAILBOX(COMMAND)
	jmp .Lwait

.Lrdmsr:
	rdmsr
	jmp .Ldone
.Lwrmsr:
	wrmsr
	jmp .Ldone
.Lvmxon:
	mov %cr4, %ecx
	or $0x2000, %ecx
	mov %ecx, %cr4
	vmxon MAILBOX(LOW)
	jmp .Ldone
.Lvmxoff:
	/* what it is answered with may be the last that is seen of it */
	movl $0, MAILBOX(COMMAND)
	vmxoff
	jmp .Lwait
.Lcr0:
	mov %eax, %cr0
	jmp .Ldone
.Lhalt:
	sti
	hlt
	cli
	jmp .Ldone

/* Each with a place in the IDT of 8 bytes, which is made in C. */
.Lnmi:
	lock incl MAILBOX(NMIS)
	iret
.Lprotection:
	lock incl MAILBOX(FAULTS)
	add $4, %esp
	addl $2, (%esp)			/* RDMSR and WRMSR */
	iret
.Linterrupt:
	push %eax
	push %ecx
	push %edx
	lock incl MAILBOX(INTERRUPTS)
	xor %eax, %eax
	xor %edx, %edx
	mov $0x80b, %ecx		/* EOI, of x2APIC */
	wrmsr
	pop %edx
	pop %ecx
	pop %eax
	iret

	.balign 8
.Lgdt:
	.quad 0
	.quad 0x00cf9b000000ffff
	.quad 0x00cf93000000ffff
.Lgdt_register:
	.word 23
	.long AT(.Lgdt)
.Lidt_register:
	.word 2047
	.long PARKED_IDT
	.balign 4
SYM_DATA(parked_nmi, .long AT(.Lnmi))
SYM_DATA(parked_protection, .long AT(.Lprotection))
SYM_DATA(parked_interrupt, .long AT(.Linterrupt))
SYM_DATA_END_LABEL(parked_code, SYM_L_GLOBAL, parked_code_end)

	.text
	.code64
/* Says that it is there, and halts with interrupts enabled until the tests' comes; then VMCALL. */
SYM_CODE_START(guest_halts)
	ANNOTATE_NOENDBR
	UNWIND_HINT_FUNC
	lfence
	incl guest_there(%rip)
1:	cli
	cmpl $0, guest_interrupts + 4 * TEST_VECTOR(%rip)
	jne guest_calls
	sti
	hlt
SYM_INNER_LABEL(guest_halted, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	jmp 1b
SYM_INNER_LABEL(guest_calls, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	vmcall
	ud2
SYM_CODE_END(guest_halts)

/* A stub of 16 bytes for each vector: counts it in guest_interrupts, and EOI. */
	.balign 16
SYM_CODE_START(guest_vectors)
	ANNOTATE_NOENDBR
	vector = 0
	.rept 256
	.balign 16
	UNWIND_HINT_FUNC
	pushq $vector
	jmp .Lcount
	vector = vector + 1
	.endr
.Lcount:
	push %rax
	push %rbx
	mov 16(%rsp), %rax
	lea guest_interrupts(%rip), %rbx
	incl (%rbx, %rax, 4)
	mov guest_eoi(%rip), %rax
	movl $0, (%rax)
	pop %rbx
	pop %rax
	add $8, %rsp
	iretq
SYM_CODE_END(guest_vectors)

/* With the guest's registers in the end, when it has exited. */
SYM_FUNC_START_LOCAL(enter)
	mov $0x6c14, %eax		/* host RSP */
	vmwrite %rsp, %rax
	test %dil, %dil
	jnz 1f
	vmlaunch
	jmp 2f
1:	vmresume
2:	xor %eax, %eax
	RET
SYM_INNER_LABEL(guest_exits, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	UNWIND_HINT_FUNC
	mov $1, %eax
	RET
SYM_FUNC_END(enter)

/* bool enter_guest(bool resume): false if it failed. */
SYM_FUNC_START(enter_guest)
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	call enter
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	RET
SYM_FUNC_END(enter_guest)

/* An IRET to where it was called from, which ends the blocking of NMIs. */
SYM_CODE_START(iret_here)
	UNWIND_HINT_FUNC
	pop %rdx
	mov %rsp, %rcx
	mov %ss, %eax
	push %rax
	push %rcx
	pushfq
	mov %cs, %eax
	push %rax
	push %rdx
	iretq
SYM_CODE_END(iret_here)
