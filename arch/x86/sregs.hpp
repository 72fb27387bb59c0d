/* SPDX-License-Identifier: GPL-2.0 */
/* VcpuState as KVM's structures of registers, and back. */
#pragma once

#include "handlers.hpp"

struct kvm_regs;
struct kvm_sregs;
struct kvm_sregs2;
struct kvm_debugregs;

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
/* The same with the PDPTEs in it. */
void get_sregs2(const VcpuState &state, kvm_sregs2 &sregs);
Result<> set_sregs2(VcpuState &state, const kvm_sregs2 &sregs, const GuestMemory &memory);
/* DR0 to DR3, DR6, DR7: always valid. Errno::inval. */
void get_debug_registers(const VcpuState &state, kvm_debugregs &registers);
Result<> set_debug_registers(VcpuState &state, const kvm_debugregs &registers);

} // namespace kvmpp
