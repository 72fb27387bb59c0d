/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The vCPUs of a VM by id, for readers that take no lock. They come and go under the readers' feet;
 * what a reader found stays in memory until it leaves RCU. An array, since to walk a list costs a
 * cache line for each vCPU.
 */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/kick.hpp"
#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/types.hpp"
#include "logged_run.hpp"

#include <linux_glue/sched.h>

#include <atomic>

namespace kvmpp
{

class Lapic;

/* The name of a thread that ran a vCPU, for as long as somebody may look at it. */
struct VcpuThread : RcuHead {
	/* The calling thread. */
	VcpuThread() : pid(glue_pid_of_current()) {}
	~VcpuThread() { glue_pid_put(pid); }
	VcpuThread(const VcpuThread &) = delete;
	VcpuThread &operator=(const VcpuThread &) = delete;

	glue_pid *const pid;
};

/*
 * What the other vCPUs see of one. It is the vCPU's, and outlives it by a grace period: the rest of
 * the vCPU, whose end takes IPIs, is gone by then.
 */
class VcpuEntry : public RcuHead
{
public:
	/* Here, since whoever wants something of it finds it in the table. */
	KickTarget kick;
	LoggedRuns logged_runs;
	/* Null without local APICs in the kernel; set before it comes into the table. */
	Owned<Lapic> lapic;

	explicit VcpuEntry(u32 id);
	~VcpuEntry();
	VcpuEntry(const VcpuEntry &) = delete;
	VcpuEntry &operator=(const VcpuEntry &) = delete;

	u32 id() const { return id_; }

	/* The calling thread is the one that runs it now. Errno::nomem. The vCPU's mutex is held. */
	Result<> set_thread_to_current() MAY_SLEEP;
	/* That thread, with a reference; null when there is none any more. */
	glue_task *task() const REQUIRES_SHARED(rcu);

	/* It was made to leave its CPU and waits for one. Any context. */
	void set_preempted(bool preempted)
	{
		preempted_.store(preempted, std::memory_order_relaxed);
	}
	/* It spins, and looks for another to give its CPU to. */
	void begin_spin() { spinning_.store(true, std::memory_order_relaxed); }
	void end_spin();
	/* Whether another may do with its CPU what the one that asks cannot. A guess. */
	bool may_be_boosted();

private:
	const u32 id_;
	std::atomic<bool> preempted_{false};
	std::atomic<bool> spinning_{false};
	/* It spins and was passed over: the next time it is its turn. */
	std::atomic<bool> passed_over_{false};
	std::atomic<VcpuThread *> thread_{nullptr};
};

class VcpuTable
{
public:
	static constexpr u32 max_vcpus = 1024;

	constexpr VcpuTable() = default;
	VcpuTable(const VcpuTable &) = delete;
	VcpuTable &operator=(const VcpuTable &) = delete;

	void init() { lock.init(GLUE_LOCK_VM); }
	/* Among those who make and end vCPUs. */
	Mutex lock ACQUIRED_AFTER(cpus_stay);

	/* Its id, less than max_vcpus, must be free. */
	void add(VcpuEntry &entry) REQUIRES(lock);
	/* Its id is free from now on; readers may still see it until a grace period is over. */
	void remove(const VcpuEntry &entry) REQUIRES(lock);
	bool has(u32 id) const REQUIRES(lock)
	{
		return entries_[id].load(std::memory_order_relaxed);
	}

	/* Null where there is none. */
	VcpuEntry *find(u32 id) const REQUIRES_SHARED(rcu);
	/* One more than the highest id. Without a lock it may be out of date. */
	u32 end() const { return end_.load(std::memory_order_relaxed); }
	u32 count() const { return count_.load(std::memory_order_relaxed); }

	/*
	 * Asks all of them, and returns when those that were in the guest have come out; all others
	 * see it before they enter. One that is new in the table and not asked sees what the caller
	 * did, if the last of that was a locked instruction: the other half is KickTarget::enter().
	 * @cpus is the caller's, to work with. Interrupts on; inside any lock that interrupt handlers
	 * do not take.
	 */
	void ask_all(Request request, CpuMask &cpus) const WAITS_FOR_IPIS;

	/*
	 * Returns when all that the vCPUs' CPUs had logged is in the slots' logs. For what they log from now
	 * on nobody waits.
	 */
	void end_logged_runs() EXCLUDES(lock) MAY_SLEEP;

private:
	/* All written under the lock. */
	std::atomic<VcpuEntry *> entries_[max_vcpus] = {};
	std::atomic<u32> end_{0};
	std::atomic<u32> count_{0};
};

} // namespace kvmpp
