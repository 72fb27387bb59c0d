/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One instruction each that reads or writes an address where no memory is, in long, protected and
 * real mode, followed by HLT. Registers are the test's: (R/E)BX and, in real mode, ES point there.
 */
#include "entry.h"

	.text

.macro access name, insn:vararg
entry \name
	\insn
entry \name\()_next
	hlt
.endm

	.code64
	access store_al, movb %al, (%rbx)
	access store_ah, movb %ah, (%rbx)
	access store_ax, movw %ax, (%rbx)
	access store_eax, movl %eax, (%rbx)
	access store_rax, movq %rax, (%rbx)
	access store_sil, movb %sil, (%rbx)
	access store_r9b, movb %r9b, (%rbx)
	access store_r9, movq %r9, (%rbx)
	access store_imm8, movb $0x5a, (%rbx)
	access store_imm16, movw $0x1234, (%rbx)
	access store_imm32, movl $0x12345678, (%rbx)
	access store_imm64, movq $-2, (%rbx)
	access store_disp8, movl %eax, 0x10(%rbx)
	access store_disp32, movl %eax, 0x1000(%rbx)
	access store_sib, movl %eax, 4(%rbx, %rdi, 8)
	access store_r12, movl %eax, (%r12)
	access store_r13, movl %eax, (%r13)
	access store_fs, movl %eax, %fs:0x20
	access store_rip, movl %eax, GUEST_MMIO(%rip)
	access store_imm_rip, movl $0x12345678, GUEST_MMIO + 8(%rip)
	access store_moffs8, movabs %al, GUEST_MMIO
	access store_moffs16, movabs %ax, GUEST_MMIO
	access store_moffs32, movabs %eax, GUEST_MMIO
	access store_moffs64, movabs %rax, GUEST_MMIO
	access store_addr32, movl %eax, (%ebx)

	access load_al, movb (%rbx), %al
	access load_ah, movb (%rbx), %ah
	access load_r9b, movb (%rbx), %r9b
	access load_sil, movb (%rbx), %sil
	access load_ax, movw (%rbx), %ax
	access load_eax, movl (%rbx), %eax
	access load_rax, movq (%rbx), %rax
	access load_r9d, movl (%rbx), %r9d
	access load_fs, movl %fs:0x20, %eax
	access load_rip, movq GUEST_MMIO(%rip), %rax
	access load_moffs8, movabs GUEST_MMIO, %al
	access load_moffs16, movabs GUEST_MMIO, %ax
	access load_moffs32, movabs GUEST_MMIO, %eax
	access load_moffs64, movabs GUEST_MMIO, %rax
	access load_own_base, movq (%rbx), %rbx
	access movzbw, movzbw (%rbx), %ax
	access movzbl, movzbl (%rbx), %eax
	access movzbq, movzbq (%rbx), %rax
	access movzwl, movzwl (%rbx), %eax
	access movzwq, movzwq (%rbx), %rax
	access movsbw, movsbw (%rbx), %ax
	access movsbl, movsbl (%rbx), %eax
	access movsbq, movsbq (%rbx), %rax
	access movswl, movswl (%rbx), %eax
	access movswq, movswq (%rbx), %rax
	access movslq, movslq (%rbx), %rax

/* From a device to (RDI), and from (RSI) to a port. */
	access copy_byte, movsb
	access input_byte, insb
	access output_byte, outsb

/* A loop as a driver has it: poll a status, write data. RCX times. */
entry driver
1:	mov 4(%rbx), %eax
	test $1, %al
	jz 1b
	mov %ecx, (%rbx)
	dec %ecx
	jnz 1b
	hlt

	.code32
	access p_store_al, movb %al, (%ebx)
	access p_store_ah, movb %ah, (%ebx)
	access p_store_ax, movw %ax, (%ebx)
	access p_store_eax, movl %eax, (%ebx)
	access p_store_imm32, movl $0x12345678, 8(%ebx)
	access p_store_moffs, movl %eax, GUEST_MMIO
	access p_store_es, movl %eax, %es:0x20
	access p_load_al, movb (%ebx), %al
	access p_load_ch, movb (%ebx), %ch
	access p_load_ax, movw (%ebx), %ax
	access p_load_eax, movl (%ebx), %eax
	access p_load_moffs, movl GUEST_MMIO, %eax
	access p_movzwl, movzwl (%ebx), %eax
	access p_movsbl, movsbl (%ebx), %eax
	access p_absolute, movl GUEST_MMIO + 4, %edx

	.code16
	access r_store_al, movb %al, %es:(%bx)
	access r_store_ax, movw %ax, %es:(%bx)
	access r_store_eax, movl %eax, %es:(%bx)
	access r_store_imm16, movw $0x1234, %es:2(%bx, %di)
	access r_store_moffs, movw %ax, %es:0x30
	access r_store_addr32, movl %eax, %es:4(%ebx)
	access r_load_al, movb %es:(%bx), %al
	access r_load_dh, movb %es:(%bx), %dh
	access r_load_ax, movw %es:(%bx), %ax
	access r_load_eax, movl %es:(%bx), %eax
	access r_load_moffs, movb %es:0x30, %al
	access r_movzbw, movzbw %es:(%bx), %ax
