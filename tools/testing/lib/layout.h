/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where things lie in the guests' memory. Plain macros, since the guests' assembly reads them too.
 *
 * The default memory of a test is the 640 KiB below 0xa0000; every address above is MMIO.
 */
#ifndef TOOLS_TESTING_LAYOUT_H
#define TOOLS_TESTING_LAYOUT_H

#define GUEST_IMAGE	0x1000	/* the assembled guest */
#define GUEST_RESULTS	0x7000	/* where a guest leaves what it saw, as 64-bit numbers */
#define GUEST_FAULT	0x7800	/* what its exception handler saw: struct Fault */
#define GUEST_STACK	0x9000	/* top of the supervisor stack */
#define GUEST_STACK_USER 0xa000	/* top of the user stack */
#define GUEST_GDT	0xa000
#define GUEST_IDT	0xb000
#define GUEST_TSS	0xc000
#define GUEST_TABLES	0x10000	/* page tables, up to 8 pages */
#define GUEST_SCRATCH	0x20000	/* free for the test's use, 128 KiB */
#define GUEST_MEMORY	0xa0000	/* the default memory's size */

#define GUEST_MMIO16	0xb8000		/* reachable from real mode */
#define GUEST_MMIO	0x10000000	/* reachable from protected and long mode */

/*
 * Selectors. The order of the user segments is what SYSRET and SYSEXIT demand: SYSRET takes
 * STAR[63:48] + 8 and + 16, SYSEXIT takes SYSENTER_CS + 16, + 24 (32-bit), + 32 and + 40 (64-bit).
 */
#define SEL_CODE64	0x08
#define SEL_DATA	0x10
#define SEL_UCODE32	0x18
#define SEL_UDATA	0x20
#define SEL_UCODE64	0x28
#define SEL_UDATA_	0x30
#define SEL_CODE32	0x38
#define SEL_TSS		0x40	/* two entries in long mode */
#define SEL_CODE16	0x50
#define SEL_DATA16	0x58
#define SEL_NOTPRESENT	0x60
#define GDT_ENTRIES	13

#endif
