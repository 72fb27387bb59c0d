// SPDX-License-Identifier: GPL-2.0
#include "pic.hpp"

#include <bit>
#include <utility>

namespace kvmpp
{

namespace
{

constexpr u32 master_port = 0x20, slave_port = 0xa0, elcr_port = 0x4d0;

/* kvm_pic_state::init_state: what the next write of the odd port is. */
enum : u8 { expects_ocw1, expects_icw2, expects_icw3, expects_icw4 };

} // namespace

bool Pic::has_ports(u64 first, u32 count)
{
	for (u32 port : {master_port, slave_port, elcr_port})
		if (first >= port && first + count <= port + 2)
			return true;
	return false;
}

int Pic::set_irq(u32 pin, IrqSource source, bool level)
{
	return raise(pin / 8, pin % 8, lines_[pin].set(source, level));
}

int Pic::raise(unsigned chip, unsigned irq, bool level)
{
	kvm_pic_state &s = chips_[chip];
	u8 bit = static_cast<u8>(1 << irq);
	bool level_triggered = s.elcr & bit, was_up = s.last_irr & bit, pending = s.irr & bit;
	bool requests = level && (level_triggered || !was_up);

	s.last_irr = static_cast<u8>(level ? s.last_irr | bit : s.last_irr & ~bit);
	if (requests)
		s.irr |= bit;
	else if (level_triggered)
		s.irr &= static_cast<u8>(~bit);
	if (s.imr & bit)
		return -1;
	return !(requests && pending);
}

/* Of some levels, the one of the highest priority. */
int Pic::highest(unsigned chip, u8 bits) const
{
	unsigned top = chips_[chip].priority_add;

	if (!bits)
		return none;
	return static_cast<int>((std::countr_zero(std::rotr(bits, static_cast<int>(top))) + top) %
				8);
}

u8 Pic::in_service(unsigned chip) const
{
	const kvm_pic_state &s = chips_[chip];

	/* "Special mask mode": a level that is masked does not hold up lower ones. */
	return static_cast<u8>(s.special_mask ? s.isr & ~s.imr : s.isr);
}

int Pic::request(unsigned chip) const
{
	const kvm_pic_state &s = chips_[chip];
	u8 served = in_service(chip);
	int wanted = highest(chip, static_cast<u8>(s.irr & ~s.imr));

	/* "Special fully nested mode": the slave may have a more urgent one by now. */
	if (chip == master && s.special_fully_nested_mode)
		served &= static_cast<u8>(~(1 << cascade));
	if (wanted == none || !served)
		return wanted;
	unsigned top = s.priority_add;
	unsigned of_wanted = (static_cast<unsigned>(wanted) - top) % 8;
	unsigned of_served = (static_cast<unsigned>(highest(chip, served)) - top) % 8;
	return of_wanted < of_served ? wanted : none;
}

bool Pic::update()
{
	if (request(slave) != none) {
		raise(master, cascade, true);
		raise(master, cascade, false);
	}
	return request(master) != none;
}

void Pic::begin(unsigned chip, unsigned irq)
{
	kvm_pic_state &s = chips_[chip];
	u8 bit = static_cast<u8>(1 << irq);

	s.isr |= bit;
	if (!(s.elcr & bit))
		s.irr &= static_cast<u8>(~bit);
	if (s.auto_eoi) {
		if (s.rotate_on_auto_eoi)
			s.priority_add = static_cast<u8>((irq + 1) % 8);
		end(chip, irq);
	}
}

void Pic::end(unsigned chip, unsigned irq)
{
	chips_[chip].isr &= static_cast<u8>(~(1 << irq));
	ended_ |= static_cast<u16>(1 << (chip * 8 + irq));
}

u16 Pic::take_ended()
{
	return std::exchange(ended_, u16{0});
}

u8 Pic::acknowledge()
{
	int irq = request(master);

	/* It has gone meanwhile: "a default IR7", without its bit in the ISR. */
	if (irq == none)
		return static_cast<u8>(chips_[master].irq_base + spurious);
	begin(master, static_cast<unsigned>(irq));
	if (irq != cascade)
		return static_cast<u8>(chips_[master].irq_base + irq);
	int behind = request(slave);
	if (behind == none)
		return static_cast<u8>(chips_[slave].irq_base + spurious);
	begin(slave, static_cast<unsigned>(behind));
	return static_cast<u8>(chips_[slave].irq_base + behind);
}

u8 Pic::poll(unsigned chip)
{
	int irq = request(chip);

	if (irq == none)
		return 0;
	/* "The read pulse is an interrupt acknowledge": of the slave alone, if it is polled. */
	begin(chip, static_cast<unsigned>(irq));
	return static_cast<u8>(0x80 | irq);
}

u8 Pic::read(u32 port)
{
	if (port >= elcr_port)
		return chips_[port % 2].elcr;
	unsigned chip = port >= slave_port;
	kvm_pic_state &s = chips_[chip];
	if (std::exchange(s.poll, u8{0}))
		return poll(chip);
	if (port % 2)
		return s.imr;
	return s.read_reg_select ? s.isr : s.irr;
}

void Pic::write(u32 port, u8 value)
{
	if (port >= elcr_port)
		chips_[port % 2].elcr = value & elcr_masks[port % 2];
	else if (port % 2)
		write_data(port >= slave_port, value);
	else
		write_command(port >= slave_port, value);
}

void Pic::initialise(unsigned chip, u8 icw1)
{
	kvm_pic_state &s = chips_[chip];
	u8 edges = static_cast<u8>(s.irr & ~s.elcr);

	s.last_irr = 0;
	s.irr &= s.elcr;
	s.imr = 0;
	s.priority_add = 0;
	s.special_mask = 0;
	s.read_reg_select = 0;
	s.init4 = icw1 & 1;
	if (!s.init4) {
		s.special_fully_nested_mode = 0;
		s.auto_eoi = 0;
	}
	s.init_state = expects_icw2;
	/* What was pending will not be acknowledged otherwise, and a timer may wait for that. */
	for (unsigned irq = 0; irq < 8; irq++)
		if (edges & 1 << irq)
			end(chip, irq);
}

void Pic::write_command(unsigned chip, u8 value)
{
	kvm_pic_state &s = chips_[chip];

	if (value & 0x10) {
		initialise(chip, value);
	} else if (value & 0x08) { /* OCW3 */
		if (value & 0x04)
			s.poll = 1;
		if (value & 0x02)
			s.read_reg_select = value & 1;
		if (value & 0x40)
			s.special_mask = value >> 5 & 1;
	} else {
		write_ocw2(chip, value);
	}
}

void Pic::write_ocw2(unsigned chip, u8 value)
{
	enum { rotates = 0x80, specific = 0x40, eoi = 0x20 };
	kvm_pic_state &s = chips_[chip];
	int level = value & specific ? value & 7 : highest(chip, in_service(chip));

	if (!(value & (eoi | specific))) {
		s.rotate_on_auto_eoi = value >> 7;
		return;
	}
	/* Nothing is in service; or "no operation". */
	if (level == none || !(value & (eoi | rotates)))
		return;
	if (value & rotates)
		s.priority_add = static_cast<u8>((level + 1) % 8);
	if (value & eoi)
		end(chip, static_cast<unsigned>(level));
}

void Pic::write_data(unsigned chip, u8 value)
{
	kvm_pic_state &s = chips_[chip];

	switch (s.init_state) {
	case expects_icw2:
		s.irq_base = value & 0xf8;
		s.init_state = expects_icw3;
		break;
	case expects_icw3: /* the wiring, which is what it is */
		s.init_state = s.init4 ? expects_icw4 : expects_ocw1;
		break;
	case expects_icw4:
		s.special_fully_nested_mode = value >> 4 & 1;
		s.auto_eoi = value >> 1 & 1;
		s.init_state = expects_ocw1;
		break;
	default:
		s.imr = value;
	}
}

void Pic::get(unsigned chip, kvm_pic_state &state) const
{
	state = chips_[chip];
	state.elcr_mask = elcr_masks[chip];
}

void Pic::set(unsigned chip, const kvm_pic_state &state)
{
	kvm_pic_state &s = chips_[chip];

	s = state;
	s.priority_add %= 8;
	s.irq_base &= 0xf8;
	if (s.init_state > expects_icw4)
		s.init_state = expects_ocw1;
	for (u8 kvm_pic_state::*flag :
	     {&kvm_pic_state::read_reg_select, &kvm_pic_state::poll, &kvm_pic_state::special_mask,
	      &kvm_pic_state::auto_eoi, &kvm_pic_state::rotate_on_auto_eoi,
	      &kvm_pic_state::special_fully_nested_mode, &kvm_pic_state::init4})
		s.*flag = s.*flag != 0;
	s.elcr &= elcr_masks[chip];
}

} // namespace kvmpp
