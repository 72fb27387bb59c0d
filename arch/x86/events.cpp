// SPDX-License-Identifier: GPL-2.0
#include "events.hpp"

#include <linux/kvm.h>

#include <utility>

namespace kvmpp
{

namespace
{

using Type = InterruptionInfo::Type;

constexpr u32 blocks_nmis = blocking_by_sti_or_mov_ss | blocking_by_nmi;

constexpr InterruptionInfo info_of(u8 vector, Type type)
{
	return {vector | static_cast<u32>(type) << 8 | InterruptionInfo::valid_bit};
}

/* One is running, or about to, and one may wait after it. */
void count_nmis(VcpuState &s)
{
	u8 limit = (s.interruptibility & blocking_by_nmi) || s.nmi.injected ? 1 : 2;
	unsigned pending = s.nmi.pending + std::exchange(s.nmi.queued, u8{0});

	s.nmi.pending = pending < limit ? static_cast<u8>(pending) : limit;
}

Event exception_to_deliver(const VcpuState &s)
{
	Event event = s.event;

	if (!(s.cr0 & cr0::pe))
		event.info.raw &= ~InterruptionInfo::error_code_bit;
	/* VM entry takes no other, and no processor has others. */
	event.error_code &= 0xffff;
	return event;
}

/* Its instruction is to be executed again, then without the breakpoint that may be on it. */
bool is_new_fault(const VcpuState &s)
{
	if (!s.has_event || s.event.again || s.event.info.is_software())
		return false;
	switch (static_cast<Vector>(s.event.info.vector())) {
	case Vector::debug:
	case Vector::breakpoint:
	case Vector::overflow:
	case Vector::double_fault:
	case Vector::machine_check:
		return false;
	default:
		return true;
	}
}

/* An exception that came in between goes first, and its gate may have cleared IF: VM entry would fail. */
bool interrupt_must_wait(const VcpuState &s)
{
	return s.interrupt.queued && !s.interrupt.soft &&
	       (!(s.rflags & rflags::if_) || (s.interruptibility & blocking_by_sti_or_mov_ss));
}

void set_windows(VcpuState &s)
{
	u32 windows =
		s.window_wanted || interrupt_must_wait(s) ? primary::interrupt_window_exiting : 0;

	/* In the shadow of STI, whether an NMI window is open is the processor's choice. */
	if (s.nmi.pending && !s.is_debugged(GuestDebug::block_irq))
		windows |= s.interruptibility & blocking_by_sti ? primary::interrupt_window_exiting
								: primary::nmi_window_exiting;
	if (std::exchange(s.windows, windows) != windows)
		s.mark_dirty(Group::controls);
}

} // namespace

bool needs_window_state(const VcpuState &s)
{
	return s.interrupt.queued || s.nmi.queued || s.nmi.pending || is_new_fault(s) ||
	       s.is_debugged(GuestDebug::single_step);
}

Event settle_events(VcpuState &s)
{
	Event event;

	/* TF is the VMM's, so that no trap is pending, which VM entry would insist on. */
	if (s.is_debugged(GuestDebug::single_step) &&
	    (s.interruptibility & blocking_by_sti_or_mov_ss)) {
		s.interruptibility &= ~blocking_by_sti_or_mov_ss;
		s.mark_dirty(Group::interruptibility);
	}
	if (s.nmi.queued)
		count_nmis(s);
	/* Now, unless something else is half delivered. */
	if (s.nmi.pending && !s.has_event && !s.nmi.injected &&
	    (!s.interrupt.queued || interrupt_must_wait(s)) &&
	    !(s.interruptibility & blocks_nmis) && !s.is_debugged(GuestDebug::block_irq)) {
		s.nmi.pending--;
		s.nmi.injected = true;
	}
	if (s.has_event) {
		/* "Masking Instruction Breakpoints": VM entry does not do it. */
		if (is_new_fault(s)) {
			s.rflags |= rflags::rf;
			s.mark_dirty(Group::rflags);
		}
		s.delivering = Delivery::exception;
		event = exception_to_deliver(s);
	} else if (s.nmi.injected) {
		s.delivering = Delivery::nmi;
		event.info = info_of(static_cast<u8>(Vector::nmi), Type::nmi);
	} else if (s.interrupt.queued && !interrupt_must_wait(s)) {
		s.delivering = Delivery::interrupt;
		event.info =
			info_of(s.interrupt.vector, s.interrupt.soft ? Type::software_interrupt
								     : Type::external_interrupt);
		event.instruction_length = s.interrupt.instruction_length;
	}
	set_windows(s);
	return event;
}

void forget_delivered(VcpuState &s)
{
	switch (std::exchange(s.delivering, Delivery::none)) {
	case Delivery::none:
		break;
	case Delivery::exception:
		s.has_event = false;
		break;
	case Delivery::nmi:
		s.nmi.injected = false;
		break;
	case Delivery::interrupt:
		s.interrupt = {};
		break;
	}
}

void deliver_again(VcpuState &s, const Exit &exit)
{
	const InterruptionInfo &info = exit.vectoring;

	if (unblocked_nmis(exit)) {
		s.interruptibility |= blocking_by_nmi;
		s.mark_dirty(Group::interruptibility);
	}
	if (!info.valid())
		return;
	if (info.is_software())
		s.soft_length = exit.instruction_length;
	switch (info.type()) {
	case Type::nmi:
		/* VM entry delivers none while they are blocked, which it then does by itself. */
		s.nmi.injected = true;
		s.interruptibility &= ~blocking_by_nmi;
		s.mark_dirty(Group::interruptibility);
		break;
	case Type::software_interrupt:
		/* INT n is executed again after the one that waits. */
		if (s.interrupt.queued)
			break;
		[[fallthrough]];
	case Type::external_interrupt:
		s.interrupt = {.queued = true,
			       .soft = info.type() == Type::software_interrupt,
			       .vector = info.vector(),
			       .instruction_length = static_cast<u8>(exit.instruction_length)};
		break;
	default:
		s.has_event = true;
		s.event = {.info = {info.raw & InterruptionInfo::for_entry},
			   .error_code = exit.vectoring_error_code,
			   .instruction_length = exit.instruction_length,
			   .again = true};
	}
}

bool has_events(const VcpuState &s)
{
	return s.has_event || s.nmi.injected || s.nmi.pending || s.nmi.queued || s.interrupt.queued;
}

void queue_interrupt(VcpuState &s, u8 vector)
{
	s.interrupt = {.queued = true, .soft = false, .vector = vector, .instruction_length = 0};
}

void queue_nmi(VcpuState &s)
{
	/* More are never kept. */
	if (s.nmi.queued < 2)
		s.nmi.queued++;
}

bool ready_for_interrupt(const VcpuState &s)
{
	return (s.rflags & rflags::if_) && !(s.interruptibility & blocking_by_sti_or_mov_ss) &&
	       !s.has_event && !s.nmi.injected && !s.interrupt.queued;
}

void get_vcpu_events(VcpuState &s, kvm_vcpu_events &k)
{
	count_nmis(s);
	k = {};
	/* Software's are not shown: the instruction that raised one is still the next. */
	if (s.has_event) {
		k.exception.injected = !s.event.info.is_software();
		k.exception.pending = k.exception.injected && !s.event.again;
		k.exception.nr = s.event.info.vector();
		k.exception.has_error_code = s.event.info.has_error_code();
		k.exception.error_code = s.event.error_code;
	}
	k.interrupt.injected = s.interrupt.queued && !s.interrupt.soft;
	k.interrupt.nr = s.interrupt.vector;
	if (s.interruptibility & blocking_by_sti)
		k.interrupt.shadow |= KVM_X86_SHADOW_INT_STI;
	if (s.interruptibility & blocking_by_mov_ss)
		k.interrupt.shadow |= KVM_X86_SHADOW_INT_MOV_SS;
	k.nmi.injected = s.nmi.injected;
	k.nmi.pending = s.nmi.pending != 0;
	k.nmi.masked = !!(s.interruptibility & blocking_by_nmi);
	/* Of SMM there is none, which is what the zeroes say. */
	k.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		  KVM_VCPUEVENT_VALID_SMM;
}

Result<> set_vcpu_events(VcpuState &s, const kvm_vcpu_events &k)
{
	/* KVM_CAP_EXCEPTION_PAYLOAD and KVM_CAP_X86_TRIPLE_FAULT_EVENT are not there. */
	constexpr u32 known = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			      KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
	u8 vector = k.exception.nr;
	u32 blocking = s.interruptibility;

	if (k.flags & ~known)
		return Errno::inval;
	if (k.exception.injected && (vector > 31 || vector == static_cast<u8>(Vector::nmi)))
		return Errno::inval;
	if ((k.flags & KVM_VCPUEVENT_VALID_SMM) &&
	    (k.smi.smm || k.smi.pending || k.smi.smm_inside_nmi))
		return Errno::inval;

	count_nmis(s);
	s.has_event = k.exception.injected;
	if (s.has_event) {
		bool soft = vector == static_cast<u8>(Vector::breakpoint) ||
			    vector == static_cast<u8>(Vector::overflow);

		s.event = {.info = info_of(vector, soft ? Type::software_exception
							: Type::hardware_exception),
			   .error_code = k.exception.error_code,
			   .instruction_length = s.soft_length,
			   .again = true};
		if (k.exception.has_error_code)
			s.event.info.raw |= InterruptionInfo::error_code_bit;
	}
	s.interrupt = {};
	if (k.interrupt.injected)
		s.interrupt = {.queued = true,
			       .soft = k.interrupt.soft != 0,
			       .vector = k.interrupt.nr,
			       .instruction_length = static_cast<u8>(s.soft_length)};
	if (k.flags & KVM_VCPUEVENT_VALID_SHADOW) {
		blocking &= ~blocking_by_sti_or_mov_ss;
		if (k.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS)
			blocking |= blocking_by_mov_ss;
		else if (k.interrupt.shadow & KVM_X86_SHADOW_INT_STI)
			blocking |= blocking_by_sti;
	}
	s.nmi.injected = k.nmi.injected;
	if (k.flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
		s.nmi.pending = k.nmi.pending < 2 ? k.nmi.pending : 2;
	blocking = k.nmi.masked ? blocking | blocking_by_nmi : blocking & ~blocking_by_nmi;
	if (blocking != s.interruptibility) {
		s.interruptibility = blocking;
		s.mark_dirty(Group::interruptibility);
	}
	return {};
}

} // namespace kvmpp
