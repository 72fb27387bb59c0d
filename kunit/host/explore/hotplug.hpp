/* SPDX-License-Identifier: GPL-2.0 */
/* CPUs that go and come, through the module's callbacks, each on that CPU and in the caller's thread. */
#pragma once

namespace kvmpp::explore
{

void take_offline(int cpu);
/* The callback's errno; the CPU is offline again then. */
int bring_online(int cpu);

void reset_hotplug();
void check_hotplug_at_rest();

} // namespace kvmpp::explore
