/* SPDX-License-Identifier: GPL-2.0 */
/* The passage of a thread into a guest and back: FPU, segment registers, MSRs, accounting. */
#ifndef LINUX_GLUE_GUEST_H
#define LINUX_GLUE_GUEST_H

#include "base.h"

#include <generated/glue_sizes.h>

GLUE_BEGIN

/* Before the first guest and after the last one. 0 or -ENOMEM. */
int glue_guest_init(void) MAY_SLEEP;
void glue_guest_exit(void) MAY_SLEEP;

struct glue_guest_fpu;
/* May sleep; null when there is no memory. */
struct glue_guest_fpu *glue_guest_fpu_alloc(void) MAY_SLEEP;
void glue_guest_fpu_free(struct glue_guest_fpu *fpu) MAY_SLEEP;
/* The thread's FPU state becomes the guest's; Linux switches that one from then on. */
void glue_guest_fpu_enter(struct glue_guest_fpu *fpu);
void glue_guest_fpu_leave(struct glue_guest_fpu *fpu);
/* Brings the guest's FPU state into the registers if it is not there. Interrupts off. */
void glue_guest_fpu_restore(void) NEEDS_IRQS_OFF;

/*
 * What a VM exit does not bring back by itself of the thread that entered the guest. Saved before
 * the first entry after the thread was scheduled in, restored before it is scheduled away or
 * returns to user space.
 */
struct glue_thread_state {
	glue_u64 fs_base;
	glue_u64 gs_base; /* of user space */
	glue_u16 ds, es, fs, gs, ldt;
};
/* Interrupts off. */
void glue_thread_state_save(struct glue_thread_state *state) NEEDS_IRQS_OFF;
/* Interrupts off. GDT and TSS limits and the LDT come back with it. */
void glue_thread_state_restore(const struct glue_thread_state *state) NEEDS_IRQS_OFF;

/* Debug registers of the host, if it uses any: a VM exit leaves DR7 cleared. Interrupts off. */
void glue_debug_registers_restore(void) NEEDS_IRQS_OFF;

/* IA32_DEBUGCTL of the host, as it was before the entry: a VM exit clears it. Interrupts off. */
glue_u64 glue_debugctl(void) NEEDS_IRQS_OFF;
void glue_debugctl_restore(glue_u64 value) NEEDS_IRQS_OFF;

/*
 * Host perf events that must not count in the guest stop, and go on after the exit; PEBS, which
 * would write to the guest's addresses, among them. Interrupts off. Whether there are any, which stays so
 * while interrupts are off. An NMI of perf's between glue_perf_enter_guest() and VM entry brings the host's back, until
 * the next exit: nothing but the MSR-load areas of the VMCS would prevent it.
 */
int glue_perf_switches(void) NEEDS_IRQS_OFF;
void glue_perf_enter_guest(void) NEEDS_IRQS_OFF;
void glue_perf_leave_guest(void) NEEDS_IRQS_OFF;

/*
 * Around VM entry and VM exit, with interrupts off: RCU and the time accounting learn that this is
 * the guest. The timing part ends only after the interrupt that caused the exit was taken, so that
 * its tick is charged to the guest.
 */
void glue_guest_timing_enter(void) NEEDS_IRQS_OFF;
void glue_guest_timing_exit(void) NEEDS_IRQS_OFF;

/*
 * Enters through kvmpp_vmx_enter(), as seen by RCU. Its return value. Interrupts off.
 */
struct kvmpp_gprs;
int glue_vmx_enter(struct kvmpp_gprs *gprs, int launched) NEEDS_IRQS_OFF;

/* Hands the NMI or machine check that caused a VM exit to Linux's own handler. Interrupts off. */
void glue_deliver_nmi(void) NEEDS_IRQS_OFF;
void glue_deliver_machine_check(void) NEEDS_IRQS_OFF;

/*
 * Callbacks, kvmpp_vcpu_sched_out(context, preempted) and kvmpp_vcpu_sched_in(context), for when the
 * calling thread is scheduled away and comes back. Registered and removed by the thread itself, preemption on.
 */
struct glue_sched_notifier {
	glue_u64 opaque[4];
	void *context;
};
void glue_sched_notifier_register(struct glue_sched_notifier *notifier, void *context);
void glue_sched_notifier_unregister(struct glue_sched_notifier *notifier);

/*
 * Of the calling thread: while one of GLUE_WORK_FLAGS is set, something of Linux's is to be done before the next
 * entry: a signal, a reschedule, what waits for a return to user space. Looked at with interrupts off.
 */
const volatile glue_u64 *glue_thread_flags(void);
/* Does it. -EINTR when a signal is pending. May sleep. */
int glue_work_handle(void) MAY_SLEEP;
int glue_signal_pending(void);
/*
 * The calling thread's signal mask becomes @mask, less what cannot be blocked, until glue_signal_mask_leave().
 * The thread must not return to user space in between.
 */
void glue_signal_mask_enter(glue_u64 mask);
void glue_signal_mask_leave(void);
/* Gives the scheduler a chance to take this thread off a CPU that is going offline. Sleeps. */
void glue_wait_a_tick(void) MAY_SLEEP;

GLUE_END

#endif
