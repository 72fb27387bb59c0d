/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VMX operation on one CPU, and the VMCSs loaded there. Each CPU touches its own record only, with
 * interrupts off; others read its counters, which may be a moment old. An NMI after a crash reads its
 * own CPU's record at any instruction.
 *
 * A CPU is enabled or not: VMX may be used there. The module is exclusive: then an enabled CPU is in
 * VMX operation all the time. Or not: then only from the loading of a VMCS there until put().
 */
#pragma once

#include "capabilities.hpp"
#include "controls.hpp"
#include "exit.hpp"
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/list.hpp"
#include "include/kvmpp/owned.hpp"
#include "loaded_vmcs.hpp"

namespace kvmpp
{

class alignas(64) VmxCpu
{
public:
	/* Records for every CPU that may come; @config is kept. May sleep. Errno::nomem. */
	static Result<> create_all(const VmxConfig &config, bool exclusive) MAY_SLEEP;
	static void destroy_all();
	static VmxCpu &here(const IrqOff &irq) REQUIRES(irqs_off) { return all_[irq.cpu().value]; }
	static const VmxCpu &of(CpuId cpu) { return all_[cpu.value]; }

	/*
	 * True when the CPU is enabled, also when it was already. Else @refusal says why, and all
	 * is as it was: Errno::io when this CPU's VMX is not the configured one; when exclusive,
	 * also Errno::busy when CR4.VMXE is set by somebody else, and Errno::io when VMXON fails.
	 */
	bool enable(const IrqOff &irq, Refusal &refusal) REQUIRES(irqs_off);
	/* Clears every VMCS loaded here, then VMXOFF. Does nothing when it is off already. */
	void disable(const IrqOff &irq) REQUIRES(irqs_off);

	/*
	 * Before a VMCS is loaded: in VMX operation when it returns. Errno::again where the CPU is
	 * not enabled; when not exclusive, also Errno::busy and Errno::io as enable().
	 */
	Result<> get(const IrqOff &irq) REQUIRES(irqs_off)
	{
		return on_ ? Result<>() : get_slow(irq);
	}
	/* The thread that loaded VMCSs here leaves the CPU. Nothing when exclusive. */
	void put(const IrqOff &irq) REQUIRES(irqs_off);

	/*
	 * The kernel has crashed or reboots at once: VMCLEAR of all that is loaded here and VMXOFF,
	 * whatever this CPU was at. NMI context; nothing goes on after it.
	 */
	static void crash_here();

	/* Calls visit(LoadedVmcs &) for each one on this CPU. */
	template <class Visit> void for_each_loaded(const IrqOff &, Visit visit) REQUIRES(irqs_off)
	{
		loaded_.for_each(visit);
	}

	/* Linux's values of the MSRs that a guest has had in the CPU. */
	void restore_host_msrs(bool syscall, bool tsc_aux) const;

	/*
	 * What a dedicated CPU uses of its record, which nobody else does meanwhile: where to count an exit
	 * by its reason, and what VMXON wants.
	 */
	static u64 *exit_counters(CpuId cpu) { return all_[cpu.value].exits_; }
	static HostPhys vmxon_region(CpuId cpu) { return all_[cpu.value].vmxon_region_.phys(); }
	static constexpr std::size_t exit_counters_size = sizeof(u64) * exit_rows;

	void count_l1d_flush() { l1d_flushes_++; }
	u64 l1d_flushes() const { return l1d_flushes_; }
	bool is_on() const { return on_; }
	unsigned loaded() const { return loaded_count_; }
	u64 clears(ClearCause cause) const { return clears_[static_cast<unsigned>(cause)]; }
	u64 enables() const { return enables_; }
	u64 disables() const { return disables_; }
	u64 exits(ExitReason reason) const { return exits_[static_cast<unsigned>(reason)]; }
	/* By exit_row(). */
	void count_exit(unsigned row) { exits_[row]++; }

private:
	friend class LoadedVmcs;
	friend struct BrokenVmxon; /* of KUnit: makes VMXON fail */

	bool vmx_on(const IrqOff &irq, Refusal &refusal) REQUIRES(irqs_off);
	void vmx_off(const IrqOff &irq, ClearCause cause) REQUIRES(irqs_off);
	Result<> get_slow(const IrqOff &irq) REQUIRES(irqs_off);
	void link(LoadedVmcs &vmcs);
	void unlink(LoadedVmcs &vmcs);

	static constinit VmxCpu *all_;
	static constinit const VmxConfig *config_;
	static constinit bool exclusive_;

	Page vmxon_region_;
	bool enabled_ = false;
	bool on_ = false;
	List<LoadedVmcs, LoadedVmcs> loaded_;
	unsigned loaded_count_ = 0;
	LoadedVmcs *current_ = nullptr;
	/* Linux sets these when the CPU comes up. Read when VMX goes on. */
	u64 host_star_ = 0, host_lstar_ = 0, host_cstar_ = 0, host_syscall_mask_ = 0,
	    host_tsc_aux_ = 0;
	u64 clears_[clear_causes] = {};
	u64 enables_ = 0;
	u64 disables_ = 0;
	u64 l1d_flushes_ = 0;
	u64 exits_[exit_rows] = {};
};

} // namespace kvmpp
