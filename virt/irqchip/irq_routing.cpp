// SPDX-License-Identifier: GPL-2.0
#include "irq_routing.hpp"

#include <linux/kvm.h>

#include <algorithm>

namespace kvmpp
{

namespace
{

constexpr unsigned pins_of[irqchip_ids] = {8, 8, IrqRouting::max_pins};

kvm_irq_routing_entry pin_entry(u32 gsi, IrqchipId chip, u32 pin)
{
	kvm_irq_routing_entry entry{};

	entry.gsi = gsi;
	entry.type = KVM_IRQ_ROUTING_IRQCHIP;
	entry.u.irqchip = {.irqchip = static_cast<u32>(chip), .pin = pin};
	return entry;
}

} // namespace

IrqRouting::IrqRouting()
{
	for (auto &chip : gsis_)
		std::fill(std::begin(chip), std::end(chip), s16{-1});
}

Result<Owned<IrqRouting>> IrqRouting::create(std::span<const kvm_irq_routing_entry> entries,
					     const Rules &rules)
{
	u32 count = 0;

	for (const kvm_irq_routing_entry &entry : entries) {
		if (entry.gsi >= max_gsis)
			return Errno::inval;
		count = std::max(count, entry.gsi + 1);
	}
	auto routing = Owned<IrqRouting>::create();
	if (!routing)
		return Errno::nomem;
	if (count) {
		routing->routes_ = OwnedArray<IrqRoute>::create(count);
		if (!routing->routes_)
			return Errno::nomem;
	}
	for (const kvm_irq_routing_entry &entry : entries)
		if (Result<> r = routing->add(entry, rules); !r)
			return r.error();
	return routing;
}

Result<Owned<IrqRouting>> IrqRouting::create_default()
{
	constexpr u32 pic_pins = 16;
	auto entries = OwnedArray<kvm_irq_routing_entry>::create(pic_pins + max_pins);

	if (!entries)
		return Errno::nomem;
	for (u32 gsi = 0; gsi < pic_pins; gsi++)
		entries[gsi] = pin_entry(
			gsi, gsi < 8 ? IrqchipId::pic_master : IrqchipId::pic_slave, gsi % 8);
	for (u32 gsi = 0; gsi < max_pins; gsi++)
		entries[pic_pins + gsi] = pin_entry(gsi, IrqchipId::ioapic, gsi);
	return create(std::span(entries.data(), entries.size()),
		      {.has_chips = true, .wide_ids = false, .user_pins = 0});
}

Result<> IrqRouting::add(const kvm_irq_routing_entry &entry, const Rules &rules)
{
	IrqRoute &route = routes_[array_index_nospec(entry.gsi, routes_.size())];

	if (route.is_message)
		return Errno::inval;
	switch (entry.type) {
	case KVM_IRQ_ROUTING_IRQCHIP: {
		u32 chip = entry.u.irqchip.irqchip, pin = entry.u.irqchip.pin;

		if (entry.flags || !rules.has_chips || chip >= irqchip_ids)
			return Errno::inval;
		chip = array_index_nospec(chip, irqchip_ids);
		if (pin >= pins_of[chip] || route.has_pin_of(chip))
			return Errno::inval;
		pin = array_index_nospec(pin, pins_of[chip]);
		route.chips |= static_cast<u8>(1 << chip);
		route.pins[chip] = static_cast<u8>(pin);
		gsis_[chip][pin] = static_cast<s16>(entry.gsi);
		return {};
	}
	case KVM_IRQ_ROUTING_MSI:
		/* Whose message it is makes no difference on x86. */
		if ((entry.flags & ~KVM_MSI_VALID_DEVID) || route.chips)
			return Errno::inval;
		route.is_message = true;
		route.message = {.address_low = entry.u.msi.address_lo,
				 .address_high = entry.u.msi.address_hi,
				 .data = entry.u.msi.data};
		if (!route.message.is_valid(rules.wide_ids))
			return Errno::inval;
		if (entry.gsi < rules.user_pins && route.message.is_level())
			user_vectors_[route.message.vector() / 64] |=
				u64{1} << route.message.vector() % 64;
		return {};
	default:
		return Errno::inval;
	}
}

} // namespace kvmpp
