/* SPDX-License-Identifier: GPL-2.0 */
/* A debugger in user space: KVM_SET_GUEST_DEBUG. */
#pragma once

#include "handlers.hpp"

struct kvm_guest_debug;

namespace kvmpp
{

/* What set_guest_debug() and a step that is due need. */
inline constexpr Groups debug_state = Group::rip | Group::rflags | Group::segments |
				      Group::interruptibility | Group::pending_debug;

/* Errno::busy, and nothing changed, when one is to be injected and an exception is pending. */
Result<> set_guest_debug(VcpuState &state, const kvm_guest_debug &debug);

/* RFLAGS as the guest's register is set to; the VMM's TF with it. Needs rip, segments when it steps. */
void set_rflags(VcpuState &state, u64 rflags);

/* KVM_EXIT_DEBUG at RIP. Needs rip, segments. */
Next debug_exit(VcpuState &state, Vector vector, u64 dr6);

} // namespace kvmpp
