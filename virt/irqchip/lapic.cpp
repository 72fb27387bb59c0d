// SPDX-License-Identifier: GPL-2.0
#include "lapic.hpp"

#include "apic_bus.hpp"
#include "include/kvmpp/nospec.hpp"

#include <linux/kvm.h>

#include <cstring>
#include <utility>

namespace kvmpp
{

namespace
{

constexpr u32 lvt_masked = LocalApic::masked, svr_enabled = LocalApic::svr_enabled;
/* "Local Vector Table": what of its entries can be written. */
constexpr u32 lvt_vector = 0xff | lvt_masked, lvt_delivery = 7 << 8, lvt_pins = 5 << 13;
/* Of the timer's: one-shot where none of both, which is all that there are without the last one. */
constexpr u32 timer_periodic = 1 << 17, timer_deadline = 1 << 18, timer_mode = 3 << 17;
constexpr u32 external = 7 << 8;
/* Of ICR: always idle. */
constexpr u32 delivery_status = 1 << 12;

/* As an integrated APIC with six entries in its LVT. */
constexpr u32 version_value = 0x14 | 5 << 16;
constexpr u32 flat_model = 0xf0000000;

constexpr u32 signal_init = 1 << 8, signal_startup = 1 << 9;

/* "Logical x2APIC ID" */
constexpr u32 x2apic_logical_id(u32 id)
{
	return (id >> 4) << 16 | 1 << (id & 0xf);
}

constexpr u32 word(u8 vector)
{
	return vector / 32;
}

constexpr u32 bit(u8 vector)
{
	return u32{1} << (vector % 32);
}

u32 lvt_writable(u32 reg, bool has_deadline)
{
	switch (reg) {
	case Lapic::lvt_timer:
		return lvt_vector | (has_deadline ? timer_mode : timer_periodic);
	case Lapic::lvt_thermal:
	case Lapic::lvt_performance:
		return lvt_vector | lvt_delivery;
	case Lapic::lvt_lint0:
	case Lapic::lvt_lint1:
		return lvt_vector | lvt_delivery | lvt_pins;
	default:
		return lvt_vector;
	}
}

} // namespace

Lapic::Lapic(u32 vcpu, KickTarget &kick, const ApicBus &bus)
	: vcpu_(vcpu), kick_(kick), bus_(bus),
	  base_(0xfee00000 | apic_base_bit::enabled | (vcpu == 0 ? apic_base_bit::bsp : 0))
{
	glue_sleeper_init(&sleeper);
	put(id, vcpu_ << 24);
	reset();
}

void Lapic::reset()
{
	timer_.stop();
	put(version, version_value);
	for (u32 reg = lvt_timer; reg <= lvt_error; reg++)
		put(reg, lvt_masked);
	/* KVM's quirk: firmware that does not know of it has the 8259s' interrupts nevertheless. */
	if (vcpu_ == 0)
		put(lvt_lint0, external);
	put(dfr, ~u32{0});
	put(svr, 0xff);
	put(tpr, 0);
	if (!is_x2apic())
		put(ldr, 0);
	for (u32 reg : {u32{esr}, u32{icr}, u32{icr_high}, u32{divide}, u32{initial_count}})
		put(reg, 0);
	for (u32 i = 0; i < 8; i++)
		for (u32 first : {u32{isr}, u32{tmr}, u32{irr}})
			put(first + i, 0);
	arbitration_.store(0, std::memory_order_relaxed);
	ended_ = -1;
}

void Lapic::init()
{
	reset();
	(void)take_nmis();
	set_due();
}

void Lapic::set_base(u64 value)
{
	u64 old = base_.load(std::memory_order_relaxed), changed = old ^ value;

	if (!changed) [[likely]]
		return;
	base_.store(value, std::memory_order_relaxed);
	if (changed & value & apic_base_bit::enabled)
		put(id, vcpu_ << 24);
	if (changed & value & apic_base_bit::extended) {
		put(id, vcpu_);
		put(ldr, x2apic_logical_id(vcpu_));
	}
	set_due();
}

bool Lapic::has_own_id() const
{
	return get(id) == (is_x2apic() ? vcpu_ : vcpu_ << 24);
}

/* "Determining IPI Destination" */
bool Lapic::is_for(u32 destination, bool logical) const
{
	if (is_x2apic()) {
		u32 own = get(ldr);

		if (destination == ApicMessage::x2apic_broadcast)
			return true;
		if (!logical)
			return destination == vcpu_;
		return destination >> 16 == own >> 16 && (destination & own & 0xffff);
	}
	u32 own = get(logical ? ldr : id) >> 24;
	if (destination == ApicMessage::xapic_broadcast)
		return true;
	if (!logical) /* As KVM: ids that do not fit are those of x2APIC mode, so that it can be entered. */
		return destination == own || (vcpu_ > 0xff && destination == vcpu_);
	if (get(dfr) >> 28 == flat_model >> 28)
		return destination & own;
	return destination >> 4 == own >> 4 && (destination & own & 0xf);
}

bool Lapic::takes_external() const
{
	u32 lint0 = get(lvt_lint0);

	return !is_present() || (!(lint0 & lvt_masked) && (lint0 & lvt_delivery) == external);
}

void Lapic::post()
{
	due_.store(true, std::memory_order_release);
	/* A full barrier, then where it is; and one more, then whether it sleeps. */
	kick_.ask(Request::interrupt);
	kick(kick_);
	glue_wake(&sleeper);
}

bool Lapic::accept(const ApicMessage &message, bool by_itself)
{
	using Delivery = ApicMessage::Delivery;

	switch (message.delivery) {
	case Delivery::lowest_priority:
		arbitration_.fetch_add(1, std::memory_order_relaxed);
		[[fallthrough]];
	case Delivery::fixed: {
		std::atomic<u32> &triggers = registers_[tmr + word(message.vector)];

		if (!is_enabled() || (message.level && !message.asserted))
			return false;
		if (message.level)
			triggers.fetch_or(bit(message.vector), std::memory_order_relaxed);
		else if (triggers.load(std::memory_order_relaxed) & bit(message.vector))
			triggers.fetch_and(~bit(message.vector), std::memory_order_relaxed);
		registers_[irr + word(message.vector)].fetch_or(bit(message.vector),
								std::memory_order_release);
		break;
	}
	case Delivery::nmi:
		nmis_.fetch_add(1, std::memory_order_relaxed);
		break;
	case Delivery::init:
		if (!message.asserted)
			return false;
		signals_.store(signal_init, std::memory_order_relaxed);
		break;
	case Delivery::startup: {
		u32 old = signals_.load(std::memory_order_relaxed);

		while (!signals_.compare_exchange_weak(
			old, (old & signal_init) | signal_startup | message.vector,
			std::memory_order_relaxed))
			;
		break;
	}
	default:
		return false;
	}
	/* Its own thread looks before it enters again. */
	if (by_itself)
		set_due();
	else
		post();
	return true;
}

bool Lapic::timer_is_periodic() const
{
	return (get(lvt_timer) & timer_mode) == timer_periodic;
}

void Lapic::timer_expired(bool by_itself)
{
	u32 lvt = get(lvt_timer);

	if (!(lvt & lvt_masked))
		(void)accept({.vector = static_cast<u8>(lvt)}, by_itself);
}

int Lapic::highest(u32 first) const
{
	for (u32 i = 8; i-- > 0;)
		if (u32 bits = registers_[first + i].load(std::memory_order_acquire))
			return static_cast<int>(i * 32 + 31) - __builtin_clz(bits);
	return -1;
}

/* "Task and Processor Priorities" */
u32 Lapic::processor_priority() const
{
	int vector = highest(isr);
	u32 task = get(tpr), in_service = vector < 0 ? 0 : static_cast<u32>(vector) & 0xf0;

	return (task & 0xf0) >= in_service ? task : in_service;
}

int Lapic::pending() const
{
	int vector = is_present() ? highest(irr) : -1;

	if (vector < 0 || (static_cast<u32>(vector) & 0xf0) <= (processor_priority() & 0xf0))
		return -1;
	return vector;
}

void Lapic::acknowledge(u8 vector)
{
	registers_[irr + word(vector)].fetch_and(~bit(vector), std::memory_order_relaxed);
	put(isr + word(vector), get(isr + word(vector)) | bit(vector));
}

/* "Signaling Interrupt Servicing Completion" */
void Lapic::end_interrupt()
{
	int highest_in_service = highest(isr);

	if (highest_in_service < 0)
		return;
	u8 vector = static_cast<u8>(highest_in_service);
	put(isr + word(vector), get(isr + word(vector)) & ~bit(vector));
	ended_ = vector;
	set_due();
}

int Lapic::take_ended(bool &level)
{
	int vector = std::exchange(ended_, -1);

	level = vector >= 0 && is_level(static_cast<u8>(vector));
	return vector;
}

bool Lapic::is_level(u8 vector) const
{
	return get(tmr + word(vector)) & bit(vector);
}

void Lapic::end_edge()
{
	end_interrupt();
	ended_ = -1;
}

bool Lapic::has_work() const
{
	return is_due() && (has_signals() || has_nmis() || pending() >= 0);
}

void Lapic::set_priority(u32 value)
{
	put(tpr, value & 0xff);
	set_due();
}

u32 Lapic::take_nmis()
{
	return has_nmis() ? nmis_.exchange(0, std::memory_order_relaxed) : 0;
}

Lapic::Signals Lapic::take_signals()
{
	u32 taken = has_signals() ? signals_.fetch_and(0xff, std::memory_order_relaxed) : 0;

	return {.init = (taken & signal_init) != 0,
		.startup = (taken & signal_startup) != 0,
		.vector = static_cast<u8>(taken)};
}

bool Lapic::has_signals() const
{
	return signals_.load(std::memory_order_relaxed) & (signal_init | signal_startup);
}

void Lapic::set_startup()
{
	signals_.fetch_or(signal_startup, std::memory_order_relaxed);
	set_due();
}

void Lapic::set_startup_vector(u8 vector)
{
	u32 old = signals_.load(std::memory_order_relaxed);

	while (!signals_.compare_exchange_weak(old, (old & ~u32{0xff}) | vector,
					       std::memory_order_relaxed))
		;
}

u32 Lapic::divisor() const
{
	u32 value = get(divide);

	/* "Divide Configuration Register": bits 0, 1 and 3; all set is a divisor of 1. */
	return u32{1} << (((value & 3) | (value & 8) >> 1) + 1) % 8;
}

bool Lapic::read(u32 reg, u32 &value) const
{
	if (reg >= register_count)
		return false;
	switch (reg) {
	case dfr:
	case icr_high:
	case apr:
		if (is_x2apic())
			return false;
		break;
	case id:
	case version:
	case tpr:
	case ldr:
	case svr:
	case esr:
	case icr:
	case initial_count:
	case divide:
		break;
	case ppr:
		value = processor_priority();
		return true;
	case current_count:
		value = timer_.left();
		return true;
	default:
		if ((reg < isr || reg >= irr + 8) && (reg < lvt_timer || reg > lvt_error))
			return false;
	}
	value = get(array_index_nospec(reg, register_count));
	return true;
}

void Lapic::write_svr(u32 value)
{
	put(svr, value & 0x3ff);
	/* "Local APIC State After It Has Been Software Disabled" */
	if (!(value & svr_enabled))
		for (u32 reg = lvt_timer; reg <= lvt_error; reg++)
			put(reg, get(reg) | lvt_masked);
}

void Lapic::write_lvt_timer(u32 value)
{
	/* Into or out of TSC-deadline mode it is disarmed. */
	bool disarms = (get(lvt_timer) ^ value) & timer_deadline;

	if (disarms)
		timer_.stop();
	put(lvt_timer, value);
	if (disarms)
		put(initial_count, 0);
}

/* "Interrupt Command Register (ICR)" */
void Lapic::send() const
{
	u32 low = get(icr), high = get(icr_high);
	constexpr u32 level_assert = 1 << 14, level_trigger = 1 << 15;

	bus_.send(*this, {.destination = is_x2apic() ? high : high >> 24,
			  .vector = static_cast<u8>(low),
			  .delivery = static_cast<ApicMessage::Delivery>(low >> 8 & 7),
			  .shorthand = static_cast<ApicMessage::Shorthand>(low >> 18 & 3),
			  .logical = (low & 1 << 11) != 0,
			  .asserted = !(low & level_trigger) || (low & level_assert)});
}

bool Lapic::write(u32 reg, u32 value)
{
	switch (reg) {
	case id:
	case ldr:
		if (is_x2apic())
			return false;
		put(array_index_nospec(reg, register_count), value & 0xff000000);
		return true;
	case dfr:
		if (is_x2apic())
			return false;
		put(dfr, value | 0x0fffffff);
		return true;
	case icr_high:
		if (is_x2apic())
			return false;
		put(icr_high, value & 0xff000000);
		return true;
	case tpr:
		set_priority(value);
		return true;
	case eoi:
		end_interrupt();
		return true;
	case svr:
		write_svr(value);
		set_due();
		return true;
	case icr:
		put(icr, value & ~delivery_status);
		send();
		return true;
	case self_ipi:
		if (!is_x2apic() || value > 0xff)
			return false;
		(void)accept({.vector = static_cast<u8>(value)}, true);
		return true;
	case esr:
		/* Nothing is ever in it, as in KVM. */
		return !is_x2apic() || value == 0;
	case initial_count:
		if (!(get(lvt_timer) & timer_deadline)) {
			put(initial_count, value);
			timer_.start(value, value, divisor());
		}
		return true;
	case divide: {
		u32 old = divisor();

		put(divide, value & 0xb);
		if (divisor() != old)
			timer_.change_divisor(get(initial_count), divisor());
		return true;
	}
	case lvt_timer:
	case lvt_thermal:
	case lvt_performance:
	case lvt_lint0:
	case lvt_lint1:
	case lvt_error:
		if (!(get(svr) & svr_enabled))
			value |= lvt_masked;
		value &= lvt_writable(reg, has_deadline_);
		if (reg == lvt_timer)
			write_lvt_timer(value);
		else
			put(array_index_nospec(reg, register_count), value);
		/* The 8259s may have waited for LINT0. */
		set_due();
		return true;
	default:
		return false;
	}
}

bool Lapic::read_msr(u32 index, u64 &value) const
{
	u32 low = 0;

	if (!is_x2apic() || !read(index - first_msr, low))
		return false;
	value = index - first_msr == icr ? u64{get(icr_high)} << 32 | low : low;
	return true;
}

bool Lapic::write_msr(u32 index, u64 value)
{
	if (index - first_msr == icr)
		return write_icr(value);
	return is_x2apic() && !(value >> 32) && write(index - first_msr, static_cast<u32>(value));
}

bool Lapic::write_icr(u64 value)
{
	constexpr u64 icr_reserved = 0xfff32000;

	if (!is_x2apic() || (value & icr_reserved))
		return false;
	put(icr_high, static_cast<u32>(value >> 32));
	put(icr, static_cast<u32>(value) & ~delivery_status);
	send();
	return true;
}

u64 Lapic::deadline() const
{
	return is_present() && (get(lvt_timer) & timer_deadline) ? timer_.deadline() : 0;
}

void Lapic::set_deadline(u64 value, u64 tsc_offset)
{
	if (is_present() && (get(lvt_timer) & timer_deadline))
		timer_.start_deadline(value, tsc_offset);
}

bool Lapic::set_deadline_at_once(u64 value, u64 tsc_offset)
{
	return is_present() && (get(lvt_timer) & timer_deadline) &&
	       timer_.start_deadline_at_once(value, tsc_offset);
}

bool Lapic::is_at(u64 address, u32 length) const
{
	u64 start = base() & page_mask;

	return address >= start && address + length <= start + page_size;
}

bool Lapic::read_memory(u64 address, u32 length, u8 *data) const
{
	u32 value = 0, offset = address & 0xf;

	if (!is_at(address, length))
		return false;
	/* KVM's hole, where there is no APIC to be read. */
	std::memset(data, is_present() && !is_x2apic() ? 0 : 0xff, length);
	if (!is_present() || is_x2apic() || offset + length > sizeof(value) ||
	    !read(static_cast<u32>(address & ~page_mask) >> 4, value))
		return true;
	value >>= 8 * offset;
	std::memcpy(data, &value, length);
	return true;
}

bool Lapic::write_memory(u64 address, u32 length, const u8 *data)
{
	u32 value;

	if (!is_at(address, length))
		return false;
	if (!is_present() || is_x2apic() || length != sizeof(value) || (address & 0xf))
		return true;
	std::memcpy(&value, data, sizeof(value));
	(void)write(static_cast<u32>(address & ~page_mask) >> 4, value);
	return true;
}

void Lapic::get_state(kvm_lapic_state &state, bool wide_ids) const
{
	state = {};
	for (u32 reg = 0; reg < register_count; reg++) {
		u32 value = get(reg);

		if (reg == ppr)
			value = processor_priority();
		else if (reg == current_count)
			value = timer_.left();
		else if (reg == id && is_x2apic() && !wide_ids)
			value <<= 24;
		std::memcpy(state.regs + reg * 16, &value, sizeof(value));
	}
}

bool Lapic::set_state(const kvm_lapic_state &state, bool wide_ids)
{
	auto value_of = [&](u32 reg) {
		u32 value;
		std::memcpy(&value, state.regs + reg * 16, sizeof(value));
		return value;
	};

	if (is_x2apic() && value_of(id) != (wide_ids ? vcpu_ : vcpu_ << 24))
		return false;
	/* A deadline is not among the registers, and stays as long as the timer's mode does. */
	if (!(get(lvt_timer) & value_of(lvt_timer) & timer_deadline))
		timer_.stop();
	for (u32 reg = 0; reg < register_count; reg++)
		put(reg, value_of(reg));
	put(version, version_value);
	put(tpr, get(tpr) & 0xff);
	if (is_x2apic()) {
		put(id, vcpu_);
		put(ldr, x2apic_logical_id(vcpu_));
	}
	if (!(get(lvt_timer) & timer_deadline)) {
		u32 initial = get(initial_count), left = get(current_count);

		if (left > initial || (!left && timer_is_periodic()))
			left = initial;
		timer_.start(left ? initial : 0, left, divisor());
	}
	set_due();
	return true;
}

} // namespace kvmpp
