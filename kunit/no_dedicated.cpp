// SPDX-License-Identifier: GPL-2.0
/* No CPU is dedicated in these suites: what the C++ under test asks virt/dedicated_cpus.cpp. */
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

} // namespace kvmpp
