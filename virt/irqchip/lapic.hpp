/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A local APIC in the kernel, "Advanced Programmable Interrupt Controller (APIC)", in xAPIC or x2APIC mode.
 *
 * It is part of what others see of a vCPU, and found under RCU. They post: IRR, TMR and what else has come
 * are atomic words, and nobody takes a lock. All else is written by the vCPU's thread only, and what others
 * read of that (ids, whether it is enabled, the LVT's entries) is relaxed: an interrupt that meets a change
 * of it in another CPU comes before or after that.
 *
 * None is lost. Who posts sets the bit, then is_due(), then asks and kicks the vCPU, then wakes it. The vCPU
 * says where it is (KickTarget::enter()) or that it sleeps (glue_sleep_until()), then looks: a full barrier on
 * either side, so that one of the two sees the other.
 */
#pragma once

#include "apic_message.hpp"
#include "arch/x86/x2apic.hpp"
#include "include/kvmpp/kick.hpp"
#include "lapic_timer.hpp"

#include <linux_glue/sched.h>

#include <atomic>

struct kvm_lapic_state;

namespace kvmpp
{

class ApicBus;

class Lapic
{
public:
	/* Numbers of registers: of 16 bytes each in memory, and those of the MSRs from 0x800 on. */
	enum Register : u32 {
		id = 0x02,
		version = 0x03,
		tpr = 0x08,
		apr = 0x09,
		ppr = 0x0a,
		eoi = 0x0b,
		ldr = 0x0d,
		dfr = 0x0e,
		svr = 0x0f,
		isr = 0x10,
		tmr = 0x18,
		irr = 0x20,
		esr = 0x28,
		icr = 0x30,
		icr_high = 0x31,
		lvt_timer = 0x32,
		lvt_thermal = 0x33,
		lvt_performance = 0x34,
		lvt_lint0 = 0x35,
		lvt_lint1 = 0x36,
		lvt_error = 0x37,
		initial_count = 0x38,
		current_count = 0x39,
		divide = 0x3e,
		self_ipi = 0x3f,
		register_count = 0x40
	};
	static constexpr u32 first_msr = 0x800;

	/* Of the vCPU with that id, as after RESET. */
	Lapic(u32 vcpu, KickTarget &kick, const ApicBus &bus);
	Lapic(const Lapic &) = delete;
	Lapic &operator=(const Lapic &) = delete;

	/* Anybody, in any context but NMI. */

	/* False: it takes no such thing, or is disabled. @by_itself: by the thread of its vCPU. */
	bool accept(const ApicMessage &message, bool by_itself = false);
	/* Whether one that is not for a shorthand's is for this one. */
	bool is_for(u32 destination, bool logical) const;
	/* Physical; nobody else's if it is its vCPU's. */
	bool has_own_id() const;
	bool is_x2apic() const { return base() & apic_base_bit::extended; }
	/* By hardware and software: it takes fixed interrupts. */
	bool is_enabled() const { return is_present() && (get(svr) & LocalApic::svr_enabled); }
	/* The 8259s' output is for it: LINT0 is "ExtINT", or there is no APIC in between. */
	bool takes_external() const;
	/* Something has changed that its vCPU is to look at; it comes out of the guest, or wakes. */
	void post();
	/* How many it was given by "lowest priority": the next one goes to who has least. */
	u32 arbitration() const { return arbitration_.load(std::memory_order_relaxed); }
	u32 vcpu() const { return vcpu_; }

	/* By the timer: interrupts off, or its vCPU's thread. */
	void timer_expired(bool by_itself);
	bool timer_is_periodic() const;

	/* The rest: by the vCPU's thread, or another that holds its mutex. */

	/* Has something been posted, or is something kept back, since take_due()? */
	bool is_due() const { return due_.load(std::memory_order_relaxed); }
	void take_due() { (void)due_.exchange(false, std::memory_order_acquire); }
	void set_due() { due_.store(true, std::memory_order_relaxed); }

	/*
	 * After a write of the guest's, whether its thread is to look now: what others post it is asked for, and for
	 * what waits until the guest allows it there is a window. It stays due.
	 */
	bool has_work() const;

	/* The interrupt that is to be delivered next, if its priority lets it; or -1. And that it is. */
	int pending() const;
	void acknowledge(u8 vector);
	/* NMIs that have come. */
	u32 take_nmis();
	bool has_nmis() const { return nmis_.load(std::memory_order_relaxed); }
	/* INIT and start-up IPIs that have come. */
	struct Signals {
		bool init = false, startup = false;
		u8 vector = 0; /* of the start-up IPI */
	};
	Signals take_signals();
	bool has_signals() const;
	/* KVM_SET_MP_STATE, KVM_SET_VCPU_EVENTS. */
	void set_startup();
	void set_startup_vector(u8 vector);

	/* "x2APIC State Transitions": IA32_APIC_BASE, as it was checked. */
	void set_base(u64 value);
	u64 base() const { return base_.load(std::memory_order_relaxed); }
	void set_has_deadline(bool has) { has_deadline_ = has; }
	/* INIT: IA32_APIC_BASE and, in xAPIC mode, the id stay. */
	void init() MAY_SLEEP;
	LapicTimer &timer() { return timer_; }

	u32 priority() const { return get(tpr); }
	void set_priority(u32 value);

	/* False: #GP. In x2APIC mode. */
	bool read_msr(u32 index, u64 &value) const;
	bool write_msr(u32 index, u64 value) MAY_SLEEP;
	/* IA32_TSC_DEADLINE of a guest whose TSC is the host's plus @tsc_offset. */
	u64 deadline() const;
	void set_deadline(u64 value, u64 tsc_offset) MAY_SLEEP;
	/*
	 * Of these what needs no sleep; false: nothing was done, and write_msr(), set_deadline() and take_ended()
	 * are to do it. EOI is for the one in_service(), edge-triggered, or for none.
	 */
	bool write_icr(u64 value);
	bool set_deadline_at_once(u64 value, u64 tsc_offset);
	void end_edge();
	/* The highest vector whose handler runs, or -1; and how it was triggered. */
	int in_service() const { return highest(isr); }
	bool is_level(u8 vector) const;
	/* In xAPIC mode; false: it is not at that address. */
	bool read_memory(u64 address, u32 length, u8 *data) const;
	bool write_memory(u64 address, u32 length, const u8 *data) MAY_SLEEP;
	/* A vector that has come to its end since the last call, or -1; whether it was level-triggered. */
	int take_ended(bool &level);

	/* @wide_ids: KVM_X2APIC_API_USE_32BIT_IDS. False: the id is not the vCPU's, and nothing was changed. */
	void get_state(kvm_lapic_state &state, bool wide_ids) const;
	[[nodiscard]] bool set_state(const kvm_lapic_state &state, bool wide_ids) MAY_SLEEP;

private:
	u32 get(u32 reg) const { return registers_[reg].load(std::memory_order_relaxed); }
	void put(u32 reg, u32 value) { registers_[reg].store(value, std::memory_order_relaxed); }
	bool is_present() const { return base() & apic_base_bit::enabled; }
	int highest(u32 first) const;
	u32 processor_priority() const;
	bool read(u32 reg, u32 &value) const;
	bool write(u32 reg, u32 value) MAY_SLEEP;
	void write_svr(u32 value) MAY_SLEEP;
	void write_lvt_timer(u32 value) MAY_SLEEP;
	void end_interrupt();
	void send() const;
	void reset() MAY_SLEEP;
	u32 divisor() const;
	bool is_at(u64 address, u32 length) const;

	const u32 vcpu_;
	KickTarget &kick_;
	const ApicBus &bus_;
	std::atomic<u64> base_;
	std::atomic<u32> registers_[register_count] = {};

	std::atomic<bool> due_{false};
	std::atomic<u32> nmis_{0};
	/* INIT, a start-up IPI and its vector: an INIT drops the latter. */
	std::atomic<u32> signals_{0};
	std::atomic<u32> arbitration_{0};

	bool has_deadline_ = false;
	int ended_ = -1;
	LapicTimer timer_{*this};

public:
	/* Where the vCPU's thread waits. */
	glue_sleeper sleeper;
};

} // namespace kvmpp
