/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Instructions on memory, a few of each family that the host emulates, once in 64, 32 and 16-bit
 * code: (R/E)BX, DS:(R/E)SI and ES:(R/E)DI point to the memory. Each is followed by HLT. Of each
 * a table has its address, the flags that it leaves undefined, and its text; 0 ends the table.
 */
#include "entry.h"

#define AF	0x10
#define BT_FLAGS 0x894	/* OF, SF, AF, PF */

.macro form undefined, insn:vararg
	.text 0
9:	\insn
	hlt
	.text 1
	.2byte 9b
	.2byte \undefined
	.asciz "\insn"
.endm

.macro both_ways op, undefined, mem, long
	form \undefined, \op\()b %dl, \mem
	form \undefined, \op\()b %ah, \mem
	form \undefined, \op\()w %dx, \mem
	form \undefined, \op\()l %edx, \mem
	.if \long
	form \undefined, \op\()q %rdx, \mem
	form \undefined, \op\()b %r9b, \mem
	form \undefined, \op\()l %r9d, \mem
	.endif
.endm

.macro to_register op, undefined, mem, long
	form \undefined, \op\()b \mem, %ch
	form \undefined, \op\()b \mem, %al
	form \undefined, \op\()w \mem, %dx
	form \undefined, \op\()l \mem, %edx
	.if \long
	form \undefined, \op\()q \mem, %rdx
	form \undefined, \op\()l \mem, %r9d
	.endif
.endm

.macro with_immediate op, undefined, mem, long
	form \undefined, \op\()b $0x85, \mem
	form \undefined, \op\()w $-2, \mem
	form \undefined, \op\()w $0x1234, \mem
	form \undefined, \op\()l $-2, \mem
	form \undefined, \op\()l $0x92345678, \mem
	.if \long
	form \undefined, \op\()q $-2, \mem
	form \undefined, \op\()q $0x12345678, \mem
	.endif
.endm

.macro locked op, undefined, mem, long
	form \undefined, lock \op\()b %dl, \mem
	form \undefined, lock \op\()w $0x1234, \mem
	form \undefined, lock \op\()l %edx, \mem
	.if \long
	form \undefined, lock \op\()q $-2, \mem
	.endif
.endm

.macro one_operand op, mem, long
	form 0, \op\()b \mem
	form 0, \op\()w \mem
	form 0, \op\()l \mem
	form 0, lock \op\()l \mem
	.if \long
	form 0, \op\()q \mem
	.endif
.endm

.macro bits op, mem, long
	form BT_FLAGS, \op\()w %dx, \mem
	form BT_FLAGS, \op\()l %edx, \mem
	form BT_FLAGS, \op\()w $13, \mem
	form BT_FLAGS, \op\()l $31, \mem
	.if \long
	form BT_FLAGS, \op\()q %rdx, \mem
	form BT_FLAGS, \op\()q $45, \mem
	.endif
.endm

.macro string op, long
	.irp prefix, , rep
	form 0, \prefix \op\()b
	form 0, \prefix \op\()w
	form 0, \prefix \op\()l
	.if \long
	form 0, \prefix \op\()q
	.endif
	.endr
.endm

.macro string_compare op, long
	.irp prefix, , repe, repne
	form 0, \prefix \op\()b
	form 0, \prefix \op\()w
	form 0, \prefix \op\()l
	.if \long
	form 0, \prefix \op\()q
	.endif
	.endr
.endm

/* CMPXCHG8B takes RBX as a number: it has @other. */
.macro forms mem, other, long
	.irp op, add, adc, sub, sbb, cmp
	both_ways \op, 0, \mem, \long
	to_register \op, 0, \mem, \long
	with_immediate \op, 0, \mem, \long
	.endr
	.irp op, and, or, xor
	both_ways \op, AF, \mem, \long
	to_register \op, AF, \mem, \long
	with_immediate \op, AF, \mem, \long
	locked \op, AF, \mem, \long
	.endr
	.irp op, add, adc, sub, sbb
	locked \op, 0, \mem, \long
	.endr
	both_ways test, AF, \mem, \long
	with_immediate test, AF, \mem, \long
	both_ways mov, 0, \mem, \long
	to_register mov, 0, \mem, \long
	with_immediate mov, 0, \mem, \long
	both_ways xchg, 0, \mem, \long
	both_ways xadd, 0, \mem, \long
	both_ways cmpxchg, 0, \mem, \long
	form 0, lock cmpxchgl %edx, \mem
	form 0, lock xaddw %dx, \mem
	form 0, cmpxchg8b \other
	form 0, lock cmpxchg8b \other
	.irp op, inc, dec, not, neg
	one_operand \op, \mem, \long
	.endr
	.irp op, bt, bts, btr, btc
	bits \op, \mem, \long
	.endr
	form BT_FLAGS, lock btsl $5, \mem
	form 0, movzbw \mem, %dx
	form 0, movzbl \mem, %edx
	form 0, movzwl \mem, %edx
	form 0, movsbw \mem, %dx
	form 0, movsbl \mem, %edx
	form 0, movswl \mem, %edx
	form 0, movbew \mem, %dx
	form 0, movbel \mem, %edx
	form 0, movbew %dx, \mem
	form 0, movbel %edx, \mem
	.if \long
	form 0, movzbq \mem, %r9
	form 0, movzwq \mem, %rdx
	form 0, movsbq \mem, %rdx
	form 0, movswq \mem, %r9
	form 0, movslq \mem, %rdx
	form 0, movbeq \mem, %rdx
	form 0, movbeq %rdx, \mem
	.endif
	.irp op, movs, stos, lods
	string \op, \long
	.endr
	.irp op, cmps, scas
	string_compare \op, \long
	.endr
	.text 1
	.2byte 0
.endm

	.code64
	.text 1
entry forms64
	forms (%rbx), (%rsi), 1

	.code32
	.text 1
entry forms32
	forms (%ebx), (%esi), 0

	.code16
	.text 1
entry forms16
	forms (%bx), (%si), 0
