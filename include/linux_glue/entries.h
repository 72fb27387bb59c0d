/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The way up: every function of the C++ that virt/linux/ calls. Each is extern "C", takes opaque
 * objects, and returns 0 or a negative errno where it returns an int or a long.
 */
#ifndef LINUX_GLUE_ENTRIES_H
#define LINUX_GLUE_ENTRIES_H

#include "base.h"

GLUE_BEGIN

struct glue_text;

/* Module in and out. May sleep. */
int kvmpp_init(void);
void kvmpp_exit(void);

/* CPU hotplug, on the CPU itself, in its hotplug thread, interrupts on. */
int kvmpp_cpu_online(int cpu);
int kvmpp_cpu_offline(int cpu);

/*
 * A CPU is about to come online: an errno refuses it. Under cpus_write_lock. And an NMI, on an online
 * CPU: how many causes of it were ours; NMI context.
 */
int kvmpp_cpu_prepare(int cpu);
int kvmpp_nmi(int cpu);
/* The same for one that nobody has claimed. */
int kvmpp_unclaimed_nmi(int cpu);
/* CPUs come back to Linux before the machine sleeps, and none is taken until it woke. May sleep. */
void kvmpp_machine_sleeps(void);
void kvmpp_machine_woke(void);

/*
 * The machine goes to sleep or comes back: this CPU, the only one online, interrupts off. Or it
 * goes down, for a reboot, power-off or kexec: process context.
 */
void kvmpp_syscore_suspend(void);
void kvmpp_syscore_resume(void);
void kvmpp_machine_down(void);
/* The kernel has crashed, or the machine reboots at once: this CPU stops. NMI context. */
void kvmpp_crash(void);

/* ioctls. Process context. */
long kvmpp_device_ioctl(unsigned int command, unsigned long argument);
long kvmpp_vm_ioctl(void *vm, unsigned int command, unsigned long argument);
long kvmpp_vcpu_ioctl(void *vcpu, unsigned int command, unsigned long argument);
/* The page of a vCPU's shared area at @index, or null where there is none. */
void *kvmpp_vcpu_page(void *vcpu, unsigned long index);
void kvmpp_vm_release(void *vm);
void kvmpp_vcpu_release(void *vcpu);

/*
 * The thread that runs the vCPU is scheduled away, @preempted if it could have gone on; and it has a
 * CPU again. Interrupts off.
 */
void kvmpp_vcpu_sched_out(void *vcpu, int preempted);
void kvmpp_vcpu_sched_in(void *vcpu);

/* The MMU notifier of a VM. May not sleep when @context's notifier is not blockable. */
void kvmpp_mmu_invalidate_begin(void *vm, glue_u64 start, glue_u64 end);
void kvmpp_mmu_invalidate_end(void *vm, glue_u64 start, glue_u64 end);
/* Whether [start, end) was used since it was asked last with @clear. Any context that takes IPIs. */
int kvmpp_mmu_young(void *vm, glue_u64 start, glue_u64 end, int clear);

void kvmpp_show_cpus(struct glue_text *text);
void kvmpp_show_stats(struct glue_text *text);
void kvmpp_show_dedicated(struct glue_text *text);
void kvmpp_show_exits(struct glue_text *text);

GLUE_END

#endif
