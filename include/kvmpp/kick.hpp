/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How others reach a vCPU that may be in its guest. Who wants something of it asks, then looks where it
 * is, and kicks that CPU; the vCPU says where it is, then looks what it is asked. Both with a full
 * barrier in between, so that one of the two sees the other and no kick is lost.
 */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/types.hpp"

#include <atomic>

namespace kvmpp
{

enum class Request : u32 {
	flush_ept = 1 << 0, /* drop what the CPU has cached of the guest's memory */
};

/* What has been asked of a vCPU. */
class Requests
{
public:
	constexpr explicit Requests(u32 bits) : bits_(bits) {}

	bool has(Request request) const { return bits_ & static_cast<u32>(request); }

private:
	u32 bits_;
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
		if (asked_.load(std::memory_order_relaxed) == 0) [[likely]]
			return Requests(0);
		return Requests(asked_.exchange(0, std::memory_order_acquire));
	}
	/* It is out of the guest. */
	void leave(const IrqOff &irq) REQUIRES(irqs_off)
	{
		cpu_.store(-1, std::memory_order_release);
	}

	/* Anybody, anywhere; then where(). What was done before is seen by who is asked. */
	void ask(Request request)
	{
		asked_.fetch_or(static_cast<u32>(request), std::memory_order_seq_cst);
	}
	/* The CPU to kick; none when it will see by itself what it was asked. */
	CpuId where() const { return {cpu_.load(std::memory_order_seq_cst)}; }

private:
	std::atomic<u32> asked_{0};
	std::atomic<int> cpu_{-1};
};

} // namespace kvmpp
