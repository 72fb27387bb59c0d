/* SPDX-License-Identifier: GPL-2.0 */
/* The ioctls of a VM for its 8254. */
#pragma once

#include "include/kvmpp/contexts.hpp"
#include "include/kvmpp/result.hpp"

namespace kvmpp
{

class Vm;

/* False: @command is none of them. May sleep. */
bool pit_ioctl(Vm &vm, unsigned command, unsigned long argument, Result<long> &result) MAY_SLEEP;

} // namespace kvmpp
