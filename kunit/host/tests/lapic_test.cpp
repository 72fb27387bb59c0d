// SPDX-License-Identifier: GPL-2.0
/* Local APICs in the kernel: registers, priorities, the timer, and how interrupts find them. */
#include "fixture.hpp"

#include "virt/irqchip/apic_bus.hpp"
#include "virt/irqchip/lapic.hpp"

#include <linux/kvm.h>
#include <linux_glue/x86.h>

#include <cstring>
#include <memory>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

using Mode = ApicMessage::Delivery;

constexpr u64 page = 0xfee00000, on = 1 << 11, x2 = 1 << 10;
constexpr u32 enabled = 0x1ff, masked = 1 << 16;

class LapicTest : public MachineTest
{
protected:
	static constexpr u32 count = 3;

	LapicTest()
	{
		table->init();
		Locked locked(table->lock);
		for (u32 id = 0; id < count; id++)
			add(id);
	}
	void add(u32 id) REQUIRES(table->lock)
	{
		entries[id] = RcuOwned<VcpuEntry>(Owned<VcpuEntry>::create(id));
		entries[id]->lapic = Owned<Lapic>::create(id, entries[id]->kick, bus);
		table->add(*entries[id]);
		write(id, Lapic::svr, enabled);
	}
	Lapic &apic(u32 i = 0) { return *entries[i]->lapic; }
	u32 read(u32 i, u32 reg)
	{
		u32 value = 0;
		u64 wide = 0;

		if (!apic(i).is_x2apic()) {
			EXPECT_TRUE(apic(i).read_memory(page + reg * 16, 4,
							reinterpret_cast<u8 *>(&value)));
			return value;
		}
		EXPECT_TRUE(apic(i).read_msr(0x800 + reg, wide)) << std::hex << reg;
		return static_cast<u32>(wide);
	}
	void write(u32 i, u32 reg, u32 value)
	{
		if (apic(i).is_x2apic())
			EXPECT_TRUE(apic(i).write_msr(0x800 + reg, value)) << std::hex << reg;
		else
			EXPECT_TRUE(apic(i).write_memory(page + reg * 16, 4,
							 reinterpret_cast<const u8 *>(&value)));
	}
	void enter_x2apic(u32 i) { apic(i).set_base(page | on | x2); }
	/* Who has @vector pending, of all, as a mask; they have it no more. */
	u32 taken(u8 vector = 0x50)
	{
		u32 mask = 0;

		for (u32 i = 0; i < count; i++)
			if (apic(i).pending() == vector) {
				mask |= 1 << i;
				apic(i).acknowledge(vector);
				write(i, Lapic::eoi, 0);
			}
		return mask;
	}
	u32 reached(ApicMessage message, int given)
	{
		message.vector = 0x50;
		EXPECT_EQ(bus.deliver(message), given);
		return taken();
	}
	/* An IPI of 0x50 by the ICR. */
	u32 sent(u32 from, u32 low, u32 destination)
	{
		if (apic(from).is_x2apic()) {
			EXPECT_TRUE(
				apic(from).write_msr(0x830, u64{destination} << 32 | low | 0x50));
		} else {
			write(from, Lapic::icr_high, destination << 24);
			write(from, Lapic::icr, low | 0x50);
		}
		return taken();
	}
	void accept(u32 i, u8 vector, bool level = false)
	{
		EXPECT_TRUE(apic(i).accept({.vector = vector, .level = level}));
	}
	int take(u32 i = 0)
	{
		int vector = apic(i).pending();

		if (vector >= 0)
			apic(i).acknowledge(static_cast<u8>(vector));
		return vector;
	}

	std::unique_ptr<VcpuTable> table = std::make_unique<VcpuTable>();
	X2apicApi api;
	ApicBus bus{*table, api};
	RcuOwned<VcpuEntry> entries[count];
};

class TimerTest : public LapicTest
{
protected:
	static constexpr u32 one_shot = 0, periodic = 1 << 17, deadline = 2 << 17, by_one = 0xb;

	TimerTest()
	{
		apic().set_has_deadline(true);
		write(0, Lapic::divide, by_one);
	}
	~TimerTest() override { apic().timer().stop(); }
	void start(u32 mode, u32 initial)
	{
		write(0, Lapic::lvt_timer, mode | 0x60);
		write(0, Lapic::initial_count, initial);
	}
	/* Of a guest whose TSC is @tsc now. */
	void set_deadline(u64 value, u64 tsc) { apic().set_deadline(value, tsc - insn::rdtsc()); }
	/* How many ticks come in steps of @ns. */
	unsigned ticks(unsigned steps, u64 ns)
	{
		unsigned count = 0;

		for (unsigned i = 0; i < steps; i++) {
			advance_timers(ns);
			if (take() == 0x60) {
				count++;
				write(0, Lapic::eoi, 0);
			}
		}
		return count;
	}
};

} // namespace

TEST_F(LapicTest, after_reset)
{
	Lapic fresh(1, entries[1]->kick, bus);
	u32 value;
	const struct {
		u32 reg, value;
	} expected[] = {
		{Lapic::id, 1 << 24},
		{Lapic::version, 0x50014},
		{Lapic::tpr, 0},
		{Lapic::ppr, 0},
		{Lapic::ldr, 0},
		{Lapic::dfr, ~0u},
		{Lapic::svr, 0xff},
		{Lapic::esr, 0},
		{Lapic::icr, 0},
		{Lapic::lvt_timer, masked},
		{Lapic::lvt_lint0, masked},
		{Lapic::lvt_lint1, masked},
		{Lapic::lvt_error, masked},
		{Lapic::initial_count, 0},
		{Lapic::divide, 0},
	};

	for (const auto &e : expected) {
		EXPECT_TRUE(
			fresh.read_memory(page + e.reg * 16, 4, reinterpret_cast<u8 *>(&value)));
		EXPECT_EQ(value, e.value) << std::hex << e.reg;
	}
	EXPECT_FALSE(fresh.is_enabled());
	EXPECT_FALSE(fresh.takes_external());
	EXPECT_EQ(fresh.pending(), -1);
	Lapic first(0, entries[0]->kick, bus);
	EXPECT_TRUE(first.takes_external()) << "KVM's quirk, of the bootstrap processor's LINT0";
}

TEST_F(LapicTest, memory_is_read_and_written_in_words)
{
	u8 bytes[8];

	write(0, Lapic::tpr, 0x12345678);
	EXPECT_EQ(read(0, Lapic::tpr), 0x78u);
	write(0, Lapic::dfr, 0x0fffffff);
	EXPECT_TRUE(apic().read_memory(page + 0xe3, 1, bytes));
	EXPECT_EQ(bytes[0], 0x0f) << "any part of a word can be read";
	EXPECT_TRUE(apic().read_memory(page + 0xe2, 4, bytes));
	EXPECT_EQ(bytes[0], 0) << "but nothing across its end";
	u8 value[4] = {0x20};
	EXPECT_TRUE(apic().write_memory(page + 0x80, 1, value));
	EXPECT_TRUE(apic().write_memory(page + 0x84, 4, value));
	EXPECT_EQ(read(0, Lapic::tpr), 0x78u) << "such writes are lost";
	EXPECT_TRUE(apic().read_memory(page + 0xff0, 4, bytes)) << "beyond the last register";
	EXPECT_TRUE(apic().write_memory(page + 0xff0, 4, value));
	EXPECT_FALSE(apic().read_memory(page - 4, 4, bytes));
	EXPECT_FALSE(apic().read_memory(page + 0x1000, 4, bytes));
	EXPECT_FALSE(apic().read_memory(page + 0xffc, 8, bytes));
	EXPECT_FALSE(apic().write_memory(page - 4, 4, value));
	/* Read-only ones. */
	for (u32 reg : {u32{Lapic::version}, u32{Lapic::ppr}, u32{Lapic::irr}, u32{Lapic::isr},
			u32{Lapic::current_count}}) {
		u32 before = read(0, reg);
		write(0, reg, ~before);
		EXPECT_EQ(read(0, reg), before);
	}
}

TEST_F(LapicTest, base_moves_it_and_switches_it_off)
{
	u8 bytes[4];

	apic().set_base(0xd0000000 | on);
	EXPECT_FALSE(apic().read_memory(page, 4, bytes));
	EXPECT_TRUE(apic().read_memory(0xd0000030, 4, bytes));
	EXPECT_EQ(bytes[0], 0x14);
	write(1, Lapic::id, 9 << 24);
	apic(1).set_base(page);
	EXPECT_TRUE(apic(1).read_memory(page + 0x30, 4, bytes)) << "KVM's hole";
	EXPECT_EQ(bytes[0], 0xff);
	EXPECT_FALSE(apic(1).accept({.vector = 0x50}));
	EXPECT_TRUE(apic(1).takes_external()) << "there is nothing in between";
	apic(1).set_base(page | on);
	EXPECT_EQ(read(1, Lapic::id), 1u << 24);
	enter_x2apic(1);
	EXPECT_TRUE(apic(1).read_memory(page + 0x30, 4, bytes));
	EXPECT_EQ(bytes[0], 0xff);
}

TEST_F(LapicTest, x2apic_registers)
{
	u64 value;

	EXPECT_FALSE(apic(2).read_msr(0x802, value)) << "in xAPIC mode there are none";
	EXPECT_FALSE(apic(2).write_msr(0x808, 0));
	enter_x2apic(2);
	EXPECT_EQ(read(2, Lapic::id), 2u);
	EXPECT_EQ(read(2, Lapic::ldr), 4u);
	for (u32 reg : {0x0u, 0x1u, 0x4u, 0x9u, 0xbu, 0xcu, 0xeu, 0x29u, 0x2fu, 0x31u, 0x3au, 0x3fu,
			0x40u, 0xffu})
		EXPECT_FALSE(apic(2).read_msr(0x800 + reg, value)) << std::hex << reg;
	for (u32 reg :
	     {0x0u, 0x2u, 0x3u, 0xau, 0xdu, 0xeu, 0x10u, 0x27u, 0x31u, 0x39u, 0x40u, 0xffu})
		EXPECT_FALSE(apic(2).write_msr(0x800 + reg, 0)) << std::hex << reg;
	EXPECT_FALSE(apic(2).write_msr(0x808, u64{1} << 32));
	EXPECT_FALSE(apic(2).write_msr(0x828, 1)) << "ESR takes 0 only";
	EXPECT_TRUE(apic(2).write_msr(0x828, 0));
	EXPECT_FALSE(apic(2).write_msr(0x830, 1 << 20)) << "reserved";
	EXPECT_TRUE(apic(2).write_msr(0x830, u64{0x12345} << 32 | 0x4050));
	EXPECT_TRUE(apic(2).read_msr(0x830, value));
	EXPECT_EQ(value, u64{0x12345} << 32 | 0x4050);
	EXPECT_FALSE(apic(2).write_msr(0x83f, 0x100));
	EXPECT_TRUE(apic(2).write_msr(0x83f, 0x50));
	EXPECT_EQ(taken(), 4u);
}

TEST_F(LapicTest, local_vector_table)
{
	const struct {
		u32 reg, writable;
	} entries[] = {
		{Lapic::lvt_timer, 0x300ff},       {Lapic::lvt_thermal, 0x107ff},
		{Lapic::lvt_performance, 0x107ff}, {Lapic::lvt_lint0, 0x1a7ff},
		{Lapic::lvt_lint1, 0x1a7ff},       {Lapic::lvt_error, 0x100ff},
	};

	for (const auto &e : entries) {
		write(0, e.reg, ~0u);
		EXPECT_EQ(read(0, e.reg), e.writable) << std::hex << e.reg;
		write(0, e.reg, e.writable & ~masked);
	}
	apic().set_has_deadline(true);
	write(0, Lapic::lvt_timer, ~0u);
	EXPECT_EQ(read(0, Lapic::lvt_timer), 0x700ffu);
	write(0, Lapic::svr, 0xff);
	for (const auto &e : entries) {
		EXPECT_TRUE(read(0, e.reg) & masked) << "the APIC was disabled";
		write(0, e.reg, 0);
		EXPECT_EQ(read(0, e.reg), masked);
	}
}

TEST_F(LapicTest, highest_priority_first)
{
	for (u8 vector : {0x31, 0x92, 0x45, 0x9f, 0x90})
		accept(0, vector);
	EXPECT_EQ(take(), 0x9f);
	EXPECT_EQ(read(0, Lapic::ppr), 0x90u);
	EXPECT_EQ(take(), -1) << "0x92 is of the same class";
	accept(0, 0xa0);
	EXPECT_EQ(take(), 0xa0);
	EXPECT_EQ(read(0, Lapic::isr + 5), 1u);
	write(0, Lapic::eoi, 0);
	EXPECT_EQ(take(), -1);
	write(0, Lapic::eoi, 0);
	EXPECT_EQ(take(), 0x92);
	write(0, Lapic::tpr, 0x45);
	write(0, Lapic::eoi, 0);
	EXPECT_EQ(take(), 0x90);
	write(0, Lapic::eoi, 0);
	EXPECT_EQ(read(0, Lapic::ppr), 0x45u);
	EXPECT_EQ(take(), -1) << "0x45 is not above it";
	write(0, Lapic::tpr, 0x3f);
	EXPECT_EQ(take(), 0x45);
	write(0, Lapic::eoi, 0);
	write(0, Lapic::tpr, 0);
	EXPECT_EQ(take(), 0x31);
	write(0, Lapic::eoi, 0);
	write(0, Lapic::eoi, 0); /* of nothing */
	EXPECT_EQ(take(), -1);
}

TEST_F(LapicTest, what_unblocks_is_looked_at)
{
	accept(0, 0x45);
	apic().take_due();
	for (u32 reg : {u32{Lapic::tpr}, u32{Lapic::eoi}, u32{Lapic::svr}, u32{Lapic::lvt_lint0}}) {
		if (reg == Lapic::eoi)
			apic().acknowledge(0x45);
		write(0, reg, reg == Lapic::svr ? enabled : 0);
		EXPECT_TRUE(apic().is_due()) << std::hex << reg;
		apic().take_due();
	}
	apic().set_base(page);
	EXPECT_TRUE(apic().is_due());
}

TEST_F(LapicTest, vectors_below_16_are_never_delivered)
{
	accept(0, 15);
	EXPECT_EQ(take(), -1);
	accept(0, 16);
	EXPECT_EQ(take(), 16);
}

TEST_F(LapicTest, end_of_interrupt_knows_the_trigger)
{
	bool level;

	accept(0, 0x45, true);
	EXPECT_EQ(read(0, Lapic::tmr + 2), 1u << 5);
	EXPECT_EQ(take(), 0x45);
	EXPECT_EQ(apic().take_ended(level), -1);
	write(0, Lapic::eoi, 0);
	EXPECT_EQ(apic().take_ended(level), 0x45);
	EXPECT_TRUE(level);
	EXPECT_EQ(apic().take_ended(level), -1);
	accept(0, 0x45, false);
	EXPECT_EQ(read(0, Lapic::tmr + 2), 0u);
	EXPECT_EQ(take(), 0x45);
	write(0, Lapic::eoi, 0);
	EXPECT_EQ(apic().take_ended(level), 0x45);
	EXPECT_FALSE(level);
}

TEST_F(LapicTest, disabled_takes_no_fixed_ones)
{
	write(1, Lapic::svr, 0xff);
	EXPECT_EQ(bus.deliver({.destination = 1, .vector = 0x50}), 0);
	EXPECT_EQ(bus.deliver({.destination = 1, .delivery = Mode::nmi}), 1);
	EXPECT_EQ(apic(1).take_nmis(), 1u);
	EXPECT_EQ(bus.deliver({.destination = 1, .delivery = Mode::init}), 1);
	EXPECT_TRUE(apic(1).take_signals().init);
}

TEST_F(LapicTest, physical_destinations)
{
	for (u32 i = 0; i < count; i++)
		EXPECT_EQ(reached({.destination = i}, 1), 1u << i);
	EXPECT_EQ(reached({.destination = 7}, -1), 0u);
	EXPECT_EQ(reached({.destination = 0xff}, 3), 7u);
	write(1, Lapic::id, 0x20 << 24);
	EXPECT_EQ(reached({.destination = 1}, -1), 0u);
	EXPECT_EQ(reached({.destination = 0x20}, 1), 2u);
	write(0, Lapic::id, 0x20 << 24);
	EXPECT_EQ(reached({.destination = 0x20}, 2), 3u);
	enter_x2apic(1);
	EXPECT_EQ(reached({.destination = 1}, 1), 2u);
	EXPECT_EQ(reached({.destination = ~0u}, 1), 2u);
}

TEST_F(LapicTest, devices_broadcast_to_x2apics_by_a_quirk)
{
	enter_x2apic(1);
	EXPECT_EQ(reached({.destination = 0xff}, 3), 7u);
	EXPECT_EQ(sent(0, 0, 0xff), 5u) << "of an IPI it is an id";
	api.enable(KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
	EXPECT_EQ(reached({.destination = 0xff}, 2), 5u);
}

TEST_F(LapicTest, logical_destinations)
{
	/* Flat: a bit each. */
	for (u32 i = 0; i < count; i++)
		write(i, Lapic::ldr, 0x01000000 << i | 0xffffff);
	EXPECT_EQ(read(1, Lapic::ldr), 0x02000000u);
	EXPECT_EQ(reached({.destination = 6, .logical = true}, 2), 6u);
	EXPECT_EQ(reached({.destination = 8, .logical = true}, -1), 0u);
	EXPECT_EQ(reached({.destination = 0xff, .logical = true}, 3), 7u);
	/* Clusters of four. */
	const u32 ids[] = {0x11, 0x12, 0x21};
	for (u32 i = 0; i < count; i++) {
		write(i, Lapic::dfr, 0x0fffffff);
		write(i, Lapic::ldr, ids[i] << 24);
	}
	EXPECT_EQ(reached({.destination = 0x1f, .logical = true}, 2), 3u);
	EXPECT_EQ(reached({.destination = 0x12, .logical = true}, 1), 2u);
	EXPECT_EQ(reached({.destination = 0x21, .logical = true}, 1), 4u);
	EXPECT_EQ(reached({.destination = 0x31, .logical = true}, -1), 0u);
	for (u32 i = 0; i < count; i++)
		enter_x2apic(i);
	EXPECT_EQ(reached({.destination = 5, .logical = true}, 2), 5u);
	EXPECT_EQ(reached({.destination = 0x10007, .logical = true}, -1), 0u);
	EXPECT_EQ(reached({.destination = ~0u, .logical = true}, 3), 7u);
}

TEST_F(LapicTest, ipis)
{
	for (bool x2apic : {false, true}) {
		if (x2apic)
			for (u32 i = 0; i < count; i++)
				enter_x2apic(i);
		EXPECT_EQ(sent(0, 0, 2), 4u);
		EXPECT_EQ(sent(2, 0, 0), 1u);
		EXPECT_EQ(sent(1, 1 << 18, 0), 2u) << "self";
		EXPECT_EQ(sent(1, 2 << 18, 0), 7u) << "all";
		EXPECT_EQ(sent(1, 3 << 18, 0), 5u) << "all but self";
		EXPECT_EQ(sent(0, 0, 0xfe), 0u);
	}
	EXPECT_EQ(sent(0, 0, ~0u), 7u);
}

TEST_F(LapicTest, own_ipi_kicks_nobody)
{
	apic(1).take_due();
	EXPECT_EQ(sent(1, 1 << 18, 0), 2u);
	EXPECT_TRUE(apic(1).is_due());
	IrqOff irq;
	EXPECT_FALSE(entries[1]->kick.enter(irq).has(Request::interrupt));
	entries[1]->kick.leave(irq);
}

TEST_F(LapicTest, lowest_priority_goes_round)
{
	ApicMessage message{.destination = 0xff, .delivery = Mode::lowest_priority};
	u32 reached_all = 0;

	for (u32 i = 0; i < count; i++)
		reached_all |= reached(message, 1) << (4 * i);
	EXPECT_EQ(reached_all, 0x421u);
	write(1, Lapic::svr, 0xff);
	for (u32 i = 0; i < 6; i++)
		EXPECT_NE(reached(message, 1), 2u) << "it is disabled";
	for (u32 i = 0; i < count; i++)
		write(i, Lapic::svr, 0xff);
	EXPECT_EQ(reached(message, 0), 0u);
}

TEST_F(LapicTest, nmi_init_and_startup)
{
	write(0, Lapic::icr_high, 1 << 24);
	write(0, Lapic::icr, 0x400);
	write(0, Lapic::icr, 0x400);
	EXPECT_EQ(apic(1).take_nmis(), 2u);
	EXPECT_EQ(apic(1).take_nmis(), 0u);
	write(0, Lapic::icr, 0x4500);
	write(0, Lapic::icr, 0x8500); /* the level's de-assertion, of which nothing comes */
	write(0, Lapic::icr, 0x46ab);
	Lapic::Signals signals = apic(1).take_signals();
	EXPECT_TRUE(signals.init && signals.startup);
	EXPECT_EQ(signals.vector, 0xab);
	EXPECT_FALSE(apic(1).has_signals());
	write(0, Lapic::icr, 0x8500);
	EXPECT_FALSE(apic(1).has_signals());
	write(0, Lapic::icr, 0x46cd);
	write(0, Lapic::icr, 0x4500);
	signals = apic(1).take_signals();
	EXPECT_TRUE(signals.init);
	EXPECT_FALSE(signals.startup) << "it came before INIT";
	/* Neither SMI nor ExtINT is one that an APIC can be sent. */
	EXPECT_EQ(bus.deliver({.destination = 1, .delivery = Mode::smi}), 0);
	EXPECT_EQ(bus.deliver({.destination = 1, .delivery = Mode::external}), 0);
}

TEST_F(LapicTest, init_keeps_mode_and_id)
{
	write(1, Lapic::id, 5 << 24);
	write(1, Lapic::tpr, 0x20);
	accept(1, 0x50);
	EXPECT_TRUE(apic(1).accept({.delivery = Mode::nmi}));
	apic(1).init();
	EXPECT_EQ(read(1, Lapic::id), 5u << 24);
	EXPECT_EQ(read(1, Lapic::tpr), 0u);
	EXPECT_EQ(read(1, Lapic::svr), 0xffu);
	EXPECT_EQ(read(1, Lapic::irr + 2), 0u);
	EXPECT_EQ(apic(1).take_nmis(), 0u);
	enter_x2apic(1);
	apic(1).init();
	EXPECT_EQ(read(1, Lapic::id), 1u);
	EXPECT_EQ(read(1, Lapic::ldr), 2u);
}

TEST_F(LapicTest, external_interrupts_are_for_lint0)
{
	for (u32 i = 0; i < count; i++)
		apic(i).take_due();
	write(0, Lapic::lvt_lint0, 0x10700);
	write(1, Lapic::lvt_lint0, 0x700);
	write(2, Lapic::lvt_lint0, 0x30);
	for (u32 i = 0; i < count; i++)
		apic(i).take_due();
	bus.external_interrupt();
	EXPECT_FALSE(apic(0).is_due());
	EXPECT_TRUE(apic(1).is_due());
	EXPECT_FALSE(apic(2).is_due());
}

TEST_F(LapicTest, who_is_in_the_guest_is_kicked)
{
	apic(1).take_due();
	migrate_to(2);
	{
		IrqOff irq;
		EXPECT_FALSE(entries[1]->kick.enter(irq).is_for_thread());
	}
	migrate_to(0);
	accept(1, 0x50);
	EXPECT_EQ(ipis_sent(), 1u);
	EXPECT_TRUE(apic(1).is_due());
	migrate_to(2);
	IrqOff irq;
	entries[1]->kick.leave(irq);
	EXPECT_TRUE(entries[1]->kick.enter(irq).has(Request::interrupt));
	entries[1]->kick.leave(irq);
}

TEST_F(LapicTest, state_is_saved_and_restored)
{
	auto state = std::make_unique<kvm_lapic_state>();
	auto word = [&](u32 reg) -> u32 & {
		return *reinterpret_cast<u32 *>(state->regs + reg * 16);
	};

	write(1, Lapic::tpr, 0x23);
	write(1, Lapic::lvt_lint1, 0x400);
	accept(1, 0x50, true);
	EXPECT_EQ(take(1), 0x50);
	accept(1, 0x61);
	apic(1).get_state(*state, false);
	EXPECT_EQ(word(Lapic::id), 1u << 24);
	EXPECT_EQ(word(Lapic::ppr), 0x50u);
	EXPECT_EQ(word(Lapic::irr + 3), 2u);
	word(Lapic::version) = 1;
	apic(1).init();
	apic(1).take_due();
	EXPECT_TRUE(apic(1).set_state(*state, false));
	EXPECT_TRUE(apic(1).is_due());
	EXPECT_EQ(read(1, Lapic::version), 0x50014u);
	EXPECT_EQ(read(1, Lapic::tpr), 0x23u);
	EXPECT_EQ(read(1, Lapic::lvt_lint1), 0x400u);
	EXPECT_EQ(take(1), 0x61);
	write(1, Lapic::eoi, 0);
	write(1, Lapic::eoi, 0);
	bool level;
	EXPECT_EQ(apic(1).take_ended(level), 0x50);
	EXPECT_TRUE(level);
	/* The layout of ids. */
	enter_x2apic(1);
	apic(1).get_state(*state, false);
	EXPECT_EQ(word(Lapic::id), 1u << 24);
	EXPECT_FALSE(apic(1).set_state(*state, true));
	apic(1).get_state(*state, true);
	EXPECT_EQ(word(Lapic::id), 1u);
	EXPECT_FALSE(apic(1).set_state(*state, false));
	word(Lapic::ldr) = 0x777;
	EXPECT_TRUE(apic(1).set_state(*state, true));
	EXPECT_EQ(read(1, Lapic::ldr), 2u);
	word(Lapic::id) = 2;
	EXPECT_FALSE(apic(1).set_state(*state, true));
}

TEST_F(TimerTest, one_shot)
{
	start(one_shot, 1000);
	EXPECT_EQ(read(0, Lapic::initial_count), 1000u);
	EXPECT_EQ(read(0, Lapic::current_count), 1000u);
	advance_timers(400);
	EXPECT_EQ(read(0, Lapic::current_count), 600u);
	EXPECT_EQ(take(), -1);
	EXPECT_EQ(ticks(10, 200), 1u);
	EXPECT_EQ(read(0, Lapic::current_count), 0u);
	EXPECT_EQ(timers_set(), 0);
	write(0, Lapic::initial_count, 1000);
	write(0, Lapic::initial_count, 0);
	EXPECT_EQ(ticks(10, 200), 0u) << "0 stops it";
}

TEST_F(TimerTest, divided)
{
	const u32 divisors[] = {0, 2, 1, 4, 2, 8, 3, 16, 8, 32, 9, 64, 10, 128, 11, 1};

	for (u32 i = 0; i < 16; i += 2) {
		write(0, Lapic::divide, divisors[i]);
		if (i == 0)
			continue;
		start(one_shot, 100);
		advance_timers(100 * divisors[i + 1] - 1);
		EXPECT_EQ(take(), -1) << divisors[i];
		advance_timers(1);
		EXPECT_EQ(take(), 0x60) << divisors[i];
		write(0, Lapic::eoi, 0);
	}
	/* What is left counts on. */
	start(one_shot, 1000);
	advance_timers(500);
	write(0, Lapic::divide, 0);
	EXPECT_EQ(read(0, Lapic::current_count), 500u);
	advance_timers(999);
	EXPECT_EQ(take(), -1);
	advance_timers(1);
	EXPECT_EQ(take(), 0x60);
}

TEST_F(TimerTest, periodic)
{
	start(periodic, 1'000'000);
	EXPECT_EQ(ticks(10, 1'000'000), 10u);
	advance_timers(250'000);
	EXPECT_EQ(read(0, Lapic::current_count), 750'000u);
	/* Nobody runs faster than every 200 us. */
	start(periodic, 10);
	EXPECT_EQ(ticks(100, 20'000), 10u);
	write(0, Lapic::lvt_timer, one_shot | 0x60);
	EXPECT_EQ(ticks(100, 20'000), 1u) << "one more, which is the last";
	write(0, Lapic::lvt_timer, periodic | 0x60);
	EXPECT_EQ(ticks(10, 1'000'000), 0u);
}

TEST_F(TimerTest, becomes_periodic_under_way)
{
	start(one_shot, 10);
	write(0, Lapic::lvt_timer, periodic | 0x60);
	EXPECT_EQ(ticks(100, 20'000), 10u) << "every 200 us, not every 10 ns";
}

TEST_F(TimerTest, tsc_deadline)
{
	write(0, Lapic::lvt_timer, one_shot | 0x60);
	set_deadline(1000, 0);
	EXPECT_EQ(apic().deadline(), 0u) << "not in this mode";
	EXPECT_EQ(timers_set(), 0);
	write(0, Lapic::lvt_timer, deadline | 0x60);
	write(0, Lapic::initial_count, 1000);
	EXPECT_EQ(read(0, Lapic::initial_count), 0u) << "nor that in this";
	u64 khz = glue_tsc_khz();
	set_deadline(5 * khz, 2 * khz);
	EXPECT_EQ(apic().deadline(), 5 * khz);
	EXPECT_EQ(read(0, Lapic::current_count), 0u);
	advance_timers(2'999'999);
	EXPECT_EQ(take(), -1);
	advance_timers(1);
	EXPECT_EQ(take(), 0x60);
	EXPECT_EQ(apic().deadline(), 0u);
	write(0, Lapic::eoi, 0);
	set_deadline(khz, 2 * khz);
	EXPECT_EQ(ticks(2, 1), 1u) << "it has passed";
	set_deadline(~u64{0}, 0);
	EXPECT_EQ(ticks(3, 1'000'000'000'000), 0u);
	set_deadline(0, 0);
	EXPECT_EQ(timers_set(), 0);
	set_deadline(~u64{0}, 0);
	write(0, Lapic::lvt_timer, one_shot | 0x60);
	EXPECT_EQ(timers_set(), 0) << "the mode has changed";
}

TEST_F(TimerTest, cpu_watches)
{
	LapicTimer &timer = apic().timer();
	auto pass = [&](u64 ns) {
		advance_timers(ns);
		set_tsc(insn::rdtsc() + ns);
		timer.run_down();
	};

	set_tsc_khz(1'000'000);
	EXPECT_EQ(timer.tsc_target(), LapicTimer::never);
	timer.watch_by_cpu();
	EXPECT_EQ(timer.tsc_target(), LapicTimer::never);
	start(one_shot, 1000);
	EXPECT_EQ(timers_set(), 0);
	EXPECT_EQ(timer.tsc_target(), insn::rdtsc() + 1000);
	pass(999);
	EXPECT_EQ(take(), -1);
	EXPECT_EQ(read(0, Lapic::current_count), 1u);
	pass(1);
	EXPECT_EQ(take(), 0x60);
	write(0, Lapic::eoi, 0);
	EXPECT_EQ(timer.tsc_target(), LapicTimer::never);
	EXPECT_EQ(read(0, Lapic::current_count), 0u);

	start(periodic, 1'000'000);
	for (int i = 0; i < 3; i++) {
		pass(1'000'000);
		EXPECT_EQ(take(), 0x60);
		write(0, Lapic::eoi, 0);
		EXPECT_EQ(timer.tsc_target(), insn::rdtsc() + 1'000'000);
	}
	/* To Linux and back, under way. */
	pass(400'000);
	timer.watch_by_linux();
	EXPECT_EQ(timer.tsc_target(), LapicTimer::never);
	pass(599'999);
	EXPECT_EQ(take(), -1);
	pass(1);
	EXPECT_EQ(take(), 0x60);
	write(0, Lapic::eoi, 0);
	pass(300'000);
	timer.watch_by_cpu();
	EXPECT_EQ(timers_set(), 0);
	EXPECT_EQ(timer.tsc_target(), insn::rdtsc() + 700'000);
	/* What has gone by when it is handed over goes off. */
	advance_timers(700'000);
	set_tsc(insn::rdtsc() + 700'000);
	timer.watch_by_linux();
	EXPECT_EQ(take(), 0x60);
	write(0, Lapic::eoi, 0);
	EXPECT_EQ(timers_set(), 1);
	timer.watch_by_cpu();
	timer.stop();
	EXPECT_EQ(timer.tsc_target(), LapicTimer::never);
}

TEST_F(TimerTest, cpu_watches_a_deadline)
{
	LapicTimer &timer = apic().timer();

	set_tsc_khz(1'000'000);
	set_tsc(1'000'000);
	write(0, Lapic::lvt_timer, deadline | 0x60);
	timer.watch_by_cpu();
	/* The guest's TSC is another one. */
	set_deadline(700, 200);
	EXPECT_EQ(timers_set(), 0);
	EXPECT_EQ(timer.tsc_target(), 1'000'500u);
	timer.watch_by_linux();
	EXPECT_EQ(timers_set(), 1);
	timer.watch_by_cpu();
	EXPECT_EQ(timer.tsc_target(), 1'000'500u);
	timer.tsc_lost(400'000);
	EXPECT_EQ(timer.tsc_target(), 600'500u);
	set_tsc(600'499);
	timer.run_down();
	EXPECT_EQ(take(), -1);
	set_tsc(600'500);
	timer.run_down();
	EXPECT_EQ(take(), 0x60);
	EXPECT_EQ(apic().deadline(), 0u);
	write(0, Lapic::eoi, 0);
	set_deadline(100, 200);
	EXPECT_EQ(timer.tsc_target(), 600'500u) << "it has passed";
	timer.tsc_lost(1'000'000);
	set_tsc(7);
	EXPECT_EQ(timer.tsc_target(), 0u) << "it had passed before the TSC went back";
	timer.run_down();
	EXPECT_EQ(take(), 0x60);
	write(0, Lapic::eoi, 0);
	set_tsc(600'500);
	set_deadline(~u64{0}, 200);
	EXPECT_EQ(timer.tsc_target(), LapicTimer::never) << "as good as never";
	EXPECT_EQ(apic().deadline(), ~u64{0});
}

TEST_F(TimerTest, deadline_stays_as_the_registers_are_restored)
{
	auto state = std::make_unique<kvm_lapic_state>();

	write(0, Lapic::lvt_timer, deadline | 0x60);
	set_deadline(1000, 0);
	apic().get_state(*state, false);
	EXPECT_TRUE(apic().set_state(*state, false));
	EXPECT_EQ(apic().deadline(), 1000u);
	EXPECT_EQ(timers_set(), 1);
	write(0, Lapic::lvt_timer, one_shot | 0x60);
	EXPECT_TRUE(apic().set_state(*state, false));
	EXPECT_EQ(apic().deadline(), 0u) << "the mode has changed";
	EXPECT_EQ(timers_set(), 0);
}

TEST_F(TimerTest, late_hand_over_is_posted)
{
	LapicTimer &timer = apic().timer();

	set_tsc_khz(1'000'000);
	timer.watch_by_cpu();
	start(one_shot, 1000);
	set_tsc(insn::rdtsc() + 1000);
	apic().take_due();
	timer.watch_by_linux();
	EXPECT_TRUE(entries[0]->kick.take().has(Request::interrupt)) << "it has looked already";
}

TEST_F(TimerTest, masked_is_silent)
{
	start(one_shot, 1000);
	write(0, Lapic::lvt_timer, masked | 0x60);
	EXPECT_EQ(ticks(10, 200), 0u);
	EXPECT_EQ(read(0, Lapic::current_count), 0u);
	start(periodic, 1'000'000);
	write(0, Lapic::lvt_timer, periodic | masked | 0x60);
	EXPECT_EQ(ticks(3, 1'000'000), 0u);
	write(0, Lapic::lvt_timer, periodic | 0x60);
	EXPECT_EQ(ticks(3, 1'000'000), 3u);
}

TEST_F(TimerTest, tick_is_posted_like_any_interrupt)
{
	start(one_shot, 1000);
	apic().take_due();
	migrate_to(2);
	{
		IrqOff irq;
		(void)entries[0]->kick.enter(irq);
	}
	migrate_to(0);
	advance_timers(1000);
	EXPECT_TRUE(apic().is_due());
	EXPECT_EQ(ipis_sent(), 1u);
	IrqOff irq;
	entries[0]->kick.leave(irq);
}

TEST_F(TimerTest, saved_timers_go_on)
{
	auto state = std::make_unique<kvm_lapic_state>();

	start(one_shot, 1000);
	advance_timers(400);
	apic().get_state(*state, false);
	apic().init();
	advance_timers(5000);
	EXPECT_TRUE(apic().set_state(*state, false));
	advance_timers(599);
	EXPECT_EQ(take(), -1);
	advance_timers(1);
	EXPECT_EQ(take(), 0x60);
	write(0, Lapic::eoi, 0);
	apic().get_state(*state, false);
	EXPECT_TRUE(apic().set_state(*state, false));
	EXPECT_EQ(ticks(10, 1000), 0u) << "it has gone off";
	start(periodic, 1'000'000);
	advance_timers(400'000);
	apic().get_state(*state, false);
	EXPECT_TRUE(apic().set_state(*state, false));
	advance_timers(599'999);
	EXPECT_EQ(take(), -1);
	EXPECT_EQ(ticks(1, 1), 1u);
	EXPECT_EQ(ticks(3, 1'000'000), 3u);
}
