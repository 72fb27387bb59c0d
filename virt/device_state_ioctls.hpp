/* SPDX-License-Identifier: GPL-2.0 */
/* The ioctls of the device that say what vCPUs can be. */
#pragma once

#include "include/kvmpp/contexts.hpp"
#include "include/kvmpp/result.hpp"

namespace kvmpp
{

/* False: @command is none of them. May sleep. */
bool device_state_ioctl(unsigned command, unsigned long argument, Result<long> &result) MAY_SLEEP;

} // namespace kvmpp
