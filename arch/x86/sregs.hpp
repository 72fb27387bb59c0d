/* SPDX-License-Identifier: GPL-2.0 */
/* VcpuState as KVM's structures of registers, and back. */
#pragma once

#include "handlers.hpp"

struct kvm_regs;
struct kvm_sregs;

namespace kvmpp
{

inline constexpr Groups regs_groups = Group::rip | Group::rsp | Group::rflags;
inline constexpr Groups sregs_groups = Group::cr0 | Group::cr3 | Group::cr4 | Group::efer |
				       Group::segments | Group::tables | Group::pdpte;

/* The groups above are valid. */
void get_regs(const VcpuState &state, kvm_regs &regs);
/* Also segments where VcpuState::debug steps. */
void set_regs(VcpuState &state, const kvm_regs &regs);
void get_sregs(const VcpuState &state, kvm_sregs &sregs);
/* Errno::inval, and nothing changed, where KVM refuses. May sleep. */
Result<> set_sregs(VcpuState &state, const kvm_sregs &sregs, const GuestMemory &memory);

} // namespace kvmpp
