// SPDX-License-Identifier: GPL-2.0
#include "ioapic.hpp"

#include "include/kvmpp/nospec.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

namespace
{

constexpr u64 register_select = 0x00, window = 0x10;
constexpr u32 id_register = 0, version_register = 1, arbitration_register = 2,
	      first_redirection = 0x10;
constexpr u32 version = 0x11;

static_assert(Ioapic::pins == KVM_IOAPIC_NUM_PINS);

} // namespace

Ioapic::Ioapic(const ApicMessageSink &bus, VectorSet &vectors) : bus_(bus), vectors_(vectors)
{
}

int Ioapic::set_irq(u32 pin, IrqSource source, bool level)
{
	if (lines_[pin].set(source, level))
		return raise(pin);
	irr_ &= ~(1u << pin);
	return 1;
}

int Ioapic::raise(u32 pin)
{
	u32 bit = 1u << pin;
	bool was_up = irr_ & bit;

	irr_ |= bit;
	if (redirections_[pin].has(Redirection::level))
		return send(pin);
	sent_edges_ &= ~bit;
	return was_up ? 0 : send(pin);
}

int Ioapic::send(u32 pin)
{
	Redirection &redirection = redirections_[pin];
	bool level = redirection.has(Redirection::level);

	if (redirection.has(Redirection::masked) ||
	    (level && redirection.has(Redirection::remote_irr)))
		return -1;
	if (!level)
		sent_edges_ |= 1u << pin;
	int accepted = bus_.deliver(redirection.message());
	if (level && accepted > 0)
		redirection.bits |= Redirection::remote_irr;
	return accepted;
}

u32 Ioapic::read(u64 offset) const
{
	switch (offset) {
	case register_select:
		return selected_;
	case window:
		return read_register();
	default:
		return 0;
	}
}

void Ioapic::write(u64 offset, u32 value)
{
	switch (offset) {
	case register_select:
		selected_ = static_cast<u8>(value);
		break;
	case window:
		write_register(value);
		break;
	}
}

u32 Ioapic::read_register() const
{
	switch (selected_) {
	case version_register:
		return (pins - 1) << 16 | version;
	case id_register:
	case arbitration_register:
		return u32{id_} << 24;
	}
	u32 pin = (selected_ - first_redirection) / 2;
	if (pin >= pins)
		return ~0u;
	u64 bits = redirections_[array_index_nospec(pin, pins)].bits;
	return static_cast<u32>(selected_ % 2 ? bits >> 32 : bits);
}

void Ioapic::write_register(u32 value)
{
	switch (selected_) {
	case id_register:
		id_ = value >> 24 & 0xf;
		return;
	case version_register:
	case arbitration_register:
		return;
	}
	u32 pin = (selected_ - first_redirection) / 2;
	if (pin < pins)
		write_redirection(array_index_nospec(pin, pins), selected_ % 2, value);
}

void Ioapic::write_redirection(u32 pin, bool high, u32 value)
{
	constexpr u64 read_only = Redirection::delivery_status | Redirection::remote_irr;
	constexpr u64 low_half = 0xffffffff;
	Redirection &redirection = redirections_[pin];
	u64 kept = redirection.bits & (high ? low_half : ~low_half | read_only);

	redirection.bits = kept | (high ? u64{value} << 32 : value & ~read_only);
	/* What Linux and Xen rely on where there is no EOI register: it ends what is in service. */
	if (!redirection.has(Redirection::level))
		redirection.bits &= ~Redirection::remote_irr;
	/* Before anything is sent, whose end would otherwise be missed. */
	tell_vectors();
	if (redirection.has(Redirection::level) && (irr_ & 1u << pin))
		send(pin);
}

void Ioapic::tell_vectors()
{
	u64 words[4] = {};

	for (const Redirection &redirection : redirections_)
		words[redirection.vector() / 64] |= u64{1} << redirection.vector() % 64;
	vectors_.set(words);
}

u32 Ioapic::pins_of(u8 vector) const
{
	u32 found = 0;

	for (u32 pin = 0; pin < pins; pin++)
		if (redirections_[pin].vector() == vector)
			found |= 1u << pin;
	return found;
}

bool Ioapic::end(u8 vector)
{
	bool later = false;

	for (u32 pin = 0; pin < pins; pin++) {
		Redirection &redirection = redirections_[pin];

		if (redirection.vector() != vector || !redirection.has(Redirection::level))
			continue;
		redirection.bits &= ~Redirection::remote_irr;
		if (!(irr_ & 1u << pin) || redirection.has(Redirection::masked)) {
			repeated_[pin] = 0;
		} else if (++repeated_[pin] < storm) {
			send(pin);
		} else {
			repeated_[pin] = 0;
			later = true;
		}
	}
	return later;
}

void Ioapic::resend()
{
	for (u32 pin = 0; pin < pins; pin++)
		if ((irr_ & 1u << pin) && redirections_[pin].has(Redirection::level))
			send(pin);
}

void Ioapic::get(kvm_ioapic_state &state) const
{
	state = {.base_address = base_.load(std::memory_order_relaxed),
		 .ioregsel = selected_,
		 .id = id_,
		 .irr = irr_ & ~sent_edges_,
		 .pad = 0,
		 .redirtbl = {}};
	for (u32 pin = 0; pin < pins; pin++)
		state.redirtbl[pin].bits = redirections_[pin].bits;
}

void Ioapic::set(const kvm_ioapic_state &state)
{
	base_.store(state.base_address, std::memory_order_relaxed);
	selected_ = static_cast<u8>(state.ioregsel);
	id_ = state.id & 0xf;
	for (u32 pin = 0; pin < pins; pin++)
		redirections_[pin].bits = state.redirtbl[pin].bits;
	tell_vectors();
	irr_ = 0;
	sent_edges_ = 0;
	for (u32 pin = 0; pin < pins; pin++)
		if (state.irr & 1u << pin)
			raise(pin);
}

} // namespace kvmpp
