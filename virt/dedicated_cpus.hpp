/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The CPUs that Linux has given up, and their way there and back. Documentation/dedicated-cpus.rst has the
 * states as a picture.
 *
 *   unused ──take()──▶ coming ──▶ taken ──give_back()──▶ going ──▶ unused
 *                                   └─ it does not answer ─▶ lost, for good
 *
 * remove_cpu() and add_cpu() take the device-hotplug lock and cpus_write_lock: while a CPU is coming or going no
 * lock is held.
 */
#pragma once

#include "arch/x86/dedicated_cpu.hpp"
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/types.hpp"

namespace kvmpp
{

struct DedicatedMachine;
class DedicatedSlot;

/* Memory that a dedicated CPU has to see. */
struct SeenMemory {
	const void *start;
	std::size_t bytes;
};

/* Whom a CPU is dedicated to, for those who look from outside. */
struct DedicatedOwner {
	u32 process = 0, vm = 0, vcpu = 0;
};

/*
 * What a vCPU knows of its CPU, and how its end and everybody who takes the CPU back meet: all under
 * DedicatedSlot::lock.
 */
class Dedicated
{
public:
	Dedicated() = default;
	Dedicated(const Dedicated &) = delete;
	Dedicated &operator=(const Dedicated &) = delete;

	enum class Place {
		shared, /* on any CPU of Linux */
		own,    /* on the CPU that it has */
		moving, /* that one is just let go */
		lost,   /* that one does not answer any more */
	};

	/*
	 * Takes @cpu from Linux for the vCPU, which it runs from its next entry on. The errnos are those of
	 * KVMPP_SET_DEDICATED_CPU. May sleep; no lock is held.
	 */
	Result<> take(CpuId cpu, const DedicatedOwner &owner, KickTarget &kick, DedicatedRun &run,
		      std::size_t seen_count, const SeenMemory *seen) MAY_SLEEP;
	/* Gives it back. Errno::inval when there is none; Errno::busy when it is on its way. May sleep. */
	Result<> give_back() MAY_SLEEP;
	/* The same for a vCPU that ends: waits for whoever does it already. May sleep. */
	void end() MAY_SLEEP;
	/* None when there is no CPU. */
	CpuId cpu() const;

	/* By the thread that runs the vCPU: where it is to be run. */
	Place place() const
	{
		return slot_.load(std::memory_order_acquire) ? place_of_slot() : Place::shared;
	}
	/*
	 * Posts it on its CPU, the one of that times_taken(); false when that is no longer `own`. Then waits: 0, or Errno::intr when a
	 * signal came first, after which the vCPU is still there, until done() says so.
	 */
	bool post(u32 taking);
	Result<> wait(bool interruptible) MAY_SLEEP;
	/* Waits until a CPU that is `moving` is gone. Errno::intr. */
	Result<> wait_until_moved() MAY_SLEEP;
	/* How often it got a CPU: of another one, nothing that was prepared for this one is right. */
	u32 times_taken() const { return times_taken_.load(std::memory_order_relaxed); }
	/* Counts ways out of it. */
	void count_online();
	void count_user();
	/* Whether interrupts are the guest's on the CPU it has. */
	bool passthrough() const;

private:
	friend class DedicatedSlot;

	static int answered(void *dedicated);

	Place place_of_slot() const;

	std::atomic<DedicatedSlot *> slot_{nullptr};
	/*
	 * Where it was posted last: it may be gone from there, and somebody else be there, before its
	 * thread comes to look for the answer. And how often it got a CPU.
	 */
	DedicatedSlot *posted_on_ = nullptr;
	DedicatedRun *posted_run_ = nullptr;
	std::atomic<u32> times_taken_{0};
};

/* Errno::nomem and the like. May sleep. */
Result<> dedicated_init() MAY_SLEEP;
void dedicated_exit() MAY_SLEEP;
/* Every CPU goes back to Linux and none is taken any more. May sleep. */
void dedicated_machine_down() MAY_SLEEP;
/* The kernel has crashed: they leave VMX operation and halt; waited for, with a bound. NMI context. */
void dedicated_crash();
/* Whether Linux may do without @cpu: it is where dedicated ones call. */
bool dedicated_may_offline(CpuId cpu);
/* One does not answer, and never will for all that is known, but may still use what it has seen. Any context. */
bool dedicated_any_lost();
/* An NMI to a dedicated CPU: for kick(). */
void kick_dedicated(CpuId cpu);
/* How many CPUs could be dedicated now. */
int dedicated_count_possible();

} // namespace kvmpp
