/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A vCPU's VMX side: its VMCS, its VPID, and the passage into the guest and back. Context of all:
 * the vCPU's own thread, or another holding its mutex; interrupts and preemption on.
 */
#pragma once

#include "capabilities.hpp"
#include "ept.hpp"
#include "exit.hpp"
#include "loaded_vmcs.hpp"
#include "vcpu_state.hpp"

#include <linux_glue/guest.h>

namespace kvmpp
{

enum class Entry {
	exited,  /* the guest ran, or was refused at entry: see the Exit */
	work,    /* Linux wants the thread first: a signal, a reschedule */
	vmx_off, /* this CPU is on its way out: wait a tick and try again, elsewhere */
	vmfail,  /* VMLAUNCH or VMRESUME failed; Exit::raw_reason is the VM-instruction error */
};

class VmxVcpu
{
public:
	VmxVcpu(const VmxConfig &config, Ept &ept) : config_(config), ept_(ept) {}
	VmxVcpu(const VmxVcpu &) = delete;
	VmxVcpu &operator=(const VmxVcpu &) = delete;
	~VmxVcpu();

	/* Errno::nomem. May sleep. */
	Result<> create() MAY_SLEEP;

	/* One entry and the exit after it. Errno::io when the VMCS cannot be used. */
	Result<Entry> enter(VcpuState &state, Exit &exit) MAY_SLEEP;
	/* Makes @groups of @state valid. Errno::intr when a signal came before VMX was on here. */
	Result<> fetch(VcpuState &state, Groups groups) MAY_SLEEP;
	/*
	 * The thread is scheduled away or returns to user space: its own state back. Interrupts
	 * off.
	 */
	void leave_guest(const IrqOff &irq, VcpuState &state) REQUIRES(irqs_off);

private:
	void set_up(ActiveVmcs &vmcs);
	void adopt_cpu(const IrqOff &irq, ActiveVmcs &vmcs) REQUIRES(irqs_off);
	void enter_guest(const IrqOff &irq, ActiveVmcs &vmcs, VcpuState &state) REQUIRES(irqs_off);
	void load_guest_msrs(const IrqOff &irq, VcpuState &state) REQUIRES(irqs_off);
	bool run(ActiveVmcs &vmcs, VcpuState &state, Exit &exit) REQUIRES(irqs_off);

	const VmxConfig &config_;
	Ept &ept_;
	LoadedVmcs vmcs_;
	Page msr_bitmap_;
	u16 vpid_ = 0;
	bool set_up_ = false;
	/* What of the host's state is in the VMCS, to be written when it changes. */
	u64 host_cr3_ = 0;
	u64 host_cr4_ = 0;
	/* The guest's segment state and MSRs are in the CPU, the thread's are here. */
	bool in_guest_state_ = false;
	bool syscall_msrs_loaded_ = false;
	glue_thread_state thread_{};
};

} // namespace kvmpp
