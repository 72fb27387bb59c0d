// SPDX-License-Identifier: GPL-2.0
/* A thread that holds a lock does not take it again. */
#include "include/kvmpp/guards.hpp"

using namespace kvmpp;

void twice(Mutex &mutex)
{
	Locked locked(mutex);
	// expected-error@+1 {{acquiring mutex 'mutex' that is already held}}
	Locked again(mutex);
}
