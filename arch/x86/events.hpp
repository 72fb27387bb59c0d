/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Exceptions, NMIs and interrupts on their way into the guest, in KVM's order: an exception first, then an
 * NMI or an interrupt that is to be delivered whatever blocks it, then an NMI that is pending. What does not
 * get its turn keeps its place.
 */
#pragma once

#include "exit.hpp"
#include "include/kvmpp/result.hpp"
#include "vcpu_state.hpp"

struct kvm_vcpu_events;

namespace kvmpp
{

/* What tells whether an interrupt would be delivered now. */
inline constexpr Groups window_state = Group::rflags | Group::interruptibility;
/* settle_events() has something to do. */
inline bool has_to_settle(const VcpuState &s)
{
	return s.has_event || s.interrupt.queued || s.nmi.injected || s.nmi.queued ||
	       s.nmi.pending || s.windows || s.window_wanted ||
	       s.is_debugged(GuestDebug::single_step);
}
/* settle_events() looks at it, or changes it. */
bool needs_window_state(const VcpuState &state);

/*
 * What the next entry is to deliver, noted in VcpuState::delivering; not valid when nothing. Sets the
 * windows that are to be exited for. Needs window_state where needs_window_state().
 */
Event settle_events(VcpuState &state);

/* The entry took it: what is to be delivered again the exit says, see deliver_again(). */
void forget_delivered(VcpuState &state);
inline void end_delivery(VcpuState &s)
{
	if (s.delivering != Delivery::none)
		forget_delivered(s);
}

/*
 * The exit came in the middle of an event's delivery, if so: the next entry delivers it again. Or in an IRET
 * that had unblocked NMIs: they are blocked again. Needs exit_state().
 */
void deliver_again(VcpuState &state, const Exit &exit);

/* Something is to be delivered, which wakes a vCPU that has halted. */
bool has_events(const VcpuState &state);

/* KVM_INTERRUPT. */
void queue_interrupt(VcpuState &state, u8 vector);
/* KVM_NMI. */
void queue_nmi(VcpuState &state);

/* An interrupt that is queued now would be delivered. Needs window_state. */
bool ready_for_interrupt(const VcpuState &state);

/* Need interruptibility. Setting is refused with Errno::inval, and nothing changed, where KVM does. */
void get_vcpu_events(VcpuState &state, kvm_vcpu_events &events);
Result<> set_vcpu_events(VcpuState &state, const kvm_vcpu_events &events);

} // namespace kvmpp
