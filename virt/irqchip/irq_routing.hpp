/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a GSI, a number that user space raises an interrupt by, stands for: pins of the controllers, at most one
 * of each, or a message. A table never changes once it is published; KVM_SET_GSI_ROUTING publishes another one.
 */
#pragma once

#include "include/kvmpp/nospec.hpp"
#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"
#include "msi.hpp"

#include <span>

struct kvm_irq_routing_entry;

namespace kvmpp
{

/* The numbers are those of KVM_IRQCHIP_*. */
enum class IrqchipId : u8 { pic_master = 0, pic_slave = 1, ioapic = 2 };
inline constexpr unsigned irqchip_ids = 3;

struct IrqRoute {
	bool is_message;
	Msi message;
	/* One bit for each IrqchipId, and its pin. */
	u8 chips;
	u8 pins[irqchip_ids];

	bool is_empty() const { return !is_message && !chips; }
	bool has_pin_of(unsigned chip) const { return chips & 1 << chip; }
};

class IrqRouting
{
public:
	static constexpr u32 max_gsis = 4096; /* KVM_MAX_IRQ_ROUTES */
	static constexpr u32 max_pins = 24;

	/* What there is to be routed to. */
	struct Rules {
		bool has_chips;
		bool wide_ids;
		/* Pins of user space's I/O APIC, which come first, as messages. */
		u32 user_pins;
	};

	/* Errno::inval: a GSI, pin, chip or kind that there is not, or twice; Errno::nomem. May sleep. */
	static Result<Owned<IrqRouting>> create(std::span<const kvm_irq_routing_entry> entries,
						const Rules &rules) MAY_SLEEP;
	/* The one that KVM_CREATE_IRQCHIP begins with: as on a PC, but for GSI 0. */
	static Result<Owned<IrqRouting>> create_default() MAY_SLEEP;

	/* Null where nothing is routed. */
	const IrqRoute *find(u32 gsi) const
	{
		if (gsi >= routes_.size())
			return nullptr;
		const IrqRoute &route = routes_[array_index_nospec(gsi, routes_.size())];
		return route.is_empty() ? nullptr : &route;
	}
	/* The GSI of a pin, the last where there are several; negative where none is. */
	int gsi_of(IrqchipId chip, u32 pin) const
	{
		return gsis_[static_cast<unsigned>(chip)][pin];
	}
	/* A pin of user space's I/O APIC sends @vector, level-triggered. */
	bool user_pin_has(u8 vector) const
	{
		return user_vectors_[vector / 64] & u64{1} << vector % 64;
	}

private:
	template <class T> friend class Owned;
	IrqRouting();
	Result<> add(const kvm_irq_routing_entry &entry, const Rules &rules);

	OwnedArray<IrqRoute> routes_;
	s16 gsis_[irqchip_ids][max_pins];
	u64 user_vectors_[256 / 64] = {};
};

} // namespace kvmpp
