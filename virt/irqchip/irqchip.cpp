// SPDX-License-Identifier: GPL-2.0
#include "irqchip.hpp"

#include "arch/x86/x86.hpp"
#include "lapic.hpp"
#include "pit.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace kvmpp
{

static_assert(IrqRouting::max_pins == Ioapic::pins);

Irqchip::Irqchip(Mode mode, u32 user_pins, const VcpuTable &vcpus, const X2apicApi &api)
	: mode_(mode), user_pins_(user_pins), api_(api), bus_(vcpus, api)
{
	lock_.init(GLUE_LOCK_IRQCHIP);
	resend_timer_.irqchip = this;
	glue_timer_init(&resend_timer_, resend);
}

Result<Owned<Irqchip>> Irqchip::create(Mode mode, u32 user_pins, const VcpuTable &vcpus,
				       const X2apicApi &api)
{
	auto irqchip = Owned<Irqchip>::create(mode, user_pins, vcpus, api);

	if (!irqchip)
		return Errno::nomem;
	if (Result<> r = irqchip->init(); !r)
		return r.error();
	return irqchip;
}

Result<> Irqchip::init()
{
	auto routing =
		mode_ == Mode::kernel ? IrqRouting::create_default() : IrqRouting::create({}, {});
	if (!routing)
		return routing.error();
	routing_.store(routing->release(), std::memory_order_relaxed);
	if (Result<> r = srcu_.init(); !r)
		return r;
	srcu_made_ = true;
	return {};
}

Irqchip::~Irqchip()
{
	Owned<Pit>::adopt(pit());
	glue_timer_cancel(&resend_timer_);
	if (srcu_made_)
		srcu_.cleanup();
	Owned<IrqRouting>::adopt(routing_.load(std::memory_order_relaxed));
}

Result<> Irqchip::create_pit(bool speaker)
{
	if (pit())
		return Errno::exist;
	auto made = Owned<Pit>::create(*this, speaker);
	if (!made)
		return Errno::nomem;
	Pit *none = nullptr;
	if (!pit_.compare_exchange_strong(none, made.get(), std::memory_order_acq_rel))
		return Errno::exist;
	(void)made.release();
	return {};
}

Result<> Irqchip::set_routing(std::span<const kvm_irq_routing_entry> entries)
{
	auto routing = IrqRouting::create(entries, {.has_chips = mode_ == Mode::kernel,
						    .wide_ids = api_.has_wide_ids(),
						    .user_pins = user_pins_});
	if (!routing)
		return routing.error();
	auto old = Owned<IrqRouting>::adopt(
		routing_.exchange(routing->release(), std::memory_order_acq_rel));
	srcu_.synchronize();
	return {};
}

int Irqchip::set_irq(IrqSource source, u32 gsi, bool level)
{
	SrcuRead read(srcu_);
	const IrqRoute *route = routing(read).find(gsi);

	if (!route)
		return -1;
	if (route->is_message) {
		if (!level)
			return -1;
		Result<int> sent = signal(route->message);
		return sent ? *sent : -1;
	}
	/* Which of the controllers the guest uses, it alone knows. */
	int accepted = -1;
	Locked locked(lock_);
	for (unsigned chip = 0; chip < irqchip_ids; chip++) {
		if (!route->has_pin_of(chip))
			continue;
		u32 pin = route->pins[chip];
		int by = chip == static_cast<unsigned>(IrqchipId::ioapic)
				 ? ioapic_.set_irq(pin, source, level)
				 : pic_.set_irq(chip * 8 + pin, source, level);
		if (by >= 0)
			accepted = accepted < 0 ? by : accepted + by;
	}
	update_intr();
	return accepted;
}

Result<int> Irqchip::signal(const Msi &message) const
{
	bool wide_ids = api_.has_wide_ids();

	if (!message.is_valid(wide_ids))
		return Errno::inval;
	return bus_.deliver(message.decode(wide_ids));
}

void Irqchip::add(IrqAckListener &listener)
{
	Locked locked(lock_);

	listeners_.push_front(listener);
}

void Irqchip::remove(IrqAckListener &listener)
{
	{
		Locked locked(lock_);

		listeners_.remove(listener);
	}
	synchronize();
}

void Irqchip::tell_listeners(IrqchipId chip, u32 pins)
{
	SrcuRead read(srcu_);

	for (; pins; pins &= pins - 1) {
		int gsi = routing(read).gsi_of(chip, static_cast<u32>(std::countr_zero(pins)));

		listeners_.for_each([&](IrqAckListener &listener) {
			if (gsi >= 0 && listener.gsi == static_cast<u32>(gsi))
				listener.acknowledged();
		});
	}
}

void Irqchip::update_intr()
{
	bool up = pic_.update();

	if (!intr_.exchange(up, std::memory_order_acq_rel) && up)
		bus_.external_interrupt();
}

/* Whoever waits for the end of an interrupt may lower its line before it is looked at again. */
template <class Use> void Irqchip::use_pic(Use use)
{
	u16 ended;

	{
		Locked locked(lock_);
		use(pic_);
		ended = pic_.take_ended();
		if (!ended)
			update_intr();
	}
	if (!ended)
		return;
	tell_listeners(IrqchipId::pic_master, ended & 0xff);
	tell_listeners(IrqchipId::pic_slave, ended >> 8);
	Locked locked(lock_);
	update_intr();
}

u8 Irqchip::acknowledge_external_interrupt()
{
	u8 vector = 0;

	use_pic([&](Pic &pic) {
		/* INTR goes down in between, for whoever is to see it go up again. */
		intr_.store(false, std::memory_order_relaxed);
		vector = pic.acknowledge();
	});
	return vector;
}

bool Irqchip::access(DeviceAccess &access)
{
	if (mode_ != Mode::kernel)
		return false;
	if (access.space == IoSpace::mmio)
		return access_ioapic(access);
	return access_pic(access) || (pit() && pit()->access(access));
}

bool Irqchip::access_pic(DeviceAccess &access)
{
	if (!Pic::has_ports(access.address, access.length))
		return false;
	u32 port = static_cast<u32>(access.address);
	if (access.length != 1) {
		/* Bytes only: others are lost, and read as 0. */
		if (!access.is_write)
			std::fill_n(access.data, access.length, u8{0});
		return true;
	}
	use_pic([&](Pic &pic) {
		if (access.is_write)
			pic.write(port, access.data[0]);
		else
			access.data[0] = pic.read(port);
	});
	return true;
}

bool Irqchip::access_ioapic(DeviceAccess &access)
{
	if (!ioapic_has(access.address, access.length))
		return false;
	Locked locked(lock_);
	u64 offset = access.address & (Ioapic::bytes - 1);
	if (access.is_write) {
		u32 value = 0;

		for (u32 i = 0; i < access.length && i < sizeof(value); i++)
			value |= u32{access.data[i]} << 8 * i;
		ioapic_.write(offset, value);
	} else {
		u64 value = ioapic_.read(offset);

		for (u32 i = 0; i < access.length; i++)
			access.data[i] = static_cast<u8>(value >> 8 * i);
	}
	return true;
}

void Irqchip::end_of_interrupt(u8 vector, bool level)
{
	u32 pins;

	if (!ioapic_vectors_.has(vector))
		return;
	{
		Locked locked(lock_);
		pins = ioapic_.pins_of(vector);
	}
	/* First, so that what has lowered its line by then does not come again. */
	tell_listeners(IrqchipId::ioapic, pins);
	if (!level)
		return;
	bool later;
	{
		Locked locked(lock_);
		later = ioapic_.end(vector);
	}
	if (later)
		glue_timer_start(&resend_timer_, glue_timer_now() + resend_after);
}

u64 Irqchip::resend(glue_timer *timer)
{
	Irqchip &irqchip = *static_cast<ResendTimer *>(timer)->irqchip;
	Locked locked(irqchip.lock_);

	irqchip.ioapic_.resend();
	return 0;
}

bool Irqchip::write_at_once(Lapic &lapic, u32 index, u64 value, u64 tsc_offset)
{
	switch (index) {
	case msr::tsc_deadline:
		return lapic.set_deadline_at_once(value, tsc_offset);
	case Lapic::first_msr + Lapic::icr: {
		constexpr u64 delivery = 7 << 8, logical = 1 << 11, shorthand = 3 << 18;

		/* To one: what may be for all takes long. */
		if ((value & (delivery | logical | shorthand)) ||
		    value >> 32 >= ApicMessage::xapic_broadcast)
			return false;
		return lapic.write_icr(value);
	}
	case Lapic::first_msr + Lapic::eoi: {
		int vector = lapic.in_service();

		if (value || !lapic.is_x2apic() ||
		    (vector >= 0 && (ioapic_vectors_.has(static_cast<u8>(vector)) ||
				     lapic.is_level(static_cast<u8>(vector)))))
			return false;
		lapic.end_edge();
		return true;
	}
	default:
		return false;
	}
}

bool Irqchip::user_wants_end_of(u8 vector)
{
	if (user_pins_ == 0)
		return false;
	SrcuRead read(srcu_);
	return routing(read).user_pin_has(vector);
}

void Irqchip::get_pic(unsigned chip, kvm_pic_state &state)
{
	Locked locked(lock_);

	pic_.get(chip, state);
}

void Irqchip::set_pic(unsigned chip, const kvm_pic_state &state)
{
	use_pic([&](Pic &pic) { pic.set(chip, state); });
}

void Irqchip::get_ioapic(kvm_ioapic_state &state)
{
	Locked locked(lock_);

	ioapic_.get(state);
}

void Irqchip::set_ioapic(const kvm_ioapic_state &state)
{
	Locked locked(lock_);

	ioapic_.set(state);
}

} // namespace kvmpp
