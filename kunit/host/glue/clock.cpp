// SPDX-License-Identifier: GPL-2.0
#include "model/clock.hpp"

#include "model/cpus.hpp"
#include "model/vmx.hpp"

#include "arch/x86/cpu_insn.hpp"

#include <linux_glue/clock.h>
#include <linux_glue/entries.h>
#include <linux_glue/x86.h>

namespace kvmpp::host
{

namespace
{

u64 boot_ns, real_ns;
bool tsc_is_stable;

} // namespace

void reset_clock()
{
	boot_ns = 5'000'000'000;
	real_ns = 1'700'000'000'123'456'789;
	tsc_is_stable = true;
}

void pass_time(u64 ns)
{
	boot_ns += ns;
	real_ns += ns;
	set_tsc(insn::rdtsc() + ns * glue_tsc_khz() / 1'000'000);
}

void sleep_for(u64 ns)
{
	boot_ns += ns;
	real_ns += ns;
	for (int cpu = 1; cpu < cpu_count; cpu++)
		take_offline(cpu);
	interrupt(this_cpu(), kvmpp_syscore_suspend);
	set_tsc(7);
	interrupt(this_cpu(), kvmpp_syscore_resume);
	for (int cpu = 1; cpu < cpu_count; cpu++)
		(void)bring_online(cpu);
}

void set_tsc_stable(bool stable)
{
	tsc_is_stable = stable;
}

u64 real_time()
{
	return real_ns;
}

} // namespace kvmpp::host

using namespace kvmpp::host;

void glue_clock_read(glue_clock *clock)
{
	*clock = {.tsc = kvmpp::insn::rdtsc(), .boot_ns = boot_ns, .real_ns = real_ns};
}

int glue_tsc_stable(void)
{
	return tsc_is_stable;
}
