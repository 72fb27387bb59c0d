// SPDX-License-Identifier: GPL-2.0
/* What others call of virt/dedicated_cpus.cpp, in a module in which no CPU is ever dedicated. */
#include "virt/dedicated_cpus.hpp"

namespace kvmpp
{

void kick(const KickTarget &)
{
}

void wait_until_seen(const KickTarget &, Request)
{
}

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

} // namespace kvmpp
