/* SPDX-License-Identifier: GPL-2.0 */
/* Writes to devices, in long mode: RCX times EAX to (RBX), or to port DX; or AL once, and an exit for port 0x80. */
#include "entry.h"

	.text
	.code64

entry store
1:	movl %eax, (%rbx)
	dec %rcx
	jnz 1b
	hlt

entry out
1:	outl %eax, %dx
	dec %rcx
	jnz 1b
	hlt

entry out_byte
	outb %al, %dx
	outb %al, $0x80
