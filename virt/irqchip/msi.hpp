/* SPDX-License-Identifier: GPL-2.0 */
/* "Message Signalled Interrupts": an interrupt as a device writes it to memory. */
#pragma once

#include "apic_message.hpp"

namespace kvmpp
{

struct Msi {
	u32 address_low = 0;
	/* With KVM_X2APIC_API_USE_32BIT_IDS, bits 8 to 31 of the destination; else ignored. */
	u32 address_high = 0;
	u32 data = 0;

	bool is_valid(bool wide_ids) const { return !wide_ids || !(address_high & 0xff); }
	bool is_level() const { return data & 1 << 15; }
	u8 vector() const { return static_cast<u8>(data); }

	ApicMessage decode(bool wide_ids) const
	{
		auto delivery = static_cast<ApicMessage::Delivery>(data >> 8 & 7);

		/* "Redirection hint indication": one of several; the lowest priority decides. */
		if ((address_low & 1 << 3) && delivery == ApicMessage::Delivery::fixed)
			delivery = ApicMessage::Delivery::lowest_priority;
		return {.destination =
				(address_low >> 12 & 0xff) | (wide_ids ? address_high & ~0xffu : 0),
			.vector = vector(),
			.delivery = delivery,
			.logical = (address_low & 1 << 2) != 0,
			.level = is_level()};
	}
};

} // namespace kvmpp
