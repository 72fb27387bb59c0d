// SPDX-License-Identifier: GPL-2.0
/* The glue that concerns only the thread that calls it: nothing to explore. */
#include "dedicated.hpp"
#include "machine.hpp"

#include <linux_glue/clock.h>
#include <linux_glue/cpu.h>
#include <linux_glue/crash.h>
#include <linux_glue/debugfs.h>
#include <linux_glue/dedicated.h>
#include <linux_glue/eventfd.h>
#include <linux_glue/guest.h>
#include <linux_glue/log.h>
#include <linux_glue/memory.h>
#include <linux_glue/speculation.h>
#include <linux_glue/timer.h>
#include <linux_glue/trace.h>
#include <linux_glue/vpid.h>
#include <linux_glue/workqueue.h>

#include <cstring>

using namespace kvmpp::explore;

void glue_log_err(const char *, ...)
{
}
void glue_log_ratelimited(const char *format, ...)
{
	if (std::strstr(format, "unknown origin"))
		fail("an NMI of this module's was not known as such");
}
void glue_text_print(glue_text *, const char *, ...)
{
}
void glue_trace_vmx_on(void)
{
}
void glue_trace_vmx_off(void)
{
}
void glue_trace_vmcs_load(glue_u32, glue_u32, glue_u32)
{
}
void glue_trace_vmcs_clear(glue_u32, glue_u32, glue_u32, const char *)
{
}

namespace
{

/* A bit for each; there are few vCPUs. */
kvmpp::u64 vpids_used = 1;

} // namespace

int glue_vpid_alloc(void)
{
	if (!~vpids_used)
		return -1;
	int vpid = __builtin_ctzll(~vpids_used);
	vpids_used |= kvmpp::u64{1} << vpid;
	return vpid;
}
void glue_vpid_free(glue_u16 vpid)
{
	vpids_used &= ~(kvmpp::u64{1} << vpid);
}

int glue_crash_init(void)
{
	return 0;
}
void glue_crash_exit(void)
{
}
int glue_crash_hook_take(int)
{
	return 0;
}
int glue_crash_hook_held(void)
{
	return 0;
}
void glue_crash_hook_give_back(void)
{
}
int glue_machine_goes_down(void)
{
	return 0;
}

void glue_debugfs_create(void)
{
}
void glue_debugfs_remove(void)
{
}

struct glue_guest_fpu {
};

glue_guest_fpu *glue_guest_fpu_alloc(void)
{
	static glue_guest_fpu fpu;

	return &fpu;
}

void glue_guest_fpu_free(glue_guest_fpu *)
{
}
void glue_guest_fpu_enter(glue_guest_fpu *)
{
}
void glue_guest_fpu_leave(glue_guest_fpu *)
{
}
void glue_guest_fpu_restore(void)
{
}
void glue_guest_fpu_save(glue_guest_fpu *, void *, glue_u64)
{
}
int glue_guest_fpu_load(glue_guest_fpu *, const void *, glue_u64)
{
	return 0;
}
void glue_thread_state_save(glue_thread_state *)
{
}
void glue_thread_state_restore(const glue_thread_state *)
{
}
void glue_debug_registers_restore(void)
{
}
void glue_branch_predictor_barrier(void)
{
}

int glue_l1d_flush(int)
{
	return 0;
}

int glue_flushes_l1d_each_time(void)
{
	return 0;
}

void glue_debugctl_restore(glue_u64)
{
}
int glue_perf_switches(void)
{
	return 0;
}
void glue_perf_enter_guest(void)
{
}
void glue_perf_leave_guest(void)
{
}
void glue_guest_timing_enter(void)
{
}
void glue_guest_timing_exit(void)
{
}
void glue_deliver_nmi(void)
{
}
void glue_deliver_machine_check(void)
{
}
void glue_sched_notifier_register(glue_sched_notifier *, void *)
{
}
void glue_sched_notifier_unregister(glue_sched_notifier *)
{
}

void glue_clock_read(glue_clock *clock)
{
	*clock = {};
}
int glue_tsc_stable(void)
{
	return 1;
}

glue_u64 glue_timer_now(void)
{
	return 0;
}
void glue_timer_init(glue_timer *, glue_u64 (*)(glue_timer *))
{
}
void glue_timer_start(glue_timer *, glue_u64)
{
}
void glue_timer_cancel(glue_timer *)
{
}

int glue_eventfd_wait(int, glue_eventfd_waiter *)
{
	return -9;
}
void glue_eventfd_leave(glue_eventfd_waiter *)
{
}

void glue_work_init(glue_work *, void (*)(glue_work *))
{
}
void glue_work_queue(glue_work *)
{
}
void glue_work_cancel(glue_work *)
{
}

glue_u64 glue_debugctl(void)
{
	return 0;
}

const volatile glue_u64 *glue_thread_flags(void)
{
	static constexpr glue_u64 none = 0;

	return &none;
}

int glue_work_handle(void)
{
	return signal_is_pending() ? -4 : 0;
}

/* One who waited for VMX to come on here or there gives up the next time: schedules are finite. */
void glue_signal_mask_enter(glue_u64)
{
}

void glue_signal_mask_leave(void)
{
}

int glue_signal_pending(void)
{
	return exploring() && (self().ticked || signal_is_pending());
}

void glue_wait_a_tick(void)
{
	might_sleep("schedule_timeout()");
	if (exploring() && waits_for_dedicated())
		return wait_for_change("waits a tick");
	if (exploring())
		self().ticked = true;
}

int glue_copy_from_user(void *, glue_u64, glue_size)
{
	return -14;
}

int glue_copy_to_user_nofault(glue_u64, const void *, glue_size)
{
	return -14;
}

int glue_user_read(glue_u64, glue_u64 *, glue_size)
{
	return -14;
}

int glue_user_read_16(glue_u64, glue_u64 *)
{
	return -14;
}

int glue_user_compare_exchange(glue_u64, glue_u64, glue_u64, glue_size)
{
	return -14;
}

int glue_copy_to_user(glue_u64, const void *, glue_size)
{
	return -14;
}
