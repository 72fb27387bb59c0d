// SPDX-License-Identifier: GPL-2.0
/* Nothing sleeps with interrupts or preemption off, inside a spin lock or RCU. */
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/owned.hpp"

#include <linux_glue/guest.h>
#include <linux_glue/memory.h>

using namespace kvmpp;

void with_interrupts_off(Mutex &mutex)
{
	IrqOff irq;

	// expected-error@+1 {{'glue_wait_a_tick' while context 'irqs_off' is held}}
	glue_wait_a_tick();
	// expected-error@+1 {{'Locked' while context 'irqs_off' is held}}
	Locked locked(mutex);
}

void with_preemption_off(Srcu &srcu)
{
	PreemptOff preempt;

	// expected-error@+1 {{'synchronize' while context 'preempt_off' is held}}
	srcu.synchronize();
	// expected-error@+1 {{'CpusReadLock' while context 'preempt_off' is held}}
	CpusReadLock cpus;
}

void inside_rcu(Mutex &mutex)
{
	RcuRead read;

	// expected-error@+1 {{'Locked' while context 'rcu' is held}}
	Locked locked(mutex);
}

bool inside_a_spin_lock(SpinLock &lock, u64 *data)
{
	Locked locked(lock);
	// expected-error@+1 {{'create' while context 'preempt_off' is held}}
	Page page = Page::create();
	// expected-error@+1 {{'create' while context 'preempt_off' is held}}
	auto number = Owned<u64>::create();

	// expected-error@+1 {{'glue_copy_from_user' while context 'preempt_off' is held}}
	return page && number && glue_copy_from_user(data, 0, 8) == 0;
}
