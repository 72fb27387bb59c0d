/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Into the guest and back, on CPUs of Linux and on dedicated ones. HOST_RIP of a VMCS is where control
 * comes back: kvmpp_vmx_exit or kvmpp_dedicated_exit.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include <asm/alternative.h>
#include <asm/asm.h>
#include <asm/msr-index.h>
#include <asm/nospec-branch.h>
#include <asm/percpu.h>
#include <asm/unwind_hints.h>

/* struct kvmpp_gprs: 16 registers in the order of the encoding in instructions, and CR2. */
#define RAX_ 0x00
#define RCX_ 0x08
#define RDX_ 0x10
#define RBX_ 0x18
#define RBP_ 0x28
#define RSI_ 0x30
#define RDI_ 0x38
#define R8_  0x40
#define R9_  0x48
#define R10_ 0x50
#define R11_ 0x58
#define R12_ 0x60
#define R13_ 0x68
#define R14_ 0x70
#define R15_ 0x78
#define CR2_ 0x80

#define HOST_RSP_FIELD 0x6c14

/*
 * int kvmpp_vmx_enter(struct kvmpp_gprs *gprs, int launched)
 * int kvmpp_dedicated_enter(struct kvmpp_gprs *gprs, int launched, const u32 *asked)
 *
 * Loads the guest's registers, but for RSP, which is in the VMCS, enters, and stores them after the
 * exit; CR2 is one of them. 0 after a VM exit, 1 after VMfail or a fault of the instruction: the guest did not run.
 * Interrupts off; the VMCS is current on this CPU.
 *
 * On a dedicated CPU (\dedicated) the look whether somebody asks for the vCPU is in here: 2 where it is
 * so, and the guest did not run. From the look on an NMI may bring what it has missed. The handler
 * (dedicated/bare.cpp) sends whoever it interrupts in the window, of which VMLAUNCH and VMRESUME are the
 * end, to kvmpp_enter_out: nothing but registers has changed there, and RSP has not.
 */
.macro VMX_ENTER name exit dedicated
SYM_FUNC_START(\name)
	push %rbp
	push %rbx
	push %r12
	push %r13
	push %r14
	push %r15
	push %rdi

	mov $HOST_RSP_FIELD, %eax
	vmwrite %rsp, %rax

	/* Nobody has a page fault from here on; an NMI's handler restores it. */
	mov CR2_(%rdi), %r8
	mov %cr2, %r9
	cmp %r8, %r9
	je .Lcr2\@
	mov %r8, %cr2
.Lcr2\@:

	mov %rdi, %rax
	.if \dedicated
SYM_INNER_LABEL(kvmpp_enter_window, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	cmpl $0, (%rdx)
	jne kvmpp_enter_out
	.endif
	bt $0, %esi

	/* None of these changes the flags. */
	mov RCX_(%rax), %rcx
	mov RDX_(%rax), %rdx
	mov RBX_(%rax), %rbx
	mov RBP_(%rax), %rbp
	mov RSI_(%rax), %rsi
	mov RDI_(%rax), %rdi
	mov R8_(%rax), %r8
	mov R9_(%rax), %r9
	mov R10_(%rax), %r10
	mov R11_(%rax), %r11
	mov R12_(%rax), %r12
	mov R13_(%rax), %r13
	mov R14_(%rax), %r14
	mov R15_(%rax), %r15
	mov RAX_(%rax), %rax

	/* What other guests and the host left in CPU buffers; keeps CF. */
	CLEAR_CPU_BUFFERS

	jnc .Llaunch\@

	/* After an exit control comes back at \exit, with the stack as it is here. */
	UNWIND_HINT_SAVE
.Lresume\@:
	vmresume
	jmp .Lfailed\@
.Llaunch\@:
	vmlaunch
	.if \dedicated
SYM_INNER_LABEL(kvmpp_enter_window_end, SYM_L_GLOBAL)
	ANNOTATE_NOENDBR
	.endif
	jmp .Lfailed\@

	_ASM_EXTABLE(.Lresume\@, .Lfailed\@)
	_ASM_EXTABLE(.Llaunch\@, .Lfailed\@)

SYM_INNER_LABEL(\exit, SYM_L_GLOBAL)
	UNWIND_HINT_RESTORE
	ENDBR

	push %rax
	mov 8(%rsp), %rax
	pop RAX_(%rax)
	mov %rcx, RCX_(%rax)
	mov %rdx, RDX_(%rax)
	mov %rbx, RBX_(%rax)
	mov %rbp, RBP_(%rax)
	mov %rsi, RSI_(%rax)
	mov %rdi, RDI_(%rax)
	mov %r8, R8_(%rax)
	mov %r9, R9_(%rax)
	mov %r10, R10_(%rax)
	mov %r11, R11_(%rax)
	mov %r12, R12_(%rax)
	mov %r13, R13_(%rax)
	mov %r14, R14_(%rax)
	mov %r15, R15_(%rax)
	mov %cr2, %rcx
	mov %rcx, CR2_(%rax)
	xor %ebx, %ebx

.Lclear\@:
	/* Nothing of the guest's stays in a register, where speculation could use it. */
	xor %ecx, %ecx
	xor %edx, %edx
	xor %esi, %esi
	xor %edi, %edi
	xor %ebp, %ebp
	xor %r8d, %r8d
	xor %r9d, %r9d
	xor %r10d, %r10d
	xor %r11d, %r11d
	xor %r12d, %r12d
	xor %r13d, %r13d
	xor %r14d, %r14d
	xor %r15d, %r15d

	/* Before the first return after the exit: the guest may have trained the return stack. */
	FILL_RETURN_BUFFER %rax, RSB_CLEAR_LOOPS, X86_FEATURE_RSB_VMEXIT, \
		X86_FEATURE_RSB_VMEXIT_LITE
	.if !\dedicated
	/* "IBRS" that is not enhanced has to be written anew after a guest's mode, whatever it is. */
	ALTERNATIVE "jmp .Lno_ibrs\@", "", X86_FEATURE_KERNEL_IBRS
	mov $MSR_IA32_SPEC_CTRL, %ecx
	mov PER_CPU_VAR(x86_spec_ctrl_current), %eax
	mov PER_CPU_VAR(x86_spec_ctrl_current + 4), %edx
	wrmsr
.Lno_ibrs\@:
	.endif
	CLEAR_BRANCH_HISTORY_VMEXIT

	mov %ebx, %eax
	pop %rdi
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbx
	pop %rbp
	RET

.Lfailed\@:
	mov $1, %ebx
	jmp .Lclear\@
	.if \dedicated
SYM_INNER_LABEL(kvmpp_enter_out, SYM_L_GLOBAL)
	/* By IRET. */
	ANNOTATE_NOENDBR
	mov $2, %ebx
	jmp .Lclear\@
	.endif
SYM_FUNC_END(\name)
/* RBP is the guest's. */
STACK_FRAME_NON_STANDARD_FP \name
.endm

.section .noinstr.text, "ax"
VMX_ENTER kvmpp_vmx_enter, kvmpp_vmx_exit, 0

/* Bare, as dedicated_cpu.hpp says; where Linux sets no probes. */
.section .kprobes.text, "ax"
VMX_ENTER kvmpp_dedicated_enter, kvmpp_dedicated_exit, 1
