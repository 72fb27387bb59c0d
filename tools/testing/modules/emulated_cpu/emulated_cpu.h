/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of emulated_cpu.ko share. */
#ifndef EMULATED_CPU_H
#define EMULATED_CPU_H

/* Of no use to Linux. */
#define TEST_VECTOR 0x31

/* Where a parked CPU's code and data lie; Linux uses nothing of the first megabyte but its own
 * trampoline, which is higher. */
#define PARKED_BASE 0x60000
#define PARKED_MAILBOX (PARKED_BASE + 0x800)
#define PARKED_STACK (PARKED_BASE + 0x1000)
#define PARKED_IDT (PARKED_BASE + 0x1000)
#define PARKED_VMXON (PARKED_BASE + 0x2000)

#define MAILBOX_COMMAND 0
#define MAILBOX_INDEX 4
#define MAILBOX_LOW 8
#define MAILBOX_HIGH 12
#define MAILBOX_FAULTS 16
#define MAILBOX_STARTS 20
#define MAILBOX_NMIS 24
#define MAILBOX_INTERRUPTS 28
#define MAILBOX_FIRST_CR0 32

#define COMMAND_RDMSR 1
#define COMMAND_WRMSR 2
#define COMMAND_VMXON 3
#define COMMAND_VMXOFF 4
#define COMMAND_CR0 5
#define COMMAND_HALT 6
#define COMMAND_OPEN 7

#ifndef __ASSEMBLY__

void check(bool right, const char *what, ...) __printf(2, 3);
/* What the ICR is to be, in xAPIC mode; to a CPU by physical destination. */
void send(u32 destination, u32 what);
void send_to(unsigned int cpu, u32 what);

void check_parked_cpus(void);
void check_guest(unsigned int cpu);

#endif
#endif
