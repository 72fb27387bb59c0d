// SPDX-License-Identifier: GPL-2.0
/* What hotplug callbacks read is written inside cpus_read_lock; the VMs are counted under the lock. */
#include "virt/hardware.cpp"

namespace kvmpp
{

void enable()
{
	Locked locked(usage_lock);

	// expected-error@+1 {{writing variable 'wanted' requires holding context 'cpus_stay' exclusively}}
	wanted = true;
}

void count()
{
	CpusReadLock cpus;

	// expected-error@+1 {{writing variable 'users' requires holding mutex 'usage_lock' exclusively}}
	users++;
}

} // namespace kvmpp
