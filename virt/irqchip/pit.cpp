// SPDX-License-Identifier: GPL-2.0
#include "pit.hpp"

#include "include/kvmpp/nospec.hpp"

namespace kvmpp
{

namespace
{

constexpr u64 first_port = 0x40, control_port = 0x43, speaker_port = 0x61;

/* 200 us, as KVM's min_timer_period_us: Linux's timers come in interrupts, which no scheduler holds back. */
constexpr u64 min_period = pit::ticks_in(200'000) + 1;

/* "NMI Status and Control Register" of the chipset; the refresh bit toggles about every 15 us. */
struct SpeakerPort {
	static constexpr u8 gate = 1 << 0, data = 1 << 1, refresh = 1 << 4, output = 1 << 5;
	static constexpr unsigned refresh_shift = 14;
};

} // namespace

Pit::Pit(Irqchip &irqchip, bool speaker) : irqchip_(irqchip), speaker_(speaker)
{
	lock_.init(GLUE_LOCK_PIT);
	timer_.pit = this;
	glue_timer_init(&timer_, [](glue_timer *timer) -> u64 {
		static_cast<Timer *>(timer)->pit->expired();
		return 0;
	});
	{
		Locked locked(lock_);
		u64 now = glue_timer_now();

		for (unsigned i = 0; i < channels; i++)
			channels_[i].reset(i != 2, now);
	}
	gsi = 0;
	irqchip_.add(*this);
}

Pit::~Pit()
{
	irqchip_.remove(*this);
	glue_timer_cancel(&timer_);
}

bool Pit::access(DeviceAccess &access)
{
	u64 port = access.address;
	bool is_speaker = speaker_ && port == speaker_port;

	if (access.space != IoSpace::port)
		return false;
	if (!is_speaker && (port < first_port || port + access.length > control_port + 1))
		return false;
	/* It has eight data lines. */
	Locked locked(lock_);
	u64 now = glue_timer_now();
	if (access.is_write) {
		write_port(port, access.data[0], now);
		return true;
	}
	for (u8 &byte : access.data)
		byte = 0;
	access.data[0] = read_port(port, now);
	return true;
}

PitChannel &Pit::channel_at(u64 port)
{
	return channels_[array_index_nospec(port - first_port, channels)];
}

u8 Pit::read_port(u64 port, u64 now)
{
	if (port == control_port)
		return 0;
	if (port != speaker_port)
		return channel_at(port).read(now);

	u8 value = 0;
	if (channels_[2].gate())
		value |= SpeakerPort::gate;
	if (flags_ & KVM_PIT_FLAGS_SPEAKER_DATA_ON)
		value |= SpeakerPort::data;
	if (now >> SpeakerPort::refresh_shift & 1)
		value |= SpeakerPort::refresh;
	if (channels_[2].output(now))
		value |= SpeakerPort::output;
	return value;
}

void Pit::write_port(u64 port, u8 value, u64 now)
{
	if (port == speaker_port) {
		flags_ &= ~u32{KVM_PIT_FLAGS_SPEAKER_DATA_ON};
		if (value & SpeakerPort::data)
			flags_ |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
		channels_[2].set_gate(value & SpeakerPort::gate, now);
	} else if (port != control_port) {
		if (channel_at(port).write(value, now) && port == first_port)
			start_timer(now);
	} else if (unsigned select = value >> 6; select < channels) {
		channels_[select].control(value, now);
	} else {
		/* "Read-Back Command": what is not to be latched is 1. */
		for (unsigned i = 0; i < channels; i++) {
			if (!(value & 2u << i))
				continue;
			if (!(value & 1 << 5))
				channels_[i].latch_count(now);
			if (!(value & 1 << 4))
				channels_[i].latch_status(now);
		}
	}
}

kvm_pit_state2 Pit::get()
{
	kvm_pit_state2 state{};
	Locked locked(lock_);

	for (unsigned i = 0; i < channels; i++)
		state.channels[i] = channels_[i].state();
	state.flags = flags_;
	return state;
}

void Pit::set(const kvm_pit_state &state)
{
	Locked locked(lock_);

	load(state.channels, flags_);
}

void Pit::set(const kvm_pit_state2 &state)
{
	Locked locked(lock_);

	load(state.channels, state.flags);
}

void Pit::load(const kvm_pit_channel_state (&states)[channels], u32 flags)
{
	u64 now = glue_timer_now();

	for (unsigned i = 0; i < channels; i++)
		channels_[i].set(states[i], now);
	flags_ = flags;
	start_timer(now);
}

void Pit::set_reinject(bool reinject)
{
	Locked locked(lock_);

	if (reinject_ == reinject)
		return;
	reinject_ = reinject;
	pending_ = 0;
}

void Pit::start_timer(u64 now)
{
	const PitChannel &channel = channels_[0];
	u8 mode = channel.mode();

	pending_ = 0;
	period_ = 0;
	/* In legacy mode the interrupt is the HPET's. In mode 5 the counter waits for its gate, which is wired up. */
	if (flags_ & KVM_PIT_FLAGS_HPET_LEGACY || mode > 4)
		return;
	periodic_ = mode == 2 || mode == 3;
	period_ = channel.initial_count();
	if (periodic_ && period_ < min_period)
		period_ = min_period;
	began_ = now;
	due_ = period_;
	glue_timer_start(&timer_, began_ + pit::ns_of(due_));
}

/*
 * Times are counted from the beginning, so that no fraction of a tick is lost between interrupts, and the
 * counter agrees with them.
 */
void Pit::expired()
{
	Locked locked(lock_);
	u64 now = glue_timer_now();

	if (!period_ || now < began_ + pit::ns_of(due_))
		return;
	u64 times = 1;
	if (periodic_) {
		times += (pit::ticks_in(now - began_) - due_) / period_;
		due_ += times * period_;
		glue_timer_start(&timer_, began_ + pit::ns_of(due_));
	} else {
		period_ = 0;
	}
	pending_ = reinject_ ? pending_ + times : 1;
	inject();
}

void Pit::acknowledged()
{
	Locked locked(lock_);

	inject();
}

/*
 * One at a time: the next one when this is acknowledged. It is tried at each tick as well, since the guest
 * may have turned to another controller, and what it was sent by the first is never acknowledged.
 */
void Pit::inject()
{
	if (!pending_)
		return;
	int taken = irqchip_.set_irq(IrqSource::pit, gsi, true);
	irqchip_.set_irq(IrqSource::pit, gsi, false);
	if (taken < 0) /* masked */
		pending_ = 0;
	else if (taken > 0 || !reinject_)
		pending_--;
}

} // namespace kvmpp
