/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One interrupt on its way to local APICs: "Interrupt Command Register (ICR)", "Message Signalled Interrupts",
 * and an entry of the I/O APIC's redirection table all say the same in their own layouts.
 */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp
{

struct ApicMessage {
	/* "Delivery Mode"; the numbers are the hardware's. */
	enum class Delivery : u8 {
		fixed = 0,
		lowest_priority = 1,
		smi = 2,
		nmi = 4,
		init = 5,
		startup = 6,
		external = 7
	};
	/* All of them, physical or logical. */
	static constexpr u32 xapic_broadcast = 0xff, x2apic_broadcast = ~u32{0};
	enum class Shorthand : u8 { none = 0, self = 1, all = 2, all_but_self = 3 };

	/* An id, or a logical destination: of 8 bits, or of 32 from an APIC in x2APIC mode. */
	u32 destination = 0;
	u8 vector = 0;
	Delivery delivery = Delivery::fixed;
	Shorthand shorthand = Shorthand::none;
	bool logical = false;
	/* Trigger mode: its end is to be told to the I/O APIC. */
	bool level = false;
	/* False: the "INIT Level De-assert", which does nothing. */
	bool asserted = true;
};

/* Where an I/O APIC's messages go: the bus; in a test, whoever looks at them. */
class ApicMessageSink
{
public:
	/* As ApicBus::deliver(). */
	virtual int deliver(const ApicMessage &message) const = 0;

protected:
	~ApicMessageSink() = default;
};

} // namespace kvmpp
