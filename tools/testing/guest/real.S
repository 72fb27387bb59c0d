/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Real mode: ports, string I/O, HLT, far jumps, flags, a shutdown. Each entry is a guest of its
 * own and ends with HLT.
 */
#include "entry.h"

	.code16
	.text

/* Writes of all sizes, with the port in DX and in the instruction. */
entry out_sizes
	mov $0x44332211, %eax
	mov $0x1234, %dx
	outb %al, %dx
	outw %ax, %dx
	outl %eax, %dx
	outb %al, $0x80
	outw %ax, $0x80
	outl %eax, $0x80
	hlt

/* Reads, into EAX preset so that what a short read leaves alone can be seen. */
entry in_sizes
	mov $0x1234, %dx
	mov $0xaaaaaaaa, %eax
	inb %dx, %al
	mov %eax, GUEST_RESULTS
	mov $0xaaaaaaaa, %eax
	inw %dx, %ax
	mov %eax, GUEST_RESULTS + 8
	mov $0xaaaaaaaa, %eax
	inl %dx, %eax
	mov %eax, GUEST_RESULTS + 16
	mov $0xaaaaaaaa, %eax
	inb $0x60, %al
	mov %eax, GUEST_RESULTS + 24
	hlt

/* 16 bytes, 8 words, 4 double words from the result area upwards; then 4 bytes downwards. */
entry outs
	cld
	mov $0x70, %dx
	mov $GUEST_RESULTS, %si
	mov $16, %cx
	rep outsb
	mov $GUEST_RESULTS, %si
	mov $8, %cx
	rep outsw
	mov $GUEST_RESULTS, %si
	mov $4, %cx
	rep outsl
	hlt

entry outs_down
	std
	mov $0x70, %dx
	mov $GUEST_RESULTS + 3, %si
	mov $4, %cx
	rep outsb
	hlt

/* The reverse, to three places; and a lone INSB. */
entry ins
	cld
	mov $0x71, %dx
	mov $GUEST_RESULTS, %di
	mov $16, %cx
	rep insb
	mov $8, %cx
	rep insw
	mov $4, %cx
	rep insl
	insb
	hlt

/* No byte at all: no exit. */
entry outs_none
	xor %cx, %cx
	rep outsb
	hlt

entry halt
	hlt
entry halt_after
	mov $0x77, %al
	hlt
entry halt_after2

/* No interrupt table at all: the exception ends in a triple fault. */
entry triple
	lidt no_idt
	ud2
no_idt:
	.word 0
	.long 0

/* Real-mode interrupt through the vector table at 0. */
entry interrupt
	movw $interrupt_handler, 0x21 * 4
	movw $0, 0x21 * 4 + 2
	xor %bx, %bx
	int $0x21
	inc %bx
	hlt
interrupt_handler:
	mov $0x40, %bx
	iret

/* To CS 0x100, whose base is the image, and back by a far return. */
entry far
	xor %bx, %bx
	ljmp $0x100, $(far_there - 0x1000)
far_there:
	mov %cs, %ax
	mov %ax, GUEST_RESULTS
	inc %bx
	push $0
	push $far_back
	lret
far_back:
	mov %cs, %ax
	mov %ax, GUEST_RESULTS + 8
	inc %bx
	lcall $0x100, $(far_function - 0x1000)
	hlt
far_function:
	inc %bx
	lret

entry flags
	pushl $0x00000ad7
	popfl
	pushfl
	popl GUEST_RESULTS
	pushl $0x00240002
	popfl
	pushfl
	popl GUEST_RESULTS + 8
	pushl $2
	popfl
	hlt

/* The sum of the bytes 0x1800 .. 0x1fff, with all it needs within one page. */
entry one_page
	xor %eax, %eax
	xor %ebx, %ebx
	mov $0x1800, %si
1:	mov (%si), %bl
	add %ebx, %eax
	inc %si
	cmp $0x2000, %si
	jne 1b
	outl %eax, $0x80
	hlt

/* Counts until killed. */
entry spin
1:	incl GUEST_RESULTS
	jmp 1b

/* Keeps a sum over a counter, which goes wrong if ever a register is lost. EDI: rounds. */
entry sum
	xor %eax, %eax
	mov $1, %ecx
1:	add %ecx, %eax
	rol $1, %eax
	xor %ecx, %eax
	inc %ecx
	cmp %edi, %ecx
	jbe 1b
	hlt
