/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How others reach a vCPU that may be in its guest. Who wants something of it asks, then looks where it
 * is, and kicks that CPU; the vCPU says where it is, then looks what it is asked. Both with a full
 * barrier in between, so that one of the two sees the other and no kick is lost.
 *
 * On a CPU of Linux the look comes with interrupts off, and the interrupt that follows it ends the
 * guest's run at once. On a dedicated CPU nothing is off that would hold back the NMI: it may come
 * between the look and VM entry. There its handler finds that it came in that window, and has the CPU go
 * the way out: see kvmpp_dedicated_enter().
 */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/types.hpp"

#include <atomic>

namespace kvmpp
{

enum class Request : u32 {
	flush_ept = 1 << 0, /* drop what the CPU has cached of the guest's memory */
	come_out = 1 << 1,  /* to the thread that runs it, which looks where it is to run */
	interrupt = 1 << 2, /* likewise, and the thread looks what its local APIC has for it */
};

/* What has been asked of a vCPU. */
class Requests
{
public:
	constexpr explicit Requests(u32 bits) : bits_(bits) {}

	bool has(Request request) const { return bits_ & static_cast<u32>(request); }
	/* What the thread that runs it has to see to. */
	bool is_for_thread() const { return has(Request::come_out) || has(Request::interrupt); }

private:
	u32 bits_;
};

/* Where a vCPU is in its guest, and what kind of CPU that is. */
class Whereabouts
{
public:
	constexpr explicit Whereabouts(int raw) : raw_(raw) {}
	static constexpr int nowhere = -1, dedicated = 1 << 30;

	/* It will see by itself what it was asked. */
	bool is_nowhere() const { return raw_ < 0; }
	bool is_dedicated() const { return raw_ >= 0 && (raw_ & dedicated); }
	CpuId cpu() const { return {raw_ & ~dedicated}; }

private:
	int raw_;
};

class KickTarget
{
public:
	/*
	 * The vCPU is about to enter the guest: what was asked until now, which is taken. For what
	 * is asked from now on until leave() an interrupt comes, and ends the guest's run at once.
	 */
	Requests enter(const IrqOff &irq) REQUIRES(irqs_off)
	{
		cpu_.store(irq.cpu().value, std::memory_order_relaxed);
		std::atomic_thread_fence(std::memory_order_seq_cst);
		return take();
	}
	/* It is out of the guest. */
	void leave(const IrqOff &irq) REQUIRES(irqs_off) { leave_dedicated(); }

	/*
	 * The same on a dedicated CPU, in two steps: until the vCPU is out again, NMIs come for what is
	 * asked; and the look itself is part of the entry, at asked().
	 */
	void enter_dedicated(CpuId cpu)
	{
		cpu_.store(cpu.value | Whereabouts::dedicated, std::memory_order_relaxed);
		std::atomic_thread_fence(std::memory_order_seq_cst);
	}
	const std::atomic<u32> &asked() const { return asked_; }
	void leave_dedicated() { cpu_.store(Whereabouts::nowhere, std::memory_order_release); }
	/* What was asked until now, which is taken. By the CPU that runs the vCPU. */
	Requests take()
	{
		if (asked_.load(std::memory_order_relaxed) == 0) [[likely]]
			return Requests(0);
		return Requests(asked_.exchange(0, std::memory_order_seq_cst));
	}

	/*
	 * By the thread that runs it, before it looks at what was done for @request, so that it need not come
	 * out for that once more: of what is done after this look it is asked anew.
	 */
	void withdraw(Request request)
	{
		if (asked_.load(std::memory_order_relaxed) & static_cast<u32>(request))
			asked_.fetch_and(~static_cast<u32>(request), std::memory_order_seq_cst);
	}

	/* Anybody, anywhere; then where(). What was done before is seen by who is asked. */
	void ask(Request request)
	{
		asked_.fetch_or(static_cast<u32>(request), std::memory_order_seq_cst);
	}
	Whereabouts where() const { return Whereabouts(cpu_.load(std::memory_order_seq_cst)); }
	/* Whether it has not been seen to yet, by one that is on a dedicated CPU. */
	bool is_unseen(Request request) const
	{
		return (asked_.load(std::memory_order_seq_cst) & static_cast<u32>(request)) &&
		       where().is_dedicated();
	}

private:
	std::atomic<u32> asked_{0};
	std::atomic<int> cpu_{Whereabouts::nowhere};
};

/*
 * Ends the run of one that has been asked, wherever it is: on a CPU of Linux by a reschedule IPI, on a
 * dedicated one by an NMI; a vCPU that is not in its guest costs nothing. Does not wait. Any context
 * but NMI; what @target is part of stays (RCU, or the caller's own).
 */
void kick(const KickTarget &target);

/*
 * Waits until one that was asked and kicked on a dedicated CPU has seen it, or come out. A CPU that does
 * not within a second is dead, and is not waited for again. Any context with interrupts on.
 */
void wait_until_seen(const KickTarget &target, Request request) WAITS_FOR_IPIS;

} // namespace kvmpp
