// SPDX-License-Identifier: GPL-2.0
/* What the C++ under test asks of parts that these suites do without: no CPU is dedicated, no VM has a clock. */
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

bool dedicated_any_lost()
{
	return false;
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
