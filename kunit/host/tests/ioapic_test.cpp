// SPDX-License-Identifier: GPL-2.0
// The I/O APIC against its data sheet, on a bus that only writes down what is sent.
#include "virt/irqchip/ioapic.hpp"

#include <linux/kvm.h>

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace kvmpp
{

namespace
{

using Delivery = ApicMessage::Delivery;

constexpr u64 level = 1 << 15, masked = 1 << 16, remote_irr = 1 << 14, delivery_status = 1 << 12;

class RecordingBus : public ApicMessageSink
{
public:
	int deliver(const ApicMessage &message) const override
	{
		sent.push_back(message);
		return answer;
	}

	mutable std::vector<ApicMessage> sent;
	int answer = 1;
};

class IoapicTest : public testing::Test
{
protected:
	u32 read_register(u32 number)
	{
		ioapic.write(0, number);
		return ioapic.read(0x10);
	}
	void write_register(u32 number, u32 value)
	{
		ioapic.write(0, number);
		ioapic.write(0x10, value);
	}
	void redirect(u32 pin, u64 bits)
	{
		write_register(0x11 + 2 * pin, static_cast<u32>(bits >> 32));
		write_register(0x10 + 2 * pin, static_cast<u32>(bits));
	}
	u64 redirection(u32 pin)
	{
		return u64{read_register(0x11 + 2 * pin)} << 32 | read_register(0x10 + 2 * pin);
	}
	int set(u32 pin, bool up, IrqSource source = IrqSource::user)
	{
		return ioapic.set_irq(pin, source, up);
	}
	size_t count() const { return bus.sent.size(); }

	RecordingBus bus;
	VectorSet vectors;
	Ioapic ioapic{bus, vectors};
};

TEST_F(IoapicTest, RegistersAfterReset)
{
	EXPECT_EQ(read_register(0), 0u);
	EXPECT_EQ(read_register(1), 0x00170011u);
	EXPECT_EQ(read_register(2), 0u);
	for (u32 pin = 0; pin < 24; pin++)
		EXPECT_EQ(redirection(pin), masked);
	/* Beyond. */
	for (u32 number : {0x03u, 0x0fu, 0x40u, 0xffu})
		EXPECT_EQ(read_register(number), ~0u) << number;
}

TEST_F(IoapicTest, IdHasFourBitsAndTheRestIsReadOnly)
{
	write_register(0, ~0u);
	EXPECT_EQ(read_register(0), 0x0f000000u);
	EXPECT_EQ(read_register(2), 0x0f000000u);
	write_register(1, 0);
	write_register(2, 0);
	EXPECT_EQ(read_register(1), 0x00170011u);
	EXPECT_EQ(read_register(2), 0x0f000000u);
}

TEST_F(IoapicTest, SelectHasEightBits)
{
	ioapic.write(0, 0x101);
	EXPECT_EQ(ioapic.read(0), 1u);
	EXPECT_EQ(ioapic.read(0x10), 0x00170011u);
	/* Nothing else is there, no EOI register either. */
	ioapic.write(0x40, 0x20);
	EXPECT_EQ(ioapic.read(0x40), 0u);
	EXPECT_EQ(ioapic.read(0x20), 0u);
}

TEST_F(IoapicTest, WritesBeyondTheTableAreLost)
{
	for (u32 number = 0; number < 0x100; number++)
		if (number < 0x10 || number >= 0x40)
			write_register(number, 0x12345678);
	for (u32 pin = 0; pin < 24; pin++)
		EXPECT_EQ(redirection(pin), masked);
}

TEST_F(IoapicTest, EachPinHasItsEntry)
{
	for (u64 pin = 0; pin < 24; pin++)
		redirect(static_cast<u32>(pin), masked | pin << 56 | (0x30 + pin));
	for (u64 pin = 0; pin < 24; pin++)
		EXPECT_EQ(redirection(static_cast<u32>(pin)), masked | pin << 56 | (0x30 + pin));
}

TEST_F(IoapicTest, SendsWhatTheEntrySays)
{
	redirect(5, u64{0xab} << 56 | 0x41);
	EXPECT_EQ(set(5, true), 1);
	redirect(6, u64{0x0f} << 56 | level | 1 << 11 | 1 << 8 | 0x52);
	set(6, true);
	redirect(7, 4 << 8);
	set(7, true);
	redirect(8, 7 << 8);
	set(8, true);
	ASSERT_EQ(count(), 4u);
	EXPECT_EQ(bus.sent[0].destination, 0xabu);
	EXPECT_EQ(bus.sent[0].vector, 0x41);
	EXPECT_EQ(bus.sent[0].delivery, Delivery::fixed);
	EXPECT_FALSE(bus.sent[0].logical);
	EXPECT_FALSE(bus.sent[0].level);
	EXPECT_TRUE(bus.sent[0].asserted);
	EXPECT_EQ(bus.sent[0].shorthand, ApicMessage::Shorthand::none);
	EXPECT_EQ(bus.sent[1].destination, 0x0fu);
	EXPECT_EQ(bus.sent[1].delivery, Delivery::lowest_priority);
	EXPECT_TRUE(bus.sent[1].logical);
	EXPECT_TRUE(bus.sent[1].level);
	EXPECT_EQ(bus.sent[2].delivery, Delivery::nmi);
	EXPECT_EQ(bus.sent[3].delivery, Delivery::external);
}

TEST_F(IoapicTest, EdgeIsSentOnce)
{
	redirect(4, 0x44);
	EXPECT_EQ(set(4, true), 1);
	EXPECT_EQ(set(4, true), 0);
	EXPECT_EQ(count(), 1u);
	EXPECT_EQ(set(4, false), 1);
	EXPECT_EQ(count(), 1u);
	bus.answer = 0;
	EXPECT_EQ(set(4, true), 0);
	bus.answer = -1;
	set(4, false);
	EXPECT_EQ(set(4, true), -1);
	EXPECT_EQ(redirection(4) & remote_irr, 0u);
}

TEST_F(IoapicTest, MaskedEdgeIsLostButStaysInTheState)
{
	redirect(4, masked | 0x44);
	EXPECT_EQ(set(4, true), -1);
	EXPECT_EQ(set(4, true), 0);
	redirect(4, 0x44);
	EXPECT_EQ(count(), 0u);
	kvm_ioapic_state state;
	ioapic.get(state);
	EXPECT_EQ(state.irr, 0x10u);
	/* What was sent is not. */
	set(4, false);
	set(4, true);
	EXPECT_EQ(count(), 1u);
	ioapic.get(state);
	EXPECT_EQ(state.irr, 0u);
}

TEST_F(IoapicTest, LevelWaitsForItsEnd)
{
	redirect(9, level | 0x49);
	EXPECT_EQ(set(9, true), 1);
	EXPECT_EQ(redirection(9) & remote_irr, remote_irr);
	EXPECT_EQ(set(9, true), -1);
	EXPECT_EQ(count(), 1u);
	/* Still up at the end: again. */
	EXPECT_EQ(ioapic.pins_of(0x49), 1u << 9);
	ioapic.end(0x49);
	EXPECT_EQ(count(), 2u);
	EXPECT_EQ(redirection(9) & remote_irr, remote_irr);
	EXPECT_EQ(set(9, false), 1);
	ioapic.end(0x49);
	EXPECT_EQ(count(), 2u);
	EXPECT_EQ(redirection(9) & remote_irr, 0u);
}

TEST_F(IoapicTest, LevelThatNobodyTakesIsNotInService)
{
	redirect(9, level | 0x49);
	for (int answer : {0, -1}) {
		bus.answer = answer;
		EXPECT_EQ(set(9, true), answer);
		EXPECT_EQ(redirection(9) & remote_irr, 0u);
	}
}

TEST_F(IoapicTest, LevelIsSentWhenItIsUnmasked)
{
	redirect(9, level | masked | 0x49);
	EXPECT_EQ(set(9, true), -1);
	redirect(9, level | 0x49);
	EXPECT_EQ(count(), 1u);
	/* Not again while it is in service. */
	redirect(9, level | 0x49);
	EXPECT_EQ(count(), 1u);
	/* Masked at its end: it comes with the unmasking. */
	redirect(9, level | masked | 0x49);
	ioapic.end(0x49);
	EXPECT_EQ(count(), 1u);
	redirect(9, level | 0x49);
	EXPECT_EQ(count(), 2u);
}

TEST_F(IoapicTest, RemoteIrrAndDeliveryStatusAreReadOnly)
{
	redirect(9, level | masked | remote_irr | delivery_status | 0x49);
	EXPECT_EQ(redirection(9), level | masked | 0x49);
	redirect(9, level | 0x49);
	set(9, true);
	redirect(9, level | 0x49);
	EXPECT_EQ(redirection(9), level | remote_irr | 0x49);
}

TEST_F(IoapicTest, EdgeTriggeringEndsWhatIsInService)
{
	redirect(9, level | 0x49);
	set(9, true);
	redirect(9, masked | 0x49);
	EXPECT_EQ(redirection(9), masked | 0x49);
	redirect(9, level | 0x49);
	EXPECT_EQ(count(), 2u);
}

TEST_F(IoapicTest, LineIsUpWhileAnybodyHoldsIt)
{
	redirect(9, level | 0x49);
	set(9, true, IrqSource::user);
	set(9, true, IrqSource::resample);
	set(9, false, IrqSource::user);
	ioapic.end(0x49);
	EXPECT_EQ(count(), 2u);
	set(9, false, IrqSource::resample);
	ioapic.end(0x49);
	EXPECT_EQ(count(), 2u);
}

TEST_F(IoapicTest, OneEndIsThatOfAllPinsOfTheVector)
{
	redirect(9, level | 0x49);
	redirect(23, level | 0x49);
	redirect(4, 0x49);
	set(9, true);
	set(23, true);
	EXPECT_EQ(ioapic.pins_of(0x49), 1u << 9 | 1u << 23 | 1u << 4);
	EXPECT_EQ(ioapic.pins_of(0x50), 0u);
	set(9, false);
	ioapic.end(0x49);
	EXPECT_EQ(redirection(9) & remote_irr, 0u);
	EXPECT_EQ(redirection(23) & remote_irr, remote_irr);
	EXPECT_EQ(count(), 3u);
}

TEST_F(IoapicTest, VectorsAreThoseOfThePins)
{
	EXPECT_FALSE(vectors.has(0x49));
	redirect(9, level | 0x49);
	redirect(10, 0xff);
	EXPECT_TRUE(vectors.has(0x49));
	EXPECT_TRUE(vectors.has(0xff));
	EXPECT_FALSE(vectors.has(0x48));
	redirect(9, level | 0x48);
	EXPECT_FALSE(vectors.has(0x49));
	EXPECT_TRUE(vectors.has(0x48));
}

TEST_F(IoapicTest, VectorIsToldOfBeforeItIsSent)
{
	struct Bus : RecordingBus {
		int deliver(const ApicMessage &message) const override
		{
			EXPECT_TRUE(vectors->has(message.vector));
			return RecordingBus::deliver(message);
		}
		const VectorSet *vectors = nullptr;
	} watching;
	VectorSet told;
	Ioapic other(watching, told);
	watching.vectors = &told;
	other.set_irq(9, IrqSource::user, true);
	other.write(0, 0x10 + 2 * 9);
	other.write(0x10, level | 0x49);
	EXPECT_EQ(watching.sent.size(), 1u);
	kvm_ioapic_state state;
	ioapic.get(state);
	state.irr = 1 << 9;
	state.redirtbl[9].bits = level | 0x77;
	other.set(state);
	EXPECT_EQ(watching.sent.size(), 2u);
}

TEST_F(IoapicTest, StormLetsTheGuestGetOn)
{
	redirect(9, level | 0x49);
	set(9, true);
	for (int i = 1; i < 10000; i++)
		ASSERT_FALSE(ioapic.end(0x49));
	EXPECT_EQ(count(), 10000u);
	EXPECT_TRUE(ioapic.end(0x49));
	EXPECT_EQ(count(), 10000u);
	EXPECT_EQ(redirection(9) & remote_irr, 0u);
	ioapic.resend();
	EXPECT_EQ(count(), 10001u);
	/* It is in service again. */
	ioapic.resend();
	EXPECT_EQ(count(), 10001u);
	/* An end with the line down, and the count begins anew. */
	for (int i = 1; i < 10000; i++)
		ASSERT_FALSE(ioapic.end(0x49));
	set(9, false);
	ASSERT_FALSE(ioapic.end(0x49));
	set(9, true);
	EXPECT_FALSE(ioapic.end(0x49));
}

TEST_F(IoapicTest, StateComesBack)
{
	redirect(9, u64{3} << 56 | level | 0x49);
	redirect(4, masked | 0x44);
	write_register(0, 0x05000000);
	set(9, true);
	set(4, true);
	kvm_ioapic_state state, after;
	ioapic.get(state);
	EXPECT_EQ(state.base_address, 0xfec00000u);
	EXPECT_EQ(state.id, 5u);
	EXPECT_EQ(state.irr, 1u << 9 | 1u << 4);
	EXPECT_EQ(state.redirtbl[9].bits, u64{3} << 56 | level | remote_irr | 0x49);
	RecordingBus other_bus;
	VectorSet other_vectors;
	Ioapic other(other_bus, other_vectors);
	other.set(state);
	EXPECT_TRUE(other_vectors.has(0x49));
	/* The one is in service, the other masked. */
	EXPECT_EQ(other_bus.sent.size(), 0u);
	other.get(after);
	EXPECT_EQ(std::memcmp(&state, &after, sizeof(state)), 0);
}

TEST_F(IoapicTest, WhatIsPendingInTheStateIsSent)
{
	kvm_ioapic_state state;
	ioapic.get(state);
	state.irr = 1 << 4 | 1 << 9;
	state.redirtbl[4].bits = 0x44;
	state.redirtbl[9].bits = level | 0x49;
	ioapic.set(state);
	ASSERT_EQ(count(), 2u);
	EXPECT_EQ(bus.sent[0].vector, 0x44);
	EXPECT_EQ(bus.sent[1].vector, 0x49);
	ioapic.get(state);
	EXPECT_EQ(state.irr, 1u << 9);
}

TEST_F(IoapicTest, StateOfUserSpaceIsMadePossible)
{
	kvm_ioapic_state state;

	std::memset(&state, 0xff, sizeof(state));
	ioapic.set(state);
	ioapic.get(state);
	EXPECT_EQ(state.ioregsel, 0xffu);
	EXPECT_EQ(state.id, 0xfu);
	EXPECT_EQ(state.irr, 0xffffffu);
	EXPECT_EQ(state.pad, 0u);
	EXPECT_EQ(ioapic.read(0x10), ~0u);
	ioapic.write(0x10, 0);
	/* A base at the end of the address space wraps nothing. */
	EXPECT_TRUE(ioapic.has_address(~u64{0}, 1));
	EXPECT_FALSE(ioapic.has_address(0x1000, 1));
}

TEST_F(IoapicTest, Addresses)
{
	EXPECT_TRUE(ioapic.has_address(0xfec00000, 4));
	EXPECT_TRUE(ioapic.has_address(0xfec000f8, 8));
	EXPECT_FALSE(ioapic.has_address(0xfec000fc, 8));
	EXPECT_FALSE(ioapic.has_address(0xfebffffc, 4));
	EXPECT_FALSE(ioapic.has_address(0xfec00100, 4));
	kvm_ioapic_state state;
	ioapic.get(state);
	state.base_address = 0xfec10000;
	ioapic.set(state);
	EXPECT_FALSE(ioapic.has_address(0xfec00000, 4));
	EXPECT_TRUE(ioapic.has_address(0xfec10010, 4));
}

} // namespace

} // namespace kvmpp
