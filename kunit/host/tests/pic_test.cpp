// SPDX-License-Identifier: GPL-2.0
// The 8259As against their data sheet, and against what KVM says of a line that is set.
#include "virt/irqchip/pic.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

namespace kvmpp
{

namespace
{

constexpr u32 master_command = 0x20, master_data = 0x21, slave_command = 0xa0, slave_data = 0xa1;
constexpr u8 eoi = 0x20, specific_eoi = 0x60, rotate_on_eoi = 0xa0, rotate_on_specific_eoi = 0xe0;
constexpr u8 set_priority = 0xc0, rotate_in_auto_eoi = 0x80, no_operation = 0x40;
constexpr u8 read_irr = 0x0a, read_isr = 0x0b, poll = 0x0c;
constexpr u8 special_mask = 0x68, no_special_mask = 0x48;
constexpr u8 auto_eoi = 0x02, special_fully_nested = 0x10;

class PicTest : public testing::Test
{
protected:
	/* As a BIOS does: vectors from 0x08 and from 0x70. */
	PicTest() { initialise(); }

	void initialise(u8 master_mode = 0, u8 slave_mode = 0)
	{
		write(master_command, {0x11});
		write(master_data, {0x08, 0x04, static_cast<u8>(0x01 | master_mode)});
		write(slave_command, {0x11});
		write(slave_data, {0x70, 0x02, static_cast<u8>(0x01 | slave_mode)});
		pic.take_ended();
	}
	void write(u32 port, std::vector<u8> values)
	{
		for (u8 value : values)
			pic.write(port, value);
		intr = pic.update();
	}
	u8 read(u32 port)
	{
		u8 value = pic.read(port);

		intr = pic.update();
		return value;
	}
	u8 irr(u32 command = master_command)
	{
		write(command, {read_irr});
		return read(command);
	}
	u8 isr(u32 command = master_command)
	{
		write(command, {read_isr});
		return read(command);
	}
	int set(u32 pin, bool level, IrqSource source = IrqSource::user)
	{
		int result = pic.set_irq(pin, source, level);

		intr = pic.update();
		return result;
	}
	void pulse(u32 pin)
	{
		set(pin, true);
		set(pin, false);
	}
	u8 acknowledge()
	{
		u8 vector = pic.acknowledge();

		intr = pic.update();
		return vector;
	}
	kvm_pic_state state(unsigned chip)
	{
		kvm_pic_state s;

		pic.get(chip, s);
		return s;
	}

	Pic pic;
	bool intr = false;
};

TEST_F(PicTest, EdgeIsOneInterrupt)
{
	EXPECT_FALSE(intr);
	EXPECT_EQ(set(3, true), 1);
	EXPECT_TRUE(intr);
	EXPECT_EQ(irr(), 0x08);
	EXPECT_EQ(acknowledge(), 0x0b);
	EXPECT_FALSE(intr);
	EXPECT_EQ(irr(), 0);
	EXPECT_EQ(isr(), 0x08);
	/* Still up: no edge, and KVM says that it was new. */
	EXPECT_EQ(set(3, true), 1);
	EXPECT_EQ(irr(), 0);
	write(master_command, {eoi});
	EXPECT_EQ(isr(), 0);
	EXPECT_FALSE(intr);
	EXPECT_EQ(set(3, false), 1);
	EXPECT_EQ(set(3, true), 1);
	EXPECT_TRUE(intr);
}

TEST_F(PicTest, EdgeStaysWhenTheLineFallsAndIsToldToBePending)
{
	pulse(3);
	EXPECT_EQ(irr(), 0x08);
	EXPECT_EQ(set(3, true), 0);
	EXPECT_EQ(acknowledge(), 0x0b);
}

TEST_F(PicTest, LevelIsAnInterruptForAsLongAsTheLineIsUp)
{
	pic.write(0x4d0, 0x20);
	EXPECT_EQ(set(5, true), 1);
	EXPECT_EQ(set(5, true), 0);
	EXPECT_EQ(acknowledge(), 0x0d);
	EXPECT_EQ(irr(), 0x20);
	EXPECT_FALSE(intr);
	write(master_command, {eoi});
	EXPECT_TRUE(intr);
	EXPECT_EQ(set(5, false), 1);
	EXPECT_FALSE(intr);
	EXPECT_EQ(irr(), 0);
}

TEST_F(PicTest, LineIsUpWhileAnybodyHoldsIt)
{
	pic.write(0x4d0, 0x20);
	set(5, true, IrqSource::user);
	set(5, true, IrqSource::resample);
	set(5, false, IrqSource::user);
	EXPECT_TRUE(intr);
	set(5, false, IrqSource::resample);
	EXPECT_FALSE(intr);
}

TEST_F(PicTest, ElcrHasNoBitsForTheTimerKeyboardCascadeAndClock)
{
	pic.write(0x4d0, 0xff);
	pic.write(0x4d1, 0xff);
	EXPECT_EQ(pic.read(0x4d0), 0xf8);
	EXPECT_EQ(pic.read(0x4d1), 0xde);
}

TEST_F(PicTest, MaskedIsRememberedAndToldToBeMasked)
{
	write(master_data, {0x08});
	EXPECT_EQ(read(master_data), 0x08);
	EXPECT_EQ(set(3, true), -1);
	EXPECT_EQ(set(3, false), -1);
	EXPECT_FALSE(intr);
	write(master_data, {0});
	EXPECT_TRUE(intr);
	EXPECT_EQ(acknowledge(), 0x0b);
}

TEST_F(PicTest, LowerNumbersComeFirst)
{
	pulse(7);
	pulse(4);
	pulse(0);
	EXPECT_EQ(acknowledge(), 0x08);
	EXPECT_FALSE(intr);
	write(master_command, {eoi});
	EXPECT_EQ(acknowledge(), 0x0c);
	/* "Fully nested mode": a higher one interrupts it, a lower one waits. */
	EXPECT_FALSE(intr);
	pulse(1);
	EXPECT_EQ(acknowledge(), 0x09);
	EXPECT_EQ(isr(), 0x12);
	/* The end is that of the highest. */
	write(master_command, {eoi});
	EXPECT_EQ(isr(), 0x10);
	write(master_command, {eoi});
	EXPECT_EQ(acknowledge(), 0x0f);
}

TEST_F(PicTest, SlavesInterruptsComeByTheMaster)
{
	EXPECT_EQ(set(12, true), 1);
	EXPECT_EQ(irr(slave_command), 0x10);
	EXPECT_EQ(irr(), 0x04);
	EXPECT_EQ(acknowledge(), 0x74);
	EXPECT_EQ(isr(), 0x04);
	EXPECT_EQ(isr(slave_command), 0x10);
	/* Before IRQ 3, after IRQ 1. */
	pulse(3);
	EXPECT_FALSE(intr);
	pulse(1);
	EXPECT_EQ(acknowledge(), 0x09);
	write(master_command, {eoi});
	write(slave_command, {eoi});
	EXPECT_EQ(isr(), 0x04);
	write(master_command, {eoi});
	EXPECT_EQ(acknowledge(), 0x0b);
}

TEST_F(PicTest, OnlyInSpecialFullyNestedModeASlaveInterruptsItself)
{
	pulse(12);
	acknowledge();
	pulse(9);
	EXPECT_FALSE(intr);
	pic = Pic();
	initialise(special_fully_nested);
	pulse(12);
	EXPECT_EQ(acknowledge(), 0x74);
	pulse(9);
	EXPECT_TRUE(intr);
	EXPECT_EQ(acknowledge(), 0x71);
	EXPECT_EQ(isr(slave_command), 0x12);
}

TEST_F(PicTest, WhatIsGoneAtTheAcknowledgeIsSpurious)
{
	EXPECT_EQ(acknowledge(), 0x0f);
	EXPECT_EQ(isr(), 0);
	/* Of the slave: the master has it in service. */
	pic.write(0x4d1, 0x08);
	set(11, true);
	set(11, false);
	EXPECT_TRUE(intr);
	EXPECT_EQ(acknowledge(), 0x77);
	EXPECT_EQ(isr(), 0x04);
	EXPECT_EQ(isr(slave_command), 0);
}

TEST_F(PicTest, AutomaticEoi)
{
	initialise(auto_eoi);
	pulse(3);
	EXPECT_EQ(acknowledge(), 0x0b);
	EXPECT_EQ(isr(), 0);
	EXPECT_EQ(pic.take_ended(), 0x08);
	/* "Automatic rotation" */
	write(master_command, {rotate_in_auto_eoi});
	pulse(3);
	acknowledge();
	pulse(3);
	pulse(4);
	EXPECT_EQ(acknowledge(), 0x0c);
	write(master_command, {0x00});
	EXPECT_EQ(state(0).rotate_on_auto_eoi, 0);
}

TEST_F(PicTest, SpecificEoi)
{
	pulse(4);
	acknowledge();
	pulse(1);
	acknowledge();
	write(master_command, {specific_eoi | 4});
	EXPECT_EQ(isr(), 0x02);
	EXPECT_EQ(pic.take_ended(), 0x10);
	/* Of what is not in service it does nothing to the ISR. */
	write(master_command, {specific_eoi | 7});
	EXPECT_EQ(isr(), 0x02);
}

TEST_F(PicTest, EoiWithNothingInServiceEndsNothing)
{
	write(master_command, {eoi, rotate_on_eoi});
	EXPECT_EQ(pic.take_ended(), 0);
	EXPECT_EQ(state(0).priority_add, 0);
}

TEST_F(PicTest, Rotation)
{
	pulse(4);
	acknowledge();
	write(master_command, {rotate_on_eoi});
	EXPECT_EQ(isr(), 0);
	/* 4 is the lowest now: 5, 6, 7, 0, ... 4. */
	pulse(4);
	pulse(0);
	pulse(6);
	EXPECT_EQ(acknowledge(), 0x0e);
	write(master_command, {eoi});
	EXPECT_EQ(acknowledge(), 0x08);
	write(master_command, {eoi});
	EXPECT_EQ(acknowledge(), 0x0c);
	write(master_command, {rotate_on_specific_eoi | 4});
	EXPECT_EQ(state(0).priority_add, 5);
	write(master_command, {set_priority | 6});
	EXPECT_EQ(state(0).priority_add, 7);
	write(master_command, {set_priority | 7});
	EXPECT_EQ(state(0).priority_add, 0);
	write(master_command, {no_operation | 3});
	EXPECT_EQ(state(0).priority_add, 0);
}

TEST_F(PicTest, SpecialMaskMode)
{
	pulse(3);
	acknowledge();
	write(master_command, {special_mask});
	pulse(6);
	EXPECT_FALSE(intr);
	/* The one in service is masked, and lower ones come. */
	write(master_data, {0x08});
	EXPECT_EQ(acknowledge(), 0x0e);
	/* And a non-specific EOI leaves it alone. */
	write(master_command, {eoi});
	EXPECT_EQ(isr(), 0x08);
	pulse(6);
	EXPECT_TRUE(intr);
	write(master_command, {no_special_mask});
	EXPECT_FALSE(intr);
	/* Without ESMM, SMM is not looked at. */
	write(master_command, {0x28});
	EXPECT_EQ(state(0).special_mask, 0);
}

TEST_F(PicTest, Poll)
{
	write(master_command, {poll});
	EXPECT_EQ(read(master_command), 0);
	pulse(5);
	write(master_command, {poll});
	EXPECT_EQ(read(master_command), 0x85);
	EXPECT_FALSE(intr);
	EXPECT_EQ(isr(), 0x20);
	/* Once. */
	EXPECT_EQ(read(master_data), 0);
	/* By the other port, and of the slave. */
	pulse(10);
	write(slave_command, {poll});
	EXPECT_EQ(read(slave_data), 0x82);
	EXPECT_EQ(isr(slave_command), 0x04);
}

TEST_F(PicTest, InitialisationForgetsEdgesAndMasks)
{
	write(master_data, {0xff});
	pulse(3);
	pic.write(0x4d0, 0x20);
	set(5, true);
	write(master_command, {special_mask, set_priority | 2, read_isr});
	pic.take_ended();
	write(master_command, {0x11});
	kvm_pic_state s = state(0);
	EXPECT_EQ(s.imr, 0);
	EXPECT_EQ(s.irr, 0x20);
	EXPECT_EQ(s.last_irr, 0);
	EXPECT_EQ(s.priority_add, 0);
	EXPECT_EQ(s.special_mask, 0);
	EXPECT_EQ(s.read_reg_select, 0);
	EXPECT_EQ(s.init_state, 1);
	EXPECT_EQ(s.elcr, 0x20);
	/* Whoever waits for the edge's end waits no longer. */
	EXPECT_EQ(pic.take_ended(), 0x08);
}

TEST_F(PicTest, InitialisationWithoutIcw4ClearsItsModes)
{
	initialise(auto_eoi | special_fully_nested);
	write(master_command, {0x10});
	write(master_data, {0x20, 0x04, 0x55});
	kvm_pic_state s = state(0);
	EXPECT_EQ(s.irq_base, 0x20);
	EXPECT_EQ(s.auto_eoi, 0);
	EXPECT_EQ(s.special_fully_nested_mode, 0);
	/* There was no ICW4: the third was OCW1. */
	EXPECT_EQ(s.imr, 0x55);
}

TEST_F(PicTest, VectorsAreMultiplesOfEight)
{
	write(master_command, {0x11});
	write(master_data, {0x27, 0x04, 0x01});
	pulse(1);
	EXPECT_EQ(acknowledge(), 0x21);
}

TEST_F(PicTest, EndsAreToldOfTheSlaveToo)
{
	pulse(9);
	acknowledge();
	write(slave_command, {eoi});
	EXPECT_EQ(pic.take_ended(), 0x200);
	write(master_command, {eoi});
	EXPECT_EQ(pic.take_ended(), 0x04);
	EXPECT_EQ(pic.take_ended(), 0);
}

TEST_F(PicTest, Ports)
{
	for (u64 port : {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1})
		EXPECT_TRUE(Pic::has_ports(port, 1));
	for (u64 port : {0x1f, 0x22, 0x9f, 0xa2, 0x4cf, 0x4d2})
		EXPECT_FALSE(Pic::has_ports(port, 1));
	EXPECT_TRUE(Pic::has_ports(0x20, 2));
	EXPECT_FALSE(Pic::has_ports(0x21, 2));
	EXPECT_FALSE(Pic::has_ports(0x1f, 2));
}

TEST_F(PicTest, StateComesBack)
{
	initialise(special_fully_nested, auto_eoi);
	write(master_data, {0x40});
	pulse(3);
	pulse(6);
	acknowledge();
	set(9, true);
	write(master_command, {read_isr, poll, set_priority | 1, special_mask});
	Pic other;
	for (unsigned chip : {0, 1}) {
		kvm_pic_state before = state(chip), after;

		other.set(chip, before);
		other.get(chip, after);
		EXPECT_EQ(std::memcmp(&before, &after, sizeof(before)), 0) << chip;
	}
	EXPECT_EQ(other.update(), intr);
}

TEST_F(PicTest, StateOfUserSpaceIsMadePossible)
{
	kvm_pic_state s;

	std::memset(&s, 0xff, sizeof(s));
	pic.set(0, s);
	pic.set(1, s);
	for (unsigned chip : {0, 1}) {
		s = state(chip);
		EXPECT_EQ(s.priority_add, 7);
		EXPECT_EQ(s.irq_base, 0xf8);
		EXPECT_EQ(s.init_state, 0);
		EXPECT_EQ(s.special_mask, 1);
		EXPECT_EQ(s.elcr_mask, chip ? 0xde : 0xf8);
		EXPECT_EQ(s.elcr, s.elcr_mask);
	}
	write(master_data, {0});
	write(slave_data, {0});
	EXPECT_GE(acknowledge(), 0xf8);
}

/* Whatever a guest does, the state stays one that set() would leave as it is. */
TEST_F(PicTest, AnyWritesLeaveAPossibleState)
{
	u32 random = 1;
	auto next = [&] { return random = random * 1664525 + 1013904223; };
	constexpr std::array<u32, 6> ports = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};

	for (int i = 0; i < 100'000; i++) {
		u32 what = next() >> 16;

		switch (what % 4) {
		case 0:
			write(ports[next() % 6], {static_cast<u8>(next() >> 24)});
			break;
		case 1:
			read(ports[(next() >> 8) % 6]);
			break;
		case 2:
			set((what >> 4) % 16, what >> 8 & 1);
			break;
		default:
			if (intr)
				acknowledge();
		}
		for (unsigned chip : {0, 1}) {
			kvm_pic_state before = state(chip), after;
			Pic other;

			other.set(chip, before);
			other.get(chip, after);
			ASSERT_EQ(std::memcmp(&before, &after, sizeof(before)), 0);
		}
	}
}

} // namespace

} // namespace kvmpp
