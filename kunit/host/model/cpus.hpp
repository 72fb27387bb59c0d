/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The machine's CPUs as one thread sees them: which one it is on, what it has switched off there, and
 * what others answer to an IPI. One actor only; IPIs are carried out at once, on the spot.
 */
#pragma once

#include <functional>

namespace kvmpp::host
{

inline constexpr int cpu_count = 4;

void reset_cpus();

int this_cpu();
bool is_online(int cpu);
bool irqs_off();
/* Neither interrupts nor preemption is off: the thread may sleep and migrate. */
bool may_sleep();
/* Notes a violation where the thread may not sleep. */
void might_sleep(const char *what);
void add_preempt_off(int by);

/* The scheduler puts the thread on @cpu. */
void migrate_to(int cpu);
/* Runs @function on @cpu with interrupts off, as an IPI does. */
void interrupt(int cpu, const std::function<void()> &function);
/* Called once, between the moment an IPI is sent and that in which it is taken. */
void before_next_ipi(std::function<void()> function);
unsigned ipis_sent();
void count_ipi();

/*
 * Hotplug through the module's callbacks, if it has registered them. An online CPU that is switched
 * off must be in no VMX operation. bring_online() gives the callback's errno; the CPU is then offline.
 */
void take_offline(int cpu);
/* As add_cpu() and remove_cpu(): the callbacks may refuse, and an online CPU stays the last. */
int remove_cpu(int cpu);
int add_cpu(int cpu);
int online_cpus();
int bring_online(int cpu);
/* The next registration of the callbacks fails. */
void fail_hotplug_registration(int error);

} // namespace kvmpp::host
