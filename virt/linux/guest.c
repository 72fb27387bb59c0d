// SPDX-License-Identifier: GPL-2.0
#include <linux/context_tracking.h>
#include <linux/entry-kvm.h>
#include <linux/hw_breakpoint.h>
#include <linux/kvm_host.h>
#include <linux/perf_event.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vtime.h>

#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/fpu/api.h>
#include <asm/fpu/types.h>
#include <asm/fpu/xcr.h>
#include <asm/fsgsbase.h>
#include <asm/mce.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>
#include <asm/perf_event.h>
#include <asm/processor.h>
#include <asm/segment.h>
#include <asm/special_insns.h>

#include <linux_glue/dedicated.h>
#include <linux_glue/entries.h>
#include <linux_glue/guest.h>

#include "compat.h"

#ifdef CONFIG_X86_FRED
#error "glue_deliver_nmi() uses INT 2, which FRED does not deliver as an NMI"
#endif

/* In arch/x86/entry.S. */
int kvmpp_vmx_enter(struct kvmpp_gprs *gprs, int launched);

/* Where Linux notes a signal that ends KVM_RUN: KVM's structures of a vCPU, which nobody reads here. */
static struct {
	struct kvm_vcpu vcpu;
	struct kvm_run run;
} *signals;

int glue_guest_init(void)
{
	signals = kvzalloc(sizeof(*signals), GFP_KERNEL);
	if (!signals)
		return -ENOMEM;
	signals->vcpu.run = &signals->run;
	return 0;
}

void glue_guest_exit(void)
{
	kvfree(signals);
}

struct glue_guest_fpu {
	struct fpu_guest fpu;
};

struct glue_guest_fpu *glue_guest_fpu_alloc(void)
{
	struct glue_guest_fpu *fpu = kzalloc(sizeof(*fpu), GFP_KERNEL_ACCOUNT);

	if (fpu && !fpu_alloc_guest_fpstate(&fpu->fpu)) {
		kfree(fpu);
		return NULL;
	}
	return fpu;
}

void glue_guest_fpu_free(struct glue_guest_fpu *fpu)
{
	fpu_free_guest_fpstate(&fpu->fpu);
	kfree(fpu);
}

void glue_guest_fpu_enter(struct glue_guest_fpu *fpu)
{
	fpu_swap_kvm_fpstate(&fpu->fpu, true);
}

void glue_guest_fpu_leave(struct glue_guest_fpu *fpu)
{
	fpu_swap_kvm_fpstate(&fpu->fpu, false);
}

void glue_guest_fpu_restore(void)
{
	if (test_thread_flag(TIF_NEED_FPU_LOAD))
		switch_fpu_return();
}

void glue_guest_fpu_save(struct glue_guest_fpu *fpu, void *image, glue_u64 features)
{
	fpu_copy_guest_fpstate_to_uabi(&fpu->fpu, image, PAGE_SIZE, features, 0);
}

int glue_guest_fpu_load(struct glue_guest_fpu *fpu, const void *image, glue_u64 features)
{
	u32 pkru;

	return fpu_copy_uabi_to_guest_fpstate(&fpu->fpu, image, features, &pkru);
}

void glue_thread_state_save(struct glue_thread_state *state)
{
	current_save_fsgs();
	state->fs_base = current->thread.fsbase;
	state->gs_base = current->thread.gsbase;
	savesegment(ds, state->ds);
	savesegment(es, state->es);
	savesegment(fs, state->fs);
	savesegment(gs, state->gs);
	/* Without FSGSBASE Linux keeps no base of a selector that is not null: it reloads it. */
	if (state->fs && !boot_cpu_has(X86_FEATURE_FSGSBASE))
		rdmsrl(MSR_FS_BASE, state->fs_base);
	if (state->gs && !boot_cpu_has(X86_FEATURE_FSGSBASE))
		rdmsrl(MSR_KERNEL_GS_BASE, state->gs_base);
	asm volatile("sldt %0" : "=m"(state->ldt));
}

void glue_thread_state_restore(const struct glue_thread_state *state)
{
	/*
	 * A VM exit loads null selectors, an unusable LDTR and limits of its own. Bases of FS and
	 * of user space's GS come after the selectors, since loading a selector changes the base.
	 */
	load_fixmap_gdt(smp_processor_id());
	invalidate_tss_limit();
	if (state->ldt)
		asm volatile("lldt %0" : : "m"(state->ldt));
	if (state->ds | state->es) {
		loadsegment(ds, state->ds);
		loadsegment(es, state->es);
	}
	if (state->fs) {
		loadsegment(fs, state->fs);
		wrmsrl(MSR_FS_BASE, state->fs_base);
	}
	if (state->gs)
		load_gs_index(state->gs);
	wrmsrl(MSR_KERNEL_GS_BASE, state->gs_base);
}

void glue_debug_registers_restore(void)
{
	if (hw_breakpoint_active())
		hw_breakpoint_restore();
}

glue_u64 glue_debugctl(void)
{
	return get_debugctlmsr();
}

void glue_debugctl_restore(glue_u64 value)
{
	if (value)
		update_debugctlmsr(value);
}

/* An NMI of perf's may stop an event meanwhile, but starts none. */
int glue_perf_switches(void)
{
	int count;
	struct perf_guest_switch_msr *msrs = perf_guest_get_msrs(&count, NULL);

	for (int i = 0; msrs && i < count; i++)
		if (msrs[i].guest != msrs[i].host)
			return 1;
	return 0;
}

void glue_perf_enter_guest(void)
{
	int count;
	struct perf_guest_switch_msr *msrs = perf_guest_get_msrs(&count, NULL);

	for (int i = 0; msrs && i < count; i++)
		if (msrs[i].guest != msrs[i].host)
			wrmsrl(msrs[i].msr, msrs[i].guest);
}

void glue_perf_leave_guest(void)
{
	int count;
	struct perf_guest_switch_msr *msrs = perf_guest_get_msrs(&count, NULL);

	for (int i = 0; msrs && i < count; i++)
		if (msrs[i].guest != msrs[i].host)
			wrmsrl(msrs[i].msr, msrs[i].host);
}

void glue_guest_timing_enter(void)
{
	vtime_account_guest_enter();
	/* Where RCU does not follow each entry, it has this one. */
	if (!context_tracking_enabled_this_cpu())
		compat_note_context_switch();
}

void glue_guest_timing_exit(void)
{
	vtime_account_guest_exit();
}

/* What the guest taught the branch predictor is not for the VMM to follow. */
static __always_inline bool notes_guests_for_ibpb(void)
{
#ifdef X86_FEATURE_IBPB_EXIT_TO_USER
	return cpu_feature_enabled(X86_FEATURE_IBPB_EXIT_TO_USER);
#else
	return false;
#endif
}

static noinstr noinline int enter_noted(struct kvmpp_gprs *gprs, int launched)
{
	int failed;

	/* A guest is to RCU what user space is: a quiescent state, for as long as it lasts. */
	(void)context_tracking_guest_enter();
	failed = kvmpp_vmx_enter(gprs, launched);
#ifdef X86_FEATURE_IBPB_EXIT_TO_USER
	if (notes_guests_for_ibpb())
		this_cpu_write(x86_ibpb_exit_to_user, true);
#endif
	context_tracking_guest_exit();
	return failed;
}

noinstr int glue_vmx_enter(struct kvmpp_gprs *gprs, int launched)
{
	if (context_tracking_enabled() || notes_guests_for_ibpb())
		return enter_noted(gprs, launched);
	return kvmpp_vmx_enter(gprs, launched);
}

void glue_deliver_nmi(void)
{
	/* Through Linux's own gate; its IRET also ends the blocking of NMIs that the exit left. */
	asm volatile("int $2");
}

void glue_deliver_machine_check(void)
{
#ifdef CONFIG_X86_MCE
	/* As from user space: not the kernel but the guest consumed what was bad. */
	struct pt_regs regs = {.cs = 3, .flags = X86_EFLAGS_IF};

	do_machine_check(&regs);
#endif
}

static void sched_in(struct preempt_notifier *notifier, int cpu)
{
	struct glue_sched_notifier *glue =
		container_of((void *)notifier, struct glue_sched_notifier, opaque);

	kvmpp_vcpu_sched_in(glue->context);
}

static void sched_out(struct preempt_notifier *notifier, struct task_struct *next)
{
	struct glue_sched_notifier *glue =
		container_of((void *)notifier, struct glue_sched_notifier, opaque);

	kvmpp_vcpu_sched_out(glue->context, compat_task_is_runnable(current));
}

static struct preempt_ops preempt_ops = {
	.sched_in = sched_in,
	.sched_out = sched_out,
};

void glue_sched_notifier_register(struct glue_sched_notifier *glue, void *context)
{
	struct preempt_notifier *notifier = (struct preempt_notifier *)glue->opaque;

	BUILD_BUG_ON(sizeof(*notifier) > sizeof(glue->opaque));
	glue->context = context;
	preempt_notifier_init(notifier, &preempt_ops);
	preempt_notifier_register(notifier);
}

void glue_sched_notifier_unregister(struct glue_sched_notifier *glue)
{
	preempt_notifier_unregister((struct preempt_notifier *)glue->opaque);
}

const volatile glue_u64 *glue_thread_flags(void)
{
	BUILD_BUG_ON(sizeof(current_thread_info()->flags) != sizeof(glue_u64));
	return (const volatile glue_u64 *)&current_thread_info()->flags;
}

int glue_work_handle(void)
{
	return xfer_to_guest_mode_handle_work(&signals->vcpu);
}

void glue_signal_mask_enter(glue_u64 mask)
{
	sigset_t set;

	BUILD_BUG_ON(sizeof(set) != sizeof(mask));
	memcpy(&set, &mask, sizeof(set));
	sigdelsetmask(&set, sigmask(SIGKILL) | sigmask(SIGSTOP));
	/* As sigtimedwait(): what the old mask blocks is not to wake other threads either. */
	sigprocmask(SIG_SETMASK, &set, &current->real_blocked);
}

void glue_signal_mask_leave(void)
{
	sigprocmask(SIG_SETMASK, &current->real_blocked, NULL);
	sigemptyset(&current->real_blocked);
}

int glue_signal_pending(void)
{
	return signal_pending(current);
}

void glue_wait_a_tick(void)
{
	schedule_timeout_uninterruptible(1);
}
