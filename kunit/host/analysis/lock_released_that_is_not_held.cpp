// SPDX-License-Identifier: GPL-2.0
/* Only the holder of a lock gives it back. */
#include "include/kvmpp/guards.hpp"

using namespace kvmpp;

void release(Mutex &mutex, SpinLock &lock)
{
	// expected-error@+1 {{releasing mutex 'mutex' that was not held}}
	mutex.unlock();
	// expected-error-re@+1 {{releasing {{.*}} 'lock' that was not held}}
	lock.unlock();
}
