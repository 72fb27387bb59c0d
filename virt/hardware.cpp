// SPDX-License-Identifier: GPL-2.0
#include "hardware.hpp"

#include "arch/x86/cpuid.hpp"
#include "arch/x86/vmx_cpu.hpp"
#include "clock.hpp"
#include "dedicated_cpus.hpp"
#include "include/kvmpp/guards.hpp"

#include <linux_glue/crash.h>
#include <linux_glue/entries.h>
#include <linux_glue/log.h>
#include <linux_glue/parameters.h>
#include <linux_glue/sched.h>
#include <linux_glue/x86.h>

#include <atomic>

namespace kvmpp
{

namespace
{

constinit VmxConfig config;
constinit Mutex usage_lock ACQUIRED_BEFORE(cpus_stay);
constinit unsigned users GUARDED_BY(usage_lock) = 0;
constinit bool going_down GUARDED_BY(usage_lock) = false;
/*
 * A CPU that comes online shall have VMX on. Written under usage_lock and cpus_read_lock, read by
 * the hotplug callbacks, which the latter keeps out: they must not take usage_lock, whose holders
 * wait for them.
 */
constinit bool wanted GUARDED_BY(cpus_stay) = false;

/* Of the CPUs that refuse at once, one is told of. */
struct EnableAll {
	std::atomic<bool> refused{false};
	CpuId cpu;
	Refusal refusal{};
};

void enable_here(void *argument)
{
	auto &all = *static_cast<EnableAll *>(argument);
	IrqOff irq;
	Refusal refusal;

	if (VmxCpu::here(irq).enable(irq, refusal))
		return;
	if (!all.refused.exchange(true, std::memory_order_relaxed)) {
		all.cpu = irq.cpu();
		all.refusal = refusal;
	}
}

/* As CPUs come one by one; Linux 6.12 tries it several times. */
Result<> enable_one()
{
	IrqOff irq;
	Refusal refusal;

	if (VmxCpu::here(irq).enable(irq, refusal))
		return {};
	glue_log_ratelimited("CPU %d: %s", irq.cpu().value, refusal.reason);
	return refusal.error;
}

void disable_here(void *)
{
	IrqOff irq;

	VmxCpu::here(irq).disable(irq);
}

Result<> enable_all() REQUIRES(usage_lock)
{
	bool may_lack = glue_parameters.allow_no_crash_hook;
	bool hook = glue_crash_hook_take(may_lack) == 0;

	/* A crash kernel would find VMX on: only for who says that he wants that. */
	if (!hook && !may_lack) {
		glue_log_ratelimited("kvm_intel has the crash hook: no VM without "
				     "allow_no_crash_hook=1");
		return Errno::busy;
	}

	CpusReadLock cpus;
	EnableAll all;
	glue_call_on_all_cpus(enable_here, &all);
	/* The call has returned from every CPU: what they wrote is here. */
	if (all.refused.load(std::memory_order_relaxed)) {
		glue_call_on_all_cpus(disable_here, nullptr);
		glue_crash_hook_give_back();
		glue_log_ratelimited("CPU %d: %s", all.cpu.value, all.refusal.reason);
		return all.refusal.error;
	}
	wanted = true;
	if (!hook)
		glue_log_ratelimited("kvm_intel has the crash hook: kdump would find VMX on");
	return {};
}

void disable_all() REQUIRES(usage_lock)
{
	{
		CpusReadLock cpus;
		wanted = false;
		glue_call_on_all_cpus(disable_here, nullptr);
	}
	glue_crash_hook_give_back();
}

} // namespace

const VmxConfig &hardware_config()
{
	return config;
}

Result<> hardware_init()
{
	Refusal refusal;

	usage_lock.init(GLUE_LOCK_USAGE);
	if (glue_parameters.enable_at_load && !glue_parameters.exclusive) {
		glue_log_err("enable_at_load=1 and exclusive=0 exclude each other");
		return Errno::inval;
	}
	if (glue_tsc_khz() == 0) {
		glue_log_err("Linux does not know how fast the TSC is");
		return Errno::opnotsupp;
	}
	{
		PreemptOff preempt;

		if (!vmx_configure(VmxRegisters::read(preempt), config, refusal)) {
			glue_log_err("%s", refusal.reason);
			return refusal.error;
		}
	}
	init_guest_features(glue_host_xcr0(), config.has_rdtscp(), config.has_invpcid(),
			    glue_counts_run_delay());
	if (Result<> r = VmxCpu::create_all(config, glue_parameters.exclusive); !r)
		return r;
	if (Result<> r = from_errno(glue_crash_init()); !r) {
		VmxCpu::destroy_all();
		return r;
	}
	if (Result<> r = from_errno(glue_hotplug_register()); !r) {
		glue_crash_exit();
		VmxCpu::destroy_all();
		return r;
	}
	if (!glue_parameters.enable_at_load)
		return {};
	Result<> enabled = hardware_get();
	if (!enabled) {
		glue_hotplug_unregister();
		glue_crash_exit();
		VmxCpu::destroy_all();
	}
	return enabled;
}

void hardware_exit()
{
	if (glue_parameters.enable_at_load)
		hardware_put();
	glue_hotplug_unregister();
	/* Before the records that the hook looks at. */
	glue_crash_exit();
	VmxCpu::destroy_all();
}

Result<> hardware_get()
{
	Locked locked(usage_lock);

	/* The notifier came, or the module only after it. */
	if (going_down || glue_machine_goes_down())
		return Errno::busy;
	if (users == 0)
		if (Result<> r = enable_all(); !r)
			return r;
	users++;
	return {};
}

void hardware_put()
{
	Locked locked(usage_lock);

	if (--users == 0)
		disable_all();
}

} // namespace kvmpp

using namespace kvmpp;

/* Linux holds the write side of what cpus_read_lock() takes. */
int kvmpp_cpu_online(int) REQUIRES(cpus_stay)
{
	return wanted ? to_errno(enable_one()) : 0;
}

int kvmpp_cpu_offline(int cpu)
{
	if (!dedicated_may_offline({cpu}))
		return -static_cast<int>(Errno::busy);
	disable_here(nullptr);
	return 0;
}

void kvmpp_syscore_suspend(void)
{
	VmClock::machine_sleeps();
	disable_here(nullptr);
}

/* It is the only CPU. */
void kvmpp_syscore_resume(void) REQUIRES(cpus_stay)
{
	VmClock::machine_woke();
	/* A failure is in the log; vCPUs wait for VMX on this CPU until they are killed. */
	if (wanted)
		(void)enable_one();
}

void kvmpp_machine_down(void)
{
	dedicated_machine_down();

	Locked locked(usage_lock);
	CpusReadLock cpus;

	/* VMX operation blocks INIT, by which the next kernel starts CPUs. Nobody needs it any more. */
	going_down = true;
	wanted = false;
	glue_call_on_all_cpus(disable_here, nullptr);
}

void kvmpp_crash(void)
{
	dedicated_crash();
	VmxCpu::crash_here();
}
