// SPDX-License-Identifier: GPL-2.0
#include "model/cpus.hpp"
#include "model/locks.hpp"
#include "model/memory.hpp"
#include "model/thread.hpp"
#include "model/violation.hpp"
#include "model/vmx.hpp"

#include <linux_glue/dedicated.h>
#include <linux_glue/entries.h>
#include <linux_glue/guest.h>
#include <linux_glue/speculation.h>
#include <linux_glue/x86.h>

#include <asm/errno.h>

#include <cstring>
#include <optional>
#include <utility>

/* The address that entry.S gives the CPU to come back to. */
extern "C" const char kvmpp_vmx_exit[1] = {};

struct glue_guest_fpu {
	bool loaded = false;
	/* Legacy area and header of an XSAVE image, and some more. */
	kvmpp::u8 image[1024] = {0xf9};
};

namespace kvmpp::host
{

namespace
{

/* Linux's TIF_SIGPENDING and TIF_NEED_RESCHED. */
constexpr glue_u64 signal_is_pending = 1, need_resched = 2;
volatile glue_u64 thread_flags;
bool in_guest_timing, perf_in_guest, fpu_loaded;
bool perf_events = true;
unsigned ticks, nmis, barriers, flushes;
std::optional<kvmpp::u64> signal_mask;
std::function<void()> wait_hook, reschedule_hook;
glue_sched_notifier *notifier;

void set_flag(glue_u64 flag, bool on)
{
	thread_flags = on ? thread_flags | flag : thread_flags & ~flag;
}

} // namespace

void reset_thread()
{
	thread_flags = 0;
	in_guest_timing = perf_in_guest = fpu_loaded = false;
	perf_events = true;
	ticks = nmis = barriers = flushes = 0;
	wait_hook = reschedule_hook = nullptr;
	notifier = nullptr;
	signal_mask.reset();
}

void set_signal_pending(bool pending)
{
	set_flag(signal_is_pending, pending);
}

void set_need_resched(bool need)
{
	set_flag(need_resched, need);
}

void set_perf_events(bool there)
{
	perf_events = there;
}

void on_reschedule(std::function<void()> function)
{
	reschedule_hook = std::move(function);
}

void on_wait(std::function<void()> function)
{
	wait_hook = std::move(function);
}

unsigned ticks_waited()
{
	return ticks;
}

void reschedule_to(int cpu, const std::function<void()> &meanwhile)
{
	/* Another thread may run a vCPU meanwhile. */
	glue_sched_notifier *own = std::exchange(notifier, nullptr);
	bool fpu = std::exchange(fpu_loaded, false);

	if (own)
		interrupt(this_cpu(), [&] { kvmpp_vcpu_sched_out(own->context, true); });
	if (meanwhile) {
		AnotherThread thread;
		meanwhile();
	}
	migrate_to(cpu);
	if (own)
		interrupt(this_cpu(), [&] { kvmpp_vcpu_sched_in(own->context); });
	notifier = own;
	fpu_loaded = fpu;
}

bool sched_notifier_registered()
{
	return notifier != nullptr;
}

bool guest_fpu_loaded()
{
	return fpu_loaded;
}

std::optional<u64> entered_signal_mask()
{
	return signal_mask;
}

unsigned branch_predictor_barriers()
{
	return barriers;
}

unsigned l1d_flushes()
{
	return flushes;
}

unsigned nmis_delivered()
{
	return nmis;
}

} // namespace kvmpp::host

using namespace kvmpp::host;

glue_guest_fpu *glue_guest_fpu_alloc(void)
{
	might_sleep("allocation");
	if (!may_allocate())
		return nullptr;
	count_allocation(1);
	return new glue_guest_fpu;
}

void glue_guest_fpu_free(glue_guest_fpu *fpu)
{
	if (fpu->loaded)
		violation("guest FPU state freed while in use");
	count_allocation(-1);
	delete fpu;
}

void glue_guest_fpu_enter(glue_guest_fpu *fpu)
{
	if (std::exchange(fpu->loaded, true))
		violation("guest FPU state entered twice");
	fpu_loaded = true;
}

void glue_guest_fpu_leave(glue_guest_fpu *fpu)
{
	if (!std::exchange(fpu->loaded, false))
		violation("guest FPU state left twice");
	fpu_loaded = false;
}

void glue_guest_fpu_restore(void)
{
	if (!irqs_off() || !fpu_loaded)
		violation("guest FPU state restored with interrupts on or outside KVM_RUN");
	/* XRSTOR of what Linux has saved faults where XCR0 has less than that. */
	if (here().xcr0 != glue_host_xcr0())
		violation("guest FPU state restored with the guest's XCR0");
}

/* XSTATE_BV */
static kvmpp::u64 &features_in(void *image)
{
	return *reinterpret_cast<kvmpp::u64 *>(static_cast<kvmpp::u8 *>(image) + 512);
}

void glue_guest_fpu_save(glue_guest_fpu *fpu, void *image, glue_u64 features)
{
	if (fpu->loaded)
		violation("guest FPU state taken out of memory while it is in the CPU");
	std::memset(image, 0, kvmpp::page_size);
	std::memcpy(image, fpu->image, sizeof(fpu->image));
	features_in(image) &= features;
}

int glue_guest_fpu_load(glue_guest_fpu *fpu, const void *image, glue_u64 features)
{
	kvmpp::u32 mxcsr;

	if (fpu->loaded)
		violation("guest FPU state changed in memory while it is in the CPU");
	std::memcpy(&mxcsr, static_cast<const kvmpp::u8 *>(image) + 24, sizeof(mxcsr));
	if ((features_in(const_cast<void *>(image)) & ~features) || mxcsr >> 16)
		return -EINVAL;
	std::memcpy(fpu->image, image, sizeof(fpu->image));
	return 0;
}

void glue_thread_state_save(glue_thread_state *state)
{
	if (!irqs_off())
		violation("thread state saved with interrupts on");
	*state = {.fs_base = 0xf5ba5e,
		  .gs_base = 0x65ba5e,
		  .ds = 0,
		  .es = 0,
		  .fs = 0,
		  .gs = 0,
		  .ldt = 0};
}

void glue_thread_state_restore(const glue_thread_state *state)
{
	if (!irqs_off())
		violation("thread state restored with interrupts on");
	if (state->fs_base != 0xf5ba5e)
		violation("thread state restored that was not saved");
}

void glue_debug_registers_restore(void)
{
}

glue_u64 glue_debugctl(void)
{
	return here().debugctl;
}

void glue_debugctl_restore(glue_u64 value)
{
	here().debugctl = value;
}

int glue_perf_switches(void)
{
	if (!irqs_off())
		violation("perf asked with interrupts on, when events may still come");
	return perf_events;
}

void glue_perf_enter_guest(void)
{
	if (!irqs_off() || std::exchange(perf_in_guest, true))
		violation("perf enters the guest twice or with interrupts on");
}

void glue_perf_leave_guest(void)
{
	if (!irqs_off() || !std::exchange(perf_in_guest, false))
		violation("perf leaves the guest twice or with interrupts on");
}

void glue_guest_timing_enter(void)
{
	if (std::exchange(in_guest_timing, true))
		violation("guest time entered twice");
}

void glue_guest_timing_exit(void)
{
	if (!irqs_off())
		violation("guest time left with interrupts on");
	in_guest_timing = false;
}

void glue_branch_predictor_barrier(void)
{
	if (!irqs_off())
		violation("a barrier that another thread's guest may undo");
	barriers++;
}

int glue_flushes_l1d_each_time(void)
{
	return 0;
}

int glue_l1d_flush(int due)
{
	if (!irqs_off())
		violation("the L1 data cache flushed too early");
	flushes += due != 0;
	return due;
}

int glue_vmx_enter(kvmpp_gprs *gprs, int launched)
{
	if (perf_in_guest != perf_events)
		violation("VM entry with perf's MSRs of the host");
	return enter_guest(*gprs, launched);
}

void glue_deliver_nmi(void)
{
	nmis++;
}

void glue_deliver_machine_check(void)
{
}

void glue_sched_notifier_register(glue_sched_notifier *n, void *context)
{
	if (notifier)
		violation("sched notifier registered twice");
	n->context = context;
	notifier = n;
}

void glue_sched_notifier_unregister(glue_sched_notifier *n)
{
	if (notifier != n)
		violation("sched notifier removed that is not registered");
	notifier = nullptr;
}

const volatile glue_u64 *glue_thread_flags(void)
{
	return &thread_flags;
}

int glue_work_handle(void)
{
	might_sleep("schedule()");
	if (thread_flags & signal_is_pending)
		return -EINTR;
	set_flag(need_resched, false);
	if (auto hook = std::exchange(reschedule_hook, nullptr))
		hook();
	return 0;
}

void glue_signal_mask_enter(glue_u64 mask)
{
	if (signal_mask)
		violation("signal mask entered twice");
	signal_mask = mask;
}

void glue_signal_mask_leave(void)
{
	if (!signal_mask)
		violation("signal mask left that was not entered");
	signal_mask.reset();
}

int glue_signal_pending(void)
{
	return (thread_flags & signal_is_pending) != 0;
}

void glue_wait_a_tick(void)
{
	might_sleep("schedule_timeout()");
	if (++ticks > 1000) {
		violation("waits for ever");
		set_flag(signal_is_pending, true);
	}
	if (auto hook = wait_hook)
		hook();
}
