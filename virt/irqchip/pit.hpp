/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The 8254 of a VM: ports 0x40 to 0x43, and with @speaker what of port 0x61 belongs to it. Counter 0 is GSI 0:
 * an edge each time that it is through.
 */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "irqchip.hpp"
#include "pit_channel.hpp"

#include <linux_glue/timer.h>

namespace kvmpp
{

class Pit final : private IrqAckListener
{
public:
	/* @irqchip outlives it. May sleep. */
	Pit(Irqchip &irqchip, bool speaker) MAY_SLEEP;
	Pit(const Pit &) = delete;
	Pit &operator=(const Pit &) = delete;
	/* Nobody is in a member, or will be: but the timer and the listener. May sleep. */
	~Pit() MAY_SLEEP;

	/* False: it is not at that address. */
	bool access(DeviceAccess &access) EXCLUDES(lock_);

	/* KVM_GET_PIT2, KVM_SET_PIT, KVM_SET_PIT2. Counters begin anew when they are set. */
	kvm_pit_state2 get() EXCLUDES(lock_);
	void set(const kvm_pit_state &state) EXCLUDES(lock_);
	void set(const kvm_pit_state2 &state) EXCLUDES(lock_);
	/* KVM_REINJECT_CONTROL: whether an interrupt that finds the one before unacknowledged comes after it. */
	void set_reinject(bool reinject) EXCLUDES(lock_);

private:
	static constexpr unsigned channels = 3;
	struct Timer : glue_timer {
		Pit *pit;
	};

	PitChannel &channel_at(u64 port) REQUIRES(lock_);
	u8 read_port(u64 port, u64 now) REQUIRES(lock_);
	void write_port(u64 port, u8 value, u64 now) REQUIRES(lock_);
	void load(const kvm_pit_channel_state (&states)[channels], u32 flags) REQUIRES(lock_);
	/* Counter 0 was loaded. */
	void start_timer(u64 now) REQUIRES(lock_);
	void expired() EXCLUDES(lock_);
	void acknowledged() override EXCLUDES(lock_);
	void inject() REQUIRES(lock_);

	Irqchip &irqchip_;
	const bool speaker_;
	/* Irqchip's lock is taken inside it. */
	IrqSpinLock lock_;
	PitChannel channels_[channels] GUARDED_BY(lock_);
	u32 flags_ GUARDED_BY(lock_) = 0; /* KVM_PIT_FLAGS_* */

	/* What the timer is set for may be past: no period, or not due yet, is nothing to be told. */
	Timer timer_{};
	u64 began_ GUARDED_BY(lock_) = 0;
	/* In ticks from there: of the interrupts, 0 for none; and of the next one. */
	u64 period_ GUARDED_BY(lock_) = 0;
	u64 due_ GUARDED_BY(lock_) = 0;
	bool periodic_ GUARDED_BY(lock_) = false;

	bool reinject_ GUARDED_BY(lock_) = true;
	/* Interrupts that the controllers have not taken yet. */
	u64 pending_ GUARDED_BY(lock_) = 0;
};

} // namespace kvmpp
