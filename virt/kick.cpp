// SPDX-License-Identifier: GPL-2.0
#include "include/kvmpp/kick.hpp"

#include "dedicated_cpus.hpp"

namespace kvmpp
{

void kick(const KickTarget &target)
{
	/* Until it is sent, who gives the CPU back waits. */
	PreemptOff preempt;
	Whereabouts where = target.where();

	if (where.is_nowhere())
		return;
	if (where.is_dedicated())
		kick_dedicated(where.cpu());
	else if (where.cpu() != preempt.cpu())
		glue_send_reschedule(where.cpu().value);
}

} // namespace kvmpp
