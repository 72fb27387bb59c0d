// SPDX-License-Identifier: GPL-2.0
/* CPUs are taken from Linux and given back, and dedicated ones waited for, where the thread may sleep. */
#include "include/kvmpp/guards.hpp"
#include "virt/dedicated_cpus.hpp"

using namespace kvmpp;

void inside_a_spin_lock(SpinLock &lock)
{
	Locked locked(lock);

	// expected-error@+1 {{'glue_cpu_remove' while context 'preempt_off' is held}}
	(void)glue_cpu_remove(1);
	// expected-error@+1 {{'glue_cpu_add' while context 'preempt_off' is held}}
	(void)glue_cpu_add(1);
}

void inside_rcu(Dedicated &dedicated)
{
	RcuRead read;

	// expected-error@+1 {{'give_back' while context 'rcu' is held}}
	(void)dedicated.give_back();
	// expected-error@+1 {{'glue_synchronize_rcu' while context 'rcu' is held}}
	glue_synchronize_rcu();
}

void with_interrupts_off(KickTarget &target)
{
	IrqOff irq;

	// expected-error@+1 {{'wait_until_seen' while context 'irqs_off' is held}}
	wait_until_seen(target, Request::flush_ept);
}
