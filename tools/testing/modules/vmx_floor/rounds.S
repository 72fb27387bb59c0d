/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A guest that executes CPUID for ever, and two loops that have it do so, each with unsigned int
 * rounds: 0, or how many were left when VM entry failed.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>

#include <asm/unwind_hints.h>

#define HOST_RSP 0x6c14
#define HOST_RIP 0x6c16
#define GUEST_RIP 0x681e
#define VM_EXIT_REASON 0x4402
#define VM_EXIT_INSTRUCTION_LEN 0x440c
#define EXIT_REASON_CPUID 10

	.text
	.code64
SYM_CODE_START(guest_cpuid)
	ANNOTATE_NOENDBR
	UNWIND_HINT_FUNC
1:	cpuid
	jmp 1b
SYM_CODE_END(guest_cpuid)

/* An exit comes to EXIT, with the stack as it is. */
.macro begin exit
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	push %rdi			/* rounds */
	mov $HOST_RSP, %eax
	vmwrite %rsp, %rax
	lea \exit(%rip), %rcx
	mov $HOST_RIP, %eax
	vmwrite %rcx, %rax
	vmlaunch
	jbe 1f
.endm

.macro end
1:	pop %rax
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	RET
.endm

/* Nothing else: the guest is at the same CPUID each time. */
SYM_FUNC_START(bare_rounds)
	begin bare_exit
SYM_INNER_LABEL(bare_exit, SYM_L_LOCAL)
	ANNOTATE_NOENDBR
	decq (%rsp)
	jz 1f
	vmresume
	end
SYM_FUNC_END(bare_rounds)
STACK_FRAME_NON_STANDARD_FP bare_rounds

/*
 * With what no hypervisor can leave out: the guest's registers are taken aside and given back, the
 * reason is looked at, and the guest goes on behind its instruction.
 */
SYM_FUNC_START(least_rounds)
	begin least_exit
SYM_INNER_LABEL(least_exit, SYM_L_LOCAL)
	ANNOTATE_NOENDBR
	mov %rbx, (registers + 0)(%rip)
	mov %rcx, (registers + 8)(%rip)
	mov %rdx, (registers + 16)(%rip)
	mov %rbp, (registers + 24)(%rip)
	mov %rsi, (registers + 32)(%rip)
	mov %rdi, (registers + 40)(%rip)
	mov %r8, (registers + 48)(%rip)
	mov %r9, (registers + 56)(%rip)
	mov %r10, (registers + 64)(%rip)
	mov %r11, (registers + 72)(%rip)
	mov %r12, (registers + 80)(%rip)
	mov %r13, (registers + 88)(%rip)
	mov %r14, (registers + 96)(%rip)
	mov %r15, (registers + 104)(%rip)
	mov %rax, (registers + 112)(%rip)
	mov $VM_EXIT_REASON, %eax
	vmread %rax, %rcx
	cmp $EXIT_REASON_CPUID, %ecx
	jne 1f
	mov $VM_EXIT_INSTRUCTION_LEN, %eax
	vmread %rax, %rcx
	mov $GUEST_RIP, %eax
	vmread %rax, %rdx
	add %rcx, %rdx
	vmwrite %rdx, %rax
	decq (%rsp)
	jz 1f
	mov (registers + 0)(%rip), %rbx
	mov (registers + 8)(%rip), %rcx
	mov (registers + 16)(%rip), %rdx
	mov (registers + 24)(%rip), %rbp
	mov (registers + 32)(%rip), %rsi
	mov (registers + 40)(%rip), %rdi
	mov (registers + 48)(%rip), %r8
	mov (registers + 56)(%rip), %r9
	mov (registers + 64)(%rip), %r10
	mov (registers + 72)(%rip), %r11
	mov (registers + 80)(%rip), %r12
	mov (registers + 88)(%rip), %r13
	mov (registers + 96)(%rip), %r14
	mov (registers + 104)(%rip), %r15
	mov (registers + 112)(%rip), %rax
	vmresume
	end
SYM_FUNC_END(least_rounds)
STACK_FRAME_NON_STANDARD_FP least_rounds

	.bss
	.balign 64
registers:
	.skip 15 * 8
