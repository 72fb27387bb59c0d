// SPDX-License-Identifier: GPL-2.0
#include "apic_bus.hpp"

namespace kvmpp
{

int ApicBus::deliver(const ApicMessage &) const
{
	(void)vcpus_;
	return -1;
}

void ApicBus::external_interrupt() const
{
}

} // namespace kvmpp
