/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VMX operation on one CPU, and the VMCSs loaded there. Each CPU touches its own record only, with
 * interrupts off; others read its counters, which may be a moment old.
 */
#pragma once

#include "capabilities.hpp"
#include "controls.hpp"
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/list.hpp"
#include "include/kvmpp/owned.hpp"
#include "loaded_vmcs.hpp"

namespace kvmpp
{

class alignas(64) VmxCpu
{
public:
	/* Records for every CPU that may come. May sleep. Errno::nomem. */
	static Result<> create_all(u32 revision) MAY_SLEEP;
	static void destroy_all();
	static VmxCpu &here(const IrqOff &irq) REQUIRES(irqs_off) { return all_[irq.cpu().value]; }
	static const VmxCpu &of(CpuId cpu) { return all_[cpu.value]; }

	/*
	 * VMXON. True when it is on, also when it was on already. Else @refusal says why, and all
	 * is as it was: Errno::busy when CR4.VMXE is set by somebody else; Errno::io when this
	 * CPU's VMX is not @config's or VMXON fails.
	 */
	bool enable(const IrqOff &irq, const VmxConfig &config, Refusal &refusal)
		REQUIRES(irqs_off);
	/* Clears every VMCS loaded here, then VMXOFF. Does nothing when it is off already. */
	void disable(const IrqOff &irq) REQUIRES(irqs_off);

	/* Linux's values of the MSRs that a guest has had in the CPU. */
	void restore_host_msrs(bool syscall, bool tsc_aux) const;

	bool is_on() const { return on_; }
	unsigned loaded() const { return loaded_count_; }
	u64 clears(ClearCause cause) const { return clears_[static_cast<unsigned>(cause)]; }
	u64 enables() const { return enables_; }
	u64 disables() const { return disables_; }
	u64 exits(ExitReason reason) const { return exits_[static_cast<unsigned>(reason)]; }
	void count_exit(ExitReason reason)
	{
		if (auto i = static_cast<unsigned>(reason);
		    i < static_cast<unsigned>(ExitReason::count))
			exits_[i]++;
	}

private:
	friend class LoadedVmcs;

	static constinit VmxCpu *all_;

	Page vmxon_region_;
	bool on_ = false;
	List<LoadedVmcs, LoadedVmcs> loaded_;
	unsigned loaded_count_ = 0;
	LoadedVmcs *current_ = nullptr;
	/* Linux sets these once, when the CPU comes up. */
	u64 host_star_ = 0, host_lstar_ = 0, host_cstar_ = 0, host_syscall_mask_ = 0,
	    host_tsc_aux_ = 0;
	u64 clears_[clear_causes] = {};
	u64 enables_ = 0;
	u64 disables_ = 0;
	u64 exits_[static_cast<unsigned>(ExitReason::count)] = {};
};

} // namespace kvmpp
