// SPDX-License-Identifier: GPL-2.0
/*
 * No CPU is dedicated in these suites, and no guest has a clock: what the C++ under test asks
 * virt/dedicated_cpus.cpp and virt/clock.cpp.
 */
#include "virt/clock.hpp"
#include "virt/dedicated_cpus.hpp"

namespace kvmpp
{

void dedicated_machine_down()
{
}

void dedicated_crash()
{
}

bool dedicated_may_offline(CpuId)
{
	return true;
}

void kick_dedicated(CpuId)
{
}

void wait_until_seen(const KickTarget &, Request)
{
}

void VmClock::machine_sleeps()
{
}

void VmClock::machine_woke()
{
}

} // namespace kvmpp
