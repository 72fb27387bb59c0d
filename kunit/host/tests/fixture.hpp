/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The base of every test that uses the module's state or the model: a fresh machine before, and after
 * it nothing that the machine would have punished and nothing left behind.
 */
#pragma once

#include "host_insn.hpp"

#include "arch/x86/cpuid.hpp"
#include "model/clock.hpp"
#include "model/cpus.hpp"
#include "model/dedicated.hpp"
#include "model/eventfd.hpp"
#include "model/locks.hpp"
#include "model/log.hpp"
#include "model/memory.hpp"
#include "model/module.hpp"
#include "model/thread.hpp"
#include "model/timer.hpp"
#include "model/violation.hpp"
#include "model/vmx.hpp"
#include "model/workqueue.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace kvmpp::host
{

class MachineTest : public testing::Test
{
protected:
	MachineTest()
	{
		reset_cpus();
		reset_vmx();
		reset_dedicated();
		reset_memory();
		reset_eventfds();
		reset_timers();
		reset_workqueue();
		reset_clock();
		reset_module();
		reset_locks();
		reset_thread();
		reset_threads();
		switch_process(0);
		on_user_page_get(nullptr);
		set_split_lock_detection(false);
		(void)take_split_locks();
		(void)user_pages_dirtied();
		(void)take_log();
		(void)take_violations();
		live_before_ = live_allocations();
		init_guest_features(7, true, true);
	}
	~MachineTest() override
	{
		for (const std::string &line : take_violations())
			ADD_FAILURE() << "violation: " << line;
		EXPECT_EQ(live_allocations(), live_before_) << "memory is left behind";
		EXPECT_EQ(user_pages_held(), 0) << "references to user pages are left behind";
		EXPECT_EQ(eventfds_held(), 0) << "references to eventfds are left behind";
		EXPECT_EQ(work_queued(), 0) << "work is left for when the module has gone";
		EXPECT_TRUE(may_sleep()) << "interrupts or preemption are left off";
		EXPECT_FALSE(any_lock_held());
		EXPECT_EQ(open_fds(), 0u);
		EXPECT_FALSE(crash_hook_held());
		EXPECT_EQ(live_maps(), 0);
		EXPECT_EQ(nmis_unclaimed(), 0u) << "NMIs that Linux would report as unknown";
		for (int cpu = 0; cpu < cpu_count; cpu++) {
			EXPECT_FALSE(is_started(cpu)) << "CPU " << cpu << " is not Linux's";
			EXPECT_FALSE(processor(cpu).vmx)
				<< "CPU " << cpu << " is left in VMX operation";
			EXPECT_EQ(active_vmcss(cpu), 0u) << "on CPU " << cpu;
		}
	}

private:
	int live_before_;
};

} // namespace kvmpp::host
