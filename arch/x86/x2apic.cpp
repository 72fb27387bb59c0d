// SPDX-License-Identifier: GPL-2.0
#include "x2apic.hpp"

#include "cpu_insn.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

namespace
{

/* "Interrupt Command Register (ICR) in x2APIC Mode" */
struct Icr {
	enum class Shorthand : u8 { none, self, all, all_but_self };

	u8 vector;
	u8 delivery_mode;
	bool logical;
	Shorthand shorthand;
	u32 destination;

	explicit Icr(u64 value)
		: vector(static_cast<u8>(value)), delivery_mode((value >> 8) & 7),
		  logical(value & (1 << 11)), shorthand(static_cast<Shorthand>((value >> 18) & 3)),
		  destination(static_cast<u32>(value >> 32))
	{
	}

	static constexpr u8 fixed = 0;
	static constexpr u32 broadcast = ~u32{0};
	static constexpr u64 reserved = 0xfff33000;

	bool is_for(u32 vcpu, u32 sender) const
	{
		switch (shorthand) {
		case Shorthand::self:
			return vcpu == sender;
		case Shorthand::all:
			return true;
		case Shorthand::all_but_self:
			return vcpu != sender;
		case Shorthand::none:
			break;
		}
		if (destination == broadcast)
			return true;
		if (!logical)
			return vcpu == destination;
		return vcpu >> 4 == destination >> 16 && (destination >> (vcpu & 0xf)) & 1;
	}

	/* The vCPUs that it may be for, of those whose ids are below @end: most go to one. */
	struct Range {
		u32 first, end;
	};
	Range candidates(u32 sender, u32 end) const
	{
		auto of = [end](u32 first, u32 count) -> Range {
			return first < end ? Range{first, min(first + count, end)} : Range{0, 0};
		};

		if (shorthand == Shorthand::self)
			return of(sender, 1);
		if (shorthand != Shorthand::none || destination == broadcast)
			return {0, end};
		return logical ? of(destination >> 16 << 4, 16) : of(destination, 1);
	}

private:
	static constexpr u32 min(u32 a, u32 b) { return a < b ? a : b; }
};

constexpr u32 lvt_delivery_status = 1 << 12, lvt_periodic = 1 << 17;

/* "Logical x2APIC ID" */
constexpr u32 logical_id(u32 id)
{
	return (id >> 4) << 16 | 1 << (id & 0xf);
}

/* Of the LVT's entries that only this copy has; null for other registers. */
u32 *kept_lvt(LocalApic &apic, u32 index)
{
	switch (index) {
	case x2apic::lvt_cmci:
		return &apic.lvt_cmci;
	case x2apic::lvt_thermal:
		return &apic.lvt_thermal;
	case x2apic::lvt_performance:
		return &apic.lvt_performance;
	case x2apic::lvt_lint0:
		return &apic.lvt_lint0;
	case x2apic::lvt_lint1:
		return &apic.lvt_lint1;
	default:
		return nullptr;
	}
}

/*
 * Sends what the guest may send by itself: fixed interrupts to vCPUs that have a CPU each. Whatever
 * else, or one target that has none, is for user space, and nothing is sent.
 */
bool send(LocalApic &apic, u32 sender, const Icr &icr)
{
	u32 apic_id;

	if (icr.delivery_mode != Icr::fixed || icr.vector < 16)
		return false;
	Icr::Range range = icr.candidates(sender, apic.map->end());
	for (u32 vcpu = range.first; vcpu < range.end; vcpu++)
		if (apic.map->has(vcpu) && icr.is_for(vcpu, sender) &&
		    !apic.map->own(vcpu, apic_id))
			return false;
	for (u32 vcpu = range.first; vcpu < range.end; vcpu++)
		if (icr.is_for(vcpu, sender) && apic.map->own(vcpu, apic_id))
			insn::wrmsr(x2apic::icr, u64{apic_id} << 32 | icr.vector);
	return true;
}

bool write_icr(VcpuState &s, const VcpuIdentity &identity, u64 value)
{
	/* Who takes a CPU out of the map waits until nobody is in here that saw it there. */
	s.apic.sending->store(1, std::memory_order_seq_cst);
	bool sent = send(s.apic, identity.id, Icr(value));
	s.apic.sending->store(0, std::memory_order_release);
	return sent;
}

} // namespace

Next leave_msr(VcpuState &s, u32 index, bool write, u64 value, u32 length)
{
	s.user = {.reason = static_cast<u32>(write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR),
		  .msr = {.index = index, .data = value}};
	s.pending = {};
	s.pending.kind = write ? PendingAccess::Kind::msr_write : PendingAccess::Kind::msr_read;
	s.pending.rip = s.rip;
	s.pending.instruction_length = static_cast<u8>(length);
	return Next::user;
}

Next read_x2apic(VcpuState &s, const VcpuIdentity &identity, u32 index, u32 length)
{
	u64 value;

	if (!(s.apic_base & apic_base_bit::extended))
		return after_injection(s, s.inject(Vector::general_protection, 0));
	if (!s.apic.owned)
		return leave_msr(s, index, false, 0, length);
	if (index == x2apic::id)
		value = identity.id;
	else if (index == x2apic::ldr)
		value = logical_id(identity.id);
	else if (index == x2apic::icr)
		value = s.apic.icr;
	else if (const u32 *lvt = kept_lvt(s.apic, index))
		value = *lvt;
	else
		return after_injection(s, s.inject(Vector::general_protection, 0));
	s.gpr[rax] = static_cast<u32>(value);
	s.gpr[rdx] = value >> 32;
	s.skip_instruction(length);
	return Next::resume;
}

Next write_x2apic(VcpuState &s, const VcpuIdentity &identity, u32 index, u64 value, u32 length)
{
	constexpr u32 lvt_writable = 0x1a7ff;

	if (!(s.apic_base & apic_base_bit::extended))
		return after_injection(s, s.inject(Vector::general_protection, 0));
	if (!s.apic.owned)
		return leave_msr(s, index, true, value, length);
	if (index == x2apic::icr) {
		if (value & Icr::reserved)
			return after_injection(s, s.inject(Vector::general_protection, 0));
		s.apic.icr = value;
		if (!write_icr(s, identity, value))
			return leave_msr(s, index, true, value, length);
	} else if (u32 *lvt = kept_lvt(s.apic, index); lvt && !(value & ~u64{lvt_writable})) {
		/* What the host's pins and sensors say is not for the guest: its entry is a copy. */
		*lvt = static_cast<u32>(value);
	} else {
		return after_injection(s, s.inject(Vector::general_protection, 0));
	}
	s.skip_instruction(length);
	return Next::resume;
}

void allow_msr(u8 *bitmap, u32 msr, bool read, bool write)
{
	unsigned high = msr >= 0xc0000000 ? 0x400 : 0;
	unsigned bit = msr & 0x1fff;
	u8 mask = static_cast<u8>(~(1 << (bit % 8)));

	/* Four bitmaps of 1 KiB, in which a set bit makes the access exit. */
	if (read)
		bitmap[high + bit / 8] &= mask;
	if (write)
		bitmap[0x800 + high + bit / 8] &= mask;
}

void allow_x2apic(u8 *bitmap)
{
	constexpr u32 read_only[] = {0x803, 0x80a, x2apic::current_count}; /* version, PPR */
	constexpr u32 write_only[] = {x2apic::eoi, x2apic::self_ipi};
	constexpr u32 both[] = {
		x2apic::tpr,       x2apic::svr,           x2apic::esr,    x2apic::lvt_timer,
		x2apic::lvt_error, x2apic::initial_count, x2apic::divide,
	};

	for (u32 msr : read_only)
		allow_msr(bitmap, msr, true, false);
	for (u32 msr : write_only)
		allow_msr(bitmap, msr, false, true);
	for (u32 msr : both)
		allow_msr(bitmap, msr, true, true);
	/* ISR, TMR and IRR. */
	for (u32 msr = x2apic::isr; msr < x2apic::esr; msr++)
		allow_msr(bitmap, msr, true, false);
}

void load_x2apic(const LocalApic::Registers &s)
{
	/* Enabled first: a disabled one takes no vector, and masks the LVT. */
	insn::wrmsr(x2apic::svr, s.svr | LocalApic::svr_enabled);
	insn::wrmsr(x2apic::tpr, s.tpr);
	insn::wrmsr(x2apic::lvt_error, s.lvt_error);
	insn::wrmsr(x2apic::lvt_timer, s.lvt_timer);
	insn::wrmsr(x2apic::divide, s.divide);
	insn::wrmsr(x2apic::initial_count, s.initial_count);
	/* What had come for the guest and was not taken yet. */
	for (u32 vector = 16; vector < 256; vector++)
		if (s.irr[vector / 32] & (u32{1} << (vector % 32)))
			insn::wrmsr(x2apic::self_ipi, vector);
	if (!(s.svr & LocalApic::svr_enabled))
		insn::wrmsr(x2apic::svr, s.svr);
}

void save_x2apic(LocalApic::Registers &s)
{
	s.svr = static_cast<u32>(insn::rdmsr(x2apic::svr));
	s.tpr = static_cast<u32>(insn::rdmsr(x2apic::tpr));
	/* "Delivery status" is for reading only. */
	s.lvt_error = static_cast<u32>(insn::rdmsr(x2apic::lvt_error)) & ~lvt_delivery_status;
	s.lvt_timer = static_cast<u32>(insn::rdmsr(x2apic::lvt_timer)) & ~lvt_delivery_status;
	s.divide = static_cast<u32>(insn::rdmsr(x2apic::divide));
	/* A timer that fires once has as long to go as it had. */
	s.initial_count = static_cast<u32>(insn::rdmsr(
		s.lvt_timer & lvt_periodic ? x2apic::initial_count : x2apic::current_count));
	for (u32 i = 0; i < 8; i++)
		s.irr[i] = static_cast<u32>(insn::rdmsr(x2apic::irr + i));
}

} // namespace kvmpp
