/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A vCPU's VMX side: its VMCSs, its VPID, and the passage into the guest and back. Context of all:
 * the vCPU's own thread, or another holding its mutex; interrupts and preemption on.
 */
#pragma once

#include "capabilities.hpp"
#include "ept.hpp"
#include "handlers.hpp"
#include "include/kvmpp/kick.hpp"
#include "vcpu_state.hpp"
#include "vmcs_pool.hpp"
#include "vmcs_setup.hpp"

#include <linux_glue/guest.h>

namespace kvmpp
{

struct DedicatedRun;
class Irqchip;
class Lapic;

enum class Entry {
	exited, /* the guest ran, or was refused at entry: see the Next, by handle_bare(), and the Exit */
	interrupted, /* the guest ran, until an interrupt of the host's, which has been taken */
	work,        /* Linux wants the thread first: a signal, a reschedule */
	vmx_off,     /* this CPU is on its way out: wait a tick and try again, elsewhere */
	asked,       /* it was asked to come out, and to look where it is to run, or at its APIC */
	vmfail,      /* VMLAUNCH or VMRESUME failed; Exit::raw_reason is the VM-instruction error */
};

class VmxVcpu
{
public:
	VmxVcpu(const VmxConfig &config, Ept &ept) : config_(config), ept_(ept) {}
	VmxVcpu(const VmxVcpu &) = delete;
	VmxVcpu &operator=(const VmxVcpu &) = delete;
	[[gnu::cold]] ~VmxVcpu();

	/* Errno::nomem. May sleep. */
	[[gnu::cold]] Result<> create(const VmcsOwner &owner) MAY_SLEEP;

	/*
	 * Into the guest, until an exit that needs more than handle_bare(), or Linux wants the thread; @kick is
	 * where others reach the vCPU. Errno::io when the VMCS cannot be used; Errno::busy when the module is
	 * not exclusive and another hypervisor is in VMX operation here.
	 */
	Result<Entry> enter(VcpuState &state, const VcpuIdentity &identity, Exit &exit, Next &next,
			    KickTarget &kick) MAY_SLEEP;
	/*
	 * Makes @groups of @state valid. Errno::intr when a signal came before VMX was on here;
	 * else as enter().
	 */
	Result<> fetch(VcpuState &state, Groups groups) MAY_SLEEP
	{
		return (groups - state.valid).empty() ? Result<>() : fetch_invalid(state, groups);
	}
	bool has_preemption_timer() const { return config_.has_preemption_timer(); }
	/*
	 * It has a local APIC in the kernel, before the first entry. What the guest writes there is done with
	 * interrupts off, on the way back into the guest, where Irqchip::write_at_once() can do that. And when
	 * LapicTimer::tsc_target() has come the guest comes out, by ExitReason::preemption_timer; no earlier,
	 * but it may come out for no reason.
	 */
	void use_apic(Lapic &lapic, Irqchip &irqchip)
	{
		lapic_ = &lapic;
		irqchip_ = &irqchip;
	}
	/* The thread has been at what is not the guest's, and may have left some of it in the L1 data cache. */
	void flush_l1d_at_entry() { l1d_flush_due_ = true; }
	/*
	 * The thread is scheduled away or returns to user space: its own state back, and VMX off
	 * where it was on for this thread only. Interrupts off.
	 */
	void leave_guest(const IrqOff &irq, VcpuState &state) REQUIRES(irqs_off);

	/*
	 * The vCPU goes to a dedicated CPU: all of @state is valid, its VMCS on no CPU, and @run has what
	 * is needed to enter with it; run.passthrough says whether with the CPU's APIC. Errno::nomem, or
	 * as fetch().
	 */
	[[gnu::cold]] Result<> lend(VcpuState &state, DedicatedRun &run) MAY_SLEEP;
	/* And back, after that CPU has let go of it. */
	[[gnu::cold]] void take_back(VcpuState &state, DedicatedRun &run);
	/* What the CPU has logged as the guest ran last, and nobody has taken yet: visit(frame). */
	static bool has_page_log(const VcpuState &state) { return state.pml_first < pml_entries; }
	template <class Visit> void take_page_log(VcpuState &state, Visit visit)
	{
		for (; state.pml_first < pml_entries; state.pml_first++)
			visit(page_log_.as<u64>()[state.pml_first] >> page_shift);
	}
	/* The memory of the VMCS's record, which that CPU has to see. */
	const VcpuVmcs *lent_vmcs() { return &vmcss_.current(); }

private:
	Result<> fetch_invalid(VcpuState &state, Groups groups) MAY_SLEEP;
	VmcsControls controls(const VcpuState &state) const;
	void enter_guest(const IrqOff &irq, VcpuState &state) REQUIRES(irqs_off);
	void load_guest_msrs(const IrqOff &irq, VcpuState &state) REQUIRES(irqs_off);
	void set_preemption_timer(ActiveVmcs &vmcs);
	bool write_apic(const IrqOff &irq, VcpuState &state) REQUIRES(irqs_off);
	void do_what_is_due(const IrqOff &irq, ActiveVmcs &vmcs, VcpuState &state)
		REQUIRES(irqs_off);
	int enter_with_care(VmxCpu &here, bool perf_switches, ActiveVmcs &vmcs, VcpuState &state)
		REQUIRES(irqs_off);
	Next take_exit(VmxCpu &here, ActiveVmcs &vmcs, VcpuState &state,
		       const VcpuIdentity &identity, Exit &exit) REQUIRES(irqs_off);
	Entry run(const IrqOff &irq, ActiveVmcs &vmcs, VcpuState &state,
		  const VcpuIdentity &identity, Exit &exit, Next &next, KickTarget &kick)
		REQUIRES(irqs_off);

	const VmxConfig &config_;
	Ept &ept_;
	/* Null without one in the kernel. */
	Lapic *lapic_ = nullptr;
	Irqchip *irqchip_ = nullptr;
	VmcsPool vmcss_;
	Page msr_bitmap_;
	Page x2apic_bitmap_;
	/* None without page-modification logging. The CPU's, while the guest runs. */
	Page page_log_;
	u16 vpid_ = 0;
	/* Where it ran last, with whichever VMCS: what other CPUs cache of the guest may be old. */
	CpuId last_cpu_;
	/* The guest's segment state and MSRs are in the CPU, the thread's are here. */
	bool in_guest_state_ = false;
	bool syscall_msrs_loaded_ = false;
	bool l1d_flush_due_ = true;
	/* The VMCS's preemption timer has another value than the longest. */
	bool timer_runs_ = false;
	glue_thread_state thread_{};
};

} // namespace kvmpp
