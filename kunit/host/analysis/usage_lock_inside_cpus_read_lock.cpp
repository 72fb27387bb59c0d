// SPDX-License-Identifier: GPL-2.0
/* kvmpp_usage_lock is outside cpus_read_lock: hotplug callbacks wait for holders of the latter. */
#include "virt/hardware.cpp"

namespace kvmpp
{

void taken_inside()
{
	CpusReadLock cpus;
	// expected-error@+1 {{mutex 'usage_lock' must be acquired before 'cpus_stay'}}
	Locked locked(usage_lock);
}

void by_a_call()
{
	CpusReadLock cpus;
	// expected-error@+1 {{'hardware_put' while context 'cpus_stay' is held}}
	hardware_put();
}

} // namespace kvmpp
