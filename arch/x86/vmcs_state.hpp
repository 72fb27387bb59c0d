/* SPDX-License-Identifier: GPL-2.0 */
/* The passage of guest state between VcpuState and the VMCS: the only code that moves it. */
#pragma once

#include "capabilities.hpp"
#include "events.hpp"
#include "exit.hpp"
#include "loaded_vmcs.hpp"
#include "vcpu_state.hpp"

namespace kvmpp
{

/*
 * What most exits and entries are about is inline here, since it is most of what they cost; the rest, and what is
 * seldom, has functions of its own. Always: what two objects have in common the linker drops from one of them, with
 * exception tables left behind, and of bare code none may be elsewhere.
 */
inline constexpr Groups often_moved =
	Group::rip | Group::rsp | Group::rflags | Group::interruptibility;
inline constexpr Groups changed_by_guest = often_moved | Group::cr0 | Group::cr3 | Group::cr4 |
					   Group::segments | Group::tables | Group::pending_debug |
					   Group::sysenter | Group::pdpte;
void read_seldom_moved(ActiveVmcs &vmcs, VcpuState &state, Groups groups);
void write_seldom_moved(ActiveVmcs &vmcs, const VcpuState &state, Groups dirty,
			const VmxConfig &config);
void write_event(ActiveVmcs &vmcs, VcpuState &state);
void cut_rip(ActiveVmcs &vmcs, VcpuState &state);
void read_more_of_exit(ActiveVmcs &vmcs, Exit &exit);

/* Reads those of @groups that are not valid. */
[[gnu::always_inline]] inline void read_state(ActiveVmcs &vmcs, VcpuState &s, Groups groups)
{
	groups = groups - s.valid;
	if (groups.has(Group::rip))
		s.rip = vmcs.read(field::guest_rip);
	if (groups.has(Group::rsp))
		s.gpr[rsp] = vmcs.read(field::guest_rsp);
	if (groups.has(Group::rflags))
		s.rflags = vmcs.read(field::guest_rflags);
	if (groups.has(Group::interruptibility))
		s.interruptibility = vmcs.read(field::guest_interruptibility);
	if (!(groups - often_moved).empty())
		read_seldom_moved(vmcs, s, groups);
	s.valid = s.valid | groups;
}

/* Writes what is dirty, and the event to deliver: see settle_events(). */
[[gnu::always_inline]] inline void write_state(ActiveVmcs &vmcs, VcpuState &s,
					       const VmxConfig &config)
{
	if (has_to_settle(s))
		write_event(vmcs, s);
	Groups dirty = s.dirty;
	if (dirty.has(Group::rip)) {
		if (s.rip_passed_4g) [[unlikely]]
			cut_rip(vmcs, s);
		vmcs.write(field::guest_rip, s.rip);
	}
	if (!(dirty - Group::rip).empty()) {
		if (dirty.has(Group::rsp))
			vmcs.write(field::guest_rsp, s.gpr[rsp]);
		if (dirty.has(Group::rflags))
			vmcs.write(field::guest_rflags, s.rflags);
		if (dirty.has(Group::interruptibility))
			vmcs.write(field::guest_interruptibility, s.interruptibility);
		if (!(dirty - often_moved).empty())
			write_seldom_moved(vmcs, s, dirty, config);
	}
	s.dirty = {};
}

/* The entry that was to deliver it has not happened, or has failed. */
void cancel_delivery(ActiveVmcs &vmcs, VcpuState &state);

/* The guest ran: what it can have changed is no longer valid here. */
inline void forget_state(VcpuState &s)
{
	s.valid = s.valid - changed_by_guest;
}

/* After an exit: what the CPU has logged is there from VcpuState::pml_first on, and it begins anew. */
void read_page_log(ActiveVmcs &vmcs, VcpuState &state);

/* The exit's own fields, as exit_needs() says, which it returns; Exit::cpu stays. */
[[gnu::always_inline]] inline const ExitNeeds &read_exit(ActiveVmcs &vmcs, Exit &exit)
{
	exit.renew(vmcs.read(field::exit_reason));
	const ExitNeeds &needs = exit_needs(exit.reason());
	if (needs.fields.instruction_length)
		exit.instruction_length = vmcs.read(field::vm_exit_instruction_length);
	if (needs.more || exit.entry_failed())
		read_more_of_exit(vmcs, exit);
	return needs;
}

} // namespace kvmpp
