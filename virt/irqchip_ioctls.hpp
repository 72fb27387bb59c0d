/* SPDX-License-Identifier: GPL-2.0 */
/* The ioctls of a VM for its interrupt controllers in the kernel, and for what is routed to them. */
#pragma once

#include "include/kvmpp/contexts.hpp"
#include "include/kvmpp/result.hpp"

namespace kvmpp
{

class Vm;

/* False: @command is none of them. May sleep. */
bool irqchip_ioctl(Vm &vm, unsigned command, unsigned long argument,
		   Result<long> &result) MAY_SLEEP;

} // namespace kvmpp
