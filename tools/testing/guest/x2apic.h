/* SPDX-License-Identifier: GPL-2.0 */
/* The local APIC in x2APIC mode, for guests in long mode. */
#include "entry.h"

#define X2APIC_ID	0x802
#define X2APIC_TPR	0x808
#define X2APIC_EOI	0x80b
#define X2APIC_SVR	0x80f
#define X2APIC_ICR	0x830
#define X2APIC_LVT_TIMER 0x832
#define X2APIC_INITIAL	0x838
#define X2APIC_DIVIDE	0x83e

.macro wrmsr_imm msr, low
	mov $\msr, %ecx
	mov \low, %eax
	xor %edx, %edx
	wrmsr
.endm

/* On, and the APIC enabled. Takes RAX, RCX, RDX. */
.macro x2apic_mode
	mov $0x1b, %ecx
	rdmsr
	or $0xc00, %eax
	wrmsr
	wrmsr_imm X2APIC_SVR, $0x1ff
.endm
