// SPDX-License-Identifier: GPL-2.0
#include "apic_bus.hpp"

#include "lapic.hpp"

namespace kvmpp
{

bool ApicBus::is_for(const Lapic &target, const ApicMessage &message, const Lapic *sender) const
{
	using Shorthand = ApicMessage::Shorthand;

	switch (message.shorthand) {
	case Shorthand::self:
		return &target == sender;
	case Shorthand::all:
		return true;
	case Shorthand::all_but_self:
		return &target != sender;
	case Shorthand::none:
		break;
	}
	u32 destination = message.destination;
	/* KVM's quirk: what comes from devices has had eight bits before it had more. */
	if (!sender && destination == ApicMessage::xapic_broadcast && !api_.is_broadcast_wide() &&
	    target.is_x2apic())
		destination = ApicMessage::x2apic_broadcast;
	return target.is_for(destination, message.logical);
}

int ApicBus::give(const ApicMessage &message, const Lapic *sender) const
{
	bool one_of = message.delivery == ApicMessage::Delivery::lowest_priority;
	Lapic *chosen = nullptr;
	int given = -1;

	RcuRead read;
	/* Most are for one, and that one is where its id says. */
	if (message.shorthand == ApicMessage::Shorthand::none && !message.logical && !one_of &&
	    message.destination < VcpuTable::max_vcpus &&
	    message.destination != ApicMessage::xapic_broadcast)
		if (VcpuEntry *entry = vcpus_.find(message.destination);
		    entry && entry->lapic && entry->lapic->has_own_id())
			return entry->lapic->accept(message, entry->lapic.get() == sender);
	for (u32 i = 0, end = vcpus_.end(); i < end; i++) {
		VcpuEntry *entry = vcpus_.find(i);
		Lapic *target = entry ? entry->lapic.get() : nullptr;

		if (!target || !is_for(*target, message, sender))
			continue;
		given = given < 0 ? 0 : given;
		if (!one_of)
			given += target->accept(message, target == sender);
		else if (target->is_enabled() &&
			 (!chosen || target->arbitration() < chosen->arbitration()))
			chosen = target;
	}
	return chosen ? chosen->accept(message, chosen == sender) : given;
}

int ApicBus::deliver(const ApicMessage &message) const
{
	return give(message, nullptr);
}

int ApicBus::send(const Lapic &sender, const ApicMessage &message) const
{
	return give(message, &sender);
}

void ApicBus::external_interrupt() const
{
	RcuRead read;

	for (u32 i = 0, end = vcpus_.end(); i < end; i++)
		if (VcpuEntry *entry = vcpus_.find(i);
		    entry && entry->lapic && entry->lapic->takes_external())
			entry->lapic->post();
}

} // namespace kvmpp
