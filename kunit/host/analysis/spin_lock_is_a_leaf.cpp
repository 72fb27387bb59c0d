// SPDX-License-Identifier: GPL-2.0
/* Inside a spin lock no other lock is taken. */
#include "include/kvmpp/guards.hpp"

using namespace kvmpp;

void inside(SpinLock &one, SpinLock &other, Mutex &mutex)
{
	Locked locked(one);
	// expected-error-re@+1 {{acquiring {{.*}} 'preempt_off' that is already held}}
	Locked inner(other);
	// expected-error@+1 {{'Locked' while context 'preempt_off' is held}}
	Locked mutexed(mutex);
}
