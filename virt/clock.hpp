/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The time that guests have by kvmclock: nanoseconds since the VM was made, or what KVM_SET_CLOCK has made of
 * it. Where Linux's TSCs are stable it is the host's TSC, scaled, from one moment on that all vCPUs have in
 * common, so that each of them tells the same time anywhere, on dedicated CPUs too.
 */
#pragma once

#include "arch/x86/kvmclock.hpp"
#include "arch/x86/tsc_record.hpp"
#include "arch/x86/vcpu_state.hpp"
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/guest_memory.hpp"
#include "vcpu_table.hpp"

#include <linux_glue/clock.h>

#include <atomic>

struct kvm_clock_data;

namespace kvmpp
{

/* What a vCPU's guest was told last. Its thread's, or whoever has its mutex. */
struct VcpuClock {
	bool counted = false;
	bool is_first = false; /* the bootstrap processor */
	u64 tsc_offset = 0;
	u32 tsc_generation = 0;
	u32 generation = 0;
	u32 sleeps = 0;
	u64 tsc_lost = 0;
};

class VmClock
{
public:
	/* @vcpus are those whose guests are to be told. */
	explicit VmClock(const VcpuTable &vcpus) : vcpus_(vcpus) {}
	VmClock(const VmClock &) = delete;
	VmClock &operator=(const VmClock &) = delete;
	/* It begins at 0, now. @tsc is what vCPUs' TSCs begin with. Errno::nomem. */
	Result<> create(TscRecord &tsc) MAY_SLEEP;

	/* A vCPU that is made, and whose TSC begins at the record's; and one that ends. */
	void add(VcpuClock &vcpu, u32 id, VcpuState &state) EXCLUDES(lock_) WAITS_FOR_IPIS;
	void remove(VcpuClock &vcpu) EXCLUDES(lock_) WAITS_FOR_IPIS;

	/* KVM_GET_CLOCK and KVM_SET_CLOCK. Errno::inval for unknown flags. */
	void get(kvm_clock_data &data) EXCLUDES(lock_);
	Result<> set(const kvm_clock_data &data) EXCLUDES(lock_) WAITS_FOR_IPIS;
	/* MSR_KVM_WALL_CLOCK */
	std::atomic<u64> &wall_clock() { return wall_clock_; }

	/*
	 * Before anything is done with a vCPU: what the host's TSC lost in a sleep is made up for, so that
	 * the guest's does not go back. Returns how much that is.
	 */
	u64 follow_sleep(VcpuClock &vcpu, VcpuState &state) EXCLUDES(lock_)
	{
		if (vcpu.tsc_lost == tsc_lost_.load(std::memory_order_relaxed)) [[likely]]
			return 0;
		return make_up_for_sleep(vcpu, state);
	}
	/* The vCPU's TSC may have been set. */
	void follow_tsc(VcpuClock &vcpu, u64 tsc_offset) EXCLUDES(lock_) WAITS_FOR_IPIS
	{
		if (vcpu.tsc_offset != tsc_offset) [[unlikely]]
			count_again(vcpu, tsc_offset);
	}
	/* Before each entry: whether its guest is to be told something, and telling it. */
	bool is_due(const VcpuClock &vcpu, const VcpuState &state) const
	{
		const GuestClock &clock = state.clock;

		return clock.changed || clock.wall_clock_changed ||
		       vcpu.tsc_offset != state.tsc_offset ||
		       vcpu.generation != generation_.load(std::memory_order_acquire) ||
		       vcpu.sleeps != sleeps_.load(std::memory_order_relaxed) ||
		       (clock.enabled() && !glue_tsc_stable());
	}
	void update(VcpuClock &vcpu, VcpuState &state, const GuestMemory &memory)
		EXCLUDES(lock_) MAY_SLEEP;

	/* The machine goes to sleep, and has slept: TSCs may have begun anew. On its only CPU, interrupts off. */
	static void machine_sleeps();
	static void machine_woke();

private:
	/* Both at one moment. */
	struct Moment {
		u64 tsc;
		u64 ns;
	};

	u64 at(const glue_clock &now) const REQUIRES(lock_);
	void count(VcpuClock &vcpu, u64 tsc_offset) REQUIRES(lock_);
	void uncount(VcpuClock &vcpu) REQUIRES(lock_);
	void begin(const glue_clock &now, u64 ns) REQUIRES(lock_);
	void follow_sleep() REQUIRES(lock_);
	u64 make_up_for_sleep(VcpuClock &vcpu, VcpuState &state) EXCLUDES(lock_);
	void count_again(VcpuClock &vcpu, u64 tsc_offset) EXCLUDES(lock_) WAITS_FOR_IPIS;
	/* Says it to all guests if the TSC is no longer what it was to them. */
	void settle() REQUIRES(lock_) WAITS_FOR_IPIS;
	void tell_all() REQUIRES(lock_) WAITS_FOR_IPIS;

	static constinit std::atomic<u32> sleeps_;
	/* By how much the host's TSC has gone back in sleeps, all in all; and what it was before the last. */
	static constinit std::atomic<u64> tsc_lost_, tsc_before_sleep_;

	const VcpuTable &vcpus_;
	kvmclock::TscScale scale_;
	std::atomic<u64> wall_clock_{0};
	/* Changes when guests are to be told. Written under lock_. */
	std::atomic<u32> generation_{0};

	SpinLock lock_;
	CpuMask cpus_ GUARDED_BY(lock_);
	Moment start_ GUARDED_BY(lock_) = {};
	/* From Linux's time since boot. */
	u64 offset_ GUARDED_BY(lock_) = 0;
	u32 slept_ GUARDED_BY(lock_) = 0;
	/* Of tsc_lost_, what the VM has made up for. */
	u64 made_up_ GUARDED_BY(lock_) = 0;
	TscRecord *tsc_ GUARDED_BY(lock_) = nullptr;
	/* The TSC's offset that was set last, and how many of the vCPUs have it. */
	u64 tsc_offset_ GUARDED_BY(lock_) = 0;
	u32 tsc_generation_ GUARDED_BY(lock_) = 0;
	u32 agreeing_ GUARDED_BY(lock_) = 0;
	u32 count_ GUARDED_BY(lock_) = 0;
	/* The bootstrap processor uses the MSRs of guests that do not know of flags. */
	bool old_msr_ GUARDED_BY(lock_) = false;
	/* What guests are told: one vCPU's time is that of all. */
	bool stable_ GUARDED_BY(lock_) = true;
};

} // namespace kvmpp
