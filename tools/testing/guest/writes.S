/* SPDX-License-Identifier: GPL-2.0 */
/* Writes to devices, RCX times, in long mode: EAX to (RBX), or to port DX. */
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
