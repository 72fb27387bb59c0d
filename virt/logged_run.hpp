/* SPDX-License-Identifier: GPL-2.0 */
/*
 * "Page-Modification Logging": from VM entry on the CPU has pages that the slots' logs do not have, until the
 * vCPU's thread has put them there. Who reads a log has each vCPU come out first, and waits for that.
 */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/types.hpp"

#include <atomic>

namespace kvmpp
{

struct VcpuState;
class VcpuEntry;
class Vm;
class VmxVcpu;

/* What those who read logs see of a vCPU. */
class LoggedRuns
{
public:
	/* By its thread: from here on the CPU may log; and all that it has logged is in the slots' logs. */
	void begin()
	{
		is_running_.store(true, std::memory_order_seq_cst);
		/* What it was asked before this, it may have seen to before, and will not again. */
		tell();
	}
	void end()
	{
		is_running_.store(false, std::memory_order_seq_cst);
		tell();
	}

	/*
	 * By one at a time. True: the vCPU is to be asked to come out, and then waited for. False: all that was
	 * logged until now is there.
	 */
	bool await()
	{
		awaited_.store(1, std::memory_order_seq_cst);
		return is_running();
	}
	void wait() MAY_SLEEP
	{
		if (is_running())
			glue_wait_for_zero(reinterpret_cast<u32 *>(&awaited_));
	}

private:
	bool is_running() const { return is_running_.load(std::memory_order_seq_cst); }
	void tell()
	{
		if (!awaited_.load(std::memory_order_seq_cst)) [[likely]]
			return;
		awaited_.exchange(0, std::memory_order_seq_cst);
		glue_count_is_zero(reinterpret_cast<u32 *>(&awaited_));
	}

	std::atomic<bool> is_running_{false};
	/* Until a run ends, or one begins. */
	std::atomic<u32> awaited_{0};
};

/* A run in the guest, by the vCPU's thread. At its end what was logged goes to the slots' logs. */
class LoggedRun
{
public:
	LoggedRun(Vm &vm, VcpuEntry &entry, VmxVcpu &vmx, VcpuState &state);
	~LoggedRun();
	LoggedRun(const LoggedRun &) = delete;
	LoggedRun &operator=(const LoggedRun &) = delete;

	/* A CPU that is lost has the state, and what it has logged. */
	void lose() { is_lost_ = true; }

private:
	Vm &vm_;
	VcpuEntry &entry_;
	VmxVcpu &vmx_;
	VcpuState &state_;
	bool is_lost_ = false;
};

} // namespace kvmpp
