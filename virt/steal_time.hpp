/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Steal time: guests are told how long their vCPU's thread has waited for a CPU, and, for other vCPUs to see,
 * whether it waits now (struct kvm_steal_time of Linux).
 */
#pragma once

#include "arch/x86/vcpu_state.hpp"
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/guest_memory.hpp"

#include <linux_glue/sched.h>

namespace kvmpp
{

/* What a vCPU's guest was told last. Its thread's. */
class StealTime
{
public:
	/* The calling thread, which runs the vCPU, has waited since the guest was told. */
	bool has_grown(const VcpuState &state) const
	{
		return state.paravirtual.wants_steal_time() && glue_run_delay() != told_;
	}
	/* Where there is no memory nothing is told. May sleep. */
	void tell(VcpuState &state, const GuestMemory &memory) MAY_SLEEP;
	/*
	 * The thread is scheduled away and could go on. Told where the memory is there without waiting
	 * for it. Any context.
	 */
	void tell_preempted(const VcpuState &state, const GuestMemory &memory);

private:
	u64 told_ = 0;
	bool preempted_told_ = false;
};

} // namespace kvmpp
