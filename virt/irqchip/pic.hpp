/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The two 8259As of a PC, the slave's INTR on the master's IR2: "8259A Programmable Interrupt Controller", and
 * the PIIX's "Edge/Level Control Registers". Whoever has one locks it. What is not there is as in KVM: no mode
 * without a slave, no level-triggering by ICW1.
 */
#pragma once

#include "include/kvmpp/types.hpp"
#include "irq_line.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

class Pic
{
public:
	static constexpr u32 pins = 16;

	/* What ApicBus::deliver() says: 0 when it was pending already, negative when it is masked. */
	int set_irq(u32 pin, IrqSource source, bool level);

	/* Of the ports, a byte at a time. */
	static bool has_ports(u64 first, u32 count);
	u8 read(u32 port);
	void write(u32 port, u8 value);
	/* The two INTA cycles: the vector. */
	u8 acknowledge();

	/*
	 * To be called after any of these, when those have been told that wait for take_ended(): whether INTR
	 * is up.
	 */
	bool update();
	/* The pins whose interrupts have been ended since the last call. */
	u16 take_ended();

	void get(unsigned chip, kvm_pic_state &state) const;
	/* What a chip cannot be is made what it can. */
	void set(unsigned chip, const kvm_pic_state &state);

private:
	static constexpr unsigned master = 0, slave = 1;
	static constexpr int none = -1, cascade = 2, spurious = 7;
	static constexpr u8 elcr_masks[2] = {0xf8, 0xde};

	int raise(unsigned chip, unsigned irq, bool level);
	/* The request that goes to the CPU, or none. */
	int request(unsigned chip) const;
	int highest(unsigned chip, u8 bits) const;
	u8 in_service(unsigned chip) const;
	void begin(unsigned chip, unsigned irq);
	void end(unsigned chip, unsigned irq);
	void initialise(unsigned chip, u8 icw1);
	void write_command(unsigned chip, u8 value);
	void write_ocw2(unsigned chip, u8 value);
	void write_data(unsigned chip, u8 value);
	u8 poll(unsigned chip);

	kvm_pic_state chips_[2] = {}; /* but for elcr_mask */
	IrqLine lines_[pins];
	u16 ended_ = 0;
};

} // namespace kvmpp
