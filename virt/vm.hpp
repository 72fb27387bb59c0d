/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VM: memory slots, their mapping, its vCPUs. It lives until its file is closed and its last vCPU
 * is gone, whichever is later.
 */
#pragma once

#include "arch/x86/tsc_record.hpp"
#include "arch/x86/x2apic.hpp"
#include "clock.hpp"
#include "directed_yield.hpp"
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/owned.hpp"
#include "io_bus.hpp"
#include "irqchip/irqchip.hpp"
#include "irqchip/irqfd.hpp"
#include "memslots.hpp"
#include "mmu.hpp"
#include "vcpu_table.hpp"

#include <linux_glue/memory.h>

#include <atomic>

namespace kvmpp
{

class Vcpu;

class Vm
{
public:
	static constexpr u32 max_vcpus = VcpuTable::max_vcpus;

	/* For the current process. VMX is on when it returns one. May sleep. */
	static Result<Vm *> create() MAY_SLEEP;
	/* Drops the creator's, or a vCPU's, reference. May sleep. */
	void put() MAY_SLEEP;
	/* The last file of the VM is closed: no more ioctls come. Drops the creator's reference. May sleep. */
	void close() MAY_SLEEP;

	/* KVM_SET_USER_MEMORY_REGION with checked arguments. May sleep. */
	Result<> set_memory(const SlotRequest &request) EXCLUDES(slots_lock_, srcu_) MAY_SLEEP;
	/*
	 * KVM_GET_DIRTY_LOG to the VMM's @bitmap. Errno::inval where there can be no such slot,
	 * Errno::noent where it has no log, Errno::fault. May sleep.
	 */
	Result<> get_dirty_log(u32 slot, u64 bitmap) EXCLUDES(slots_lock_) MAY_SLEEP;
	/*
	 * KVM_CLEAR_DIRTY_LOG of @pages pages from @first on, by the VMM's @bitmap. Errors as above, and
	 * Errno::inval where the slot has no such pages. May sleep.
	 */
	Result<> clear_dirty_log(u32 slot, u64 first, u64 pages, u64 bitmap)
		EXCLUDES(slots_lock_) MAY_SLEEP;
	/*
	 * What guests have written until now is in the slots' logs, also where CPUs log it. Before a log is
	 * read, or begins. May sleep.
	 */
	void collect_page_logs() EXCLUDES(slots_lock_, vcpus_.lock) MAY_SLEEP;
	/* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 with its flags. Errno::inval. May sleep. */
	Result<> set_manual_dirty_log(u64 flags) EXCLUDES(slots_lock_) MAY_SLEEP;
	/* KVM_CREATE_VCPU: a descriptor. Errno::exist, Errno::inval, Errno::nomem. May sleep. */
	Result<int> create_vcpu(u32 id) EXCLUDES(vcpus_.lock) MAY_SLEEP;
	/* The last file of the vCPU is closed: frees it and its id, at once. May sleep. */
	void destroy_vcpu(Vcpu *vcpu) EXCLUDES(vcpus_.lock) MAY_SLEEP;

	/*
	 * KVM_CREATE_IRQCHIP, KVM_CAP_SPLIT_IRQCHIP: see Irqchip::create(). Errno::exist; Errno::inval where there
	 * are vCPUs, Errno::exist if split; Errno::nomem. May sleep.
	 */
	Result<> create_irqchip(Irqchip::Mode mode, u32 user_pins) EXCLUDES(vcpus_.lock) MAY_SLEEP;

	const VcpuTable &vcpus() const { return vcpus_; }
	/* @spinner, which the calling thread runs, spins: another may have its CPU. May sleep. */
	void yield_from(VcpuEntry &spinner) MAY_SLEEP { directed_yield_.yield(vcpus_, spinner); }
	bool belongs_to_current() const { return glue_mmu_notifier_is_current(notifier_); }
	Mmu &mmu() { return mmu_; }
	Srcu &srcu() RETURN_CAPABILITY(srcu_) { return srcu_; }
	/* For as long as the SrcuRead lasts. */
	const MemslotTable &slots(const SrcuRead &) const REQUIRES_SHARED(srcu_)
	{
		return *slots_.load(std::memory_order_acquire);
	}
	IoBus &io_bus() { return io_bus_; }
	VmClock &clock() { return clock_; }
	/* Null without one; one that is there stays for the VM's life, and all its vCPUs have it. */
	Irqchip *irqchip() const { return irqchip_.load(std::memory_order_acquire); }
	Irqfds &irqfds() { return irqfds_; }
	X2apicApi &x2apic_api() { return x2apic_api_; }
	ApicMap &apics() { return *apics_; }
	TscRecord &tsc() { return *tsc_; }
	/* Counted from the module's load; and who made it: for those who look from outside. */
	u32 id() const { return id_; }
	u32 process() const { return process_; }

	/*
	 * Linux takes the VMM's pages of [start, end) away between the two: the slots stay what they are.
	 */
	void invalidate_begin(u64 start, u64 end)
		EXCLUDES(slots_lock_, invalidate_lock_) WAITS_FOR_IPIS;
	void invalidate_end(u64 start, u64 end) EXCLUDES(slots_lock_, invalidate_lock_);
	/*
	 * Whether guests have used the VMM's pages in [start, end) since this was called last with
	 * @clear.
	 */
	bool is_young(u64 start, u64 end, bool clear) EXCLUDES(slots_lock_) WAITS_FOR_IPIS;

private:
	template <class T> friend class Owned;
	Vm() = default;
	~Vm();
	Result<> init();
	/*
	 * Makes @table the current one while no page is being taken away, and waits until nobody uses the one
	 * before, which it frees.
	 */
	void publish(Owned<MemslotTable> table) REQUIRES(slots_lock_)
		EXCLUDES(srcu_, invalidate_lock_) MAY_SLEEP;
	/* False, and nothing is done, if one is. */
	bool replace_slots(Owned<MemslotTable> &table) EXCLUDES(invalidate_lock_);
	/* The slot of this id, which has a log. Errno::inval, Errno::noent. */
	Result<const Memslot *> logged_slot(u32 id) const REQUIRES(slots_lock_);

	static constinit std::atomic<u32> made_;

	u32 id_ = 0;
	u32 process_ = 0;
	std::atomic<u32> references_{1};
	bool hardware_held_ = false;
	bool srcu_made_ = false;

	VcpuTable vcpus_;
	DirectedYield directed_yield_;

	Mutex slots_lock_ ACQUIRED_AFTER(vcpus_.lock) ACQUIRED_BEFORE(srcu_);
	/* KVM_DIRTY_LOG_MANUAL_*. */
	u64 manual_dirty_log_ GUARDED_BY(slots_lock_) = 0;
	/*
	 * How many times Linux is between invalidate_begin() and invalidate_end(); under the lock, but for those
	 * who wait.
	 */
	SpinLock invalidate_lock_;
	std::atomic<u32> invalidations_{0};
	/* Written under slots_lock_ and invalidate_lock_ with no invalidations, read under srcu_. */
	std::atomic<MemslotTable *> slots_{nullptr};
	Srcu srcu_;
	IoBus io_bus_{srcu_};

	X2apicApi x2apic_api_;
	/* Written once, under vcpus_.lock. */
	std::atomic<Irqchip *> irqchip_{nullptr};
	Irqfds irqfds_;

	/* Of its own, since dedicated CPUs see it. */
	Owned<ApicMap> apics_;
	Owned<TscRecord> tsc_;
	VmClock clock_{vcpus_};
	Mmu mmu_{vcpus_};
	glue_mmu_notifier *notifier_ = nullptr;
};

} // namespace kvmpp
