/* SPDX-License-Identifier: GPL-2.0 */
/* "82093AA I/O Advanced Programmable Interrupt Controller". Whoever has one locks it. */
#pragma once

#include "apic_message.hpp"
#include "include/kvmpp/types.hpp"
#include "irq_line.hpp"

#include <atomic>

struct kvm_ioapic_state;

namespace kvmpp
{

/* Vectors, for readers that take no lock. */
class VectorSet
{
public:
	bool has(u8 vector) const
	{
		return words_[vector / 64].load(std::memory_order_relaxed) & u64{1} << vector % 64;
	}
	/* One that was in it and stays is not missed. */
	void set(const u64 (&words)[4])
	{
		for (unsigned i = 0; i < 4; i++)
			words_[i].store(words[i], std::memory_order_relaxed);
	}

private:
	std::atomic<u64> words_[4] = {};
};

/* "I/O Redirection Table Registers" */
class Redirection
{
public:
	static constexpr u64 delivery_status = 1 << 12, remote_irr = 1 << 14, level = 1 << 15,
			     masked = 1 << 16;

	u64 bits = masked;

	bool has(u64 flag) const { return bits & flag; }
	u8 vector() const { return static_cast<u8>(bits); }
	ApicMessage message() const
	{
		return {.destination = static_cast<u32>(bits >> 56),
			.vector = vector(),
			.delivery = static_cast<ApicMessage::Delivery>(bits >> 8 & 7),
			.logical = (bits & 1 << 11) != 0,
			.level = has(level)};
	}
};

class Ioapic
{
public:
	static constexpr u32 pins = 24;
	static constexpr u64 default_base = 0xfec00000, bytes = 0x100;

	/* @vectors is told which ones its pins have. */
	Ioapic(const ApicMessageSink &bus, VectorSet &vectors);

	/* What ApicBus::deliver() says; negative also when it is masked or waits for its EOI. */
	int set_irq(u32 pin, IrqSource source, bool level);

	/* Anybody: most accesses are to other devices. */
	bool has_address(u64 address, u32 length) const
	{
		u64 offset = address - base_.load(std::memory_order_relaxed);

		return offset < bytes && length <= bytes - offset;
	}
	/* At an offset from its base. */
	u32 read(u64 offset) const;
	void write(u64 offset, u32 value);

	/*
	 * A local APIC has ended @vector: the pins that it may have come from; then the end, if it was
	 * level-triggered. True: one that has come again with each end for too long waits for resend(), in a moment.
	 */
	u32 pins_of(u8 vector) const;
	bool end(u8 vector);
	void resend();

	void get(kvm_ioapic_state &state) const;
	/* What no I/O APIC has is left out. What was pending comes anew. */
	void set(const kvm_ioapic_state &state);

private:
	static constexpr u32 storm = 10000;

	int raise(u32 pin);
	int send(u32 pin);
	u32 read_register() const;
	void write_register(u32 value);
	void write_redirection(u32 pin, bool high, u32 value);
	void tell_vectors();

	const ApicMessageSink &bus_;
	VectorSet &vectors_;
	std::atomic<u64> base_{default_base};
	u8 selected_ = 0;
	u8 id_ = 0;
	/* The lines that are up; edges that wait, or that have been sent, until they are down again. */
	u32 irr_ = 0;
	u32 sent_edges_ = 0;
	Redirection redirections_[pins];
	IrqLine lines_[pins];
	/* How often in a row the line was still up at the end. */
	u32 repeated_[pins] = {};
};

} // namespace kvmpp
