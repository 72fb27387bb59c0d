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
 * seldom, has functions of its own. Always: of what is not inlined, bare code might be given another object's copy.
 */
inline constexpr Groups changed_by_guest =
	Group::rip | Group::rsp | Group::rflags | Group::cr0 | Group::cr3 | Group::cr4 |
	Group::segments | Group::tables | Group::interruptibility | Group::pending_debug |
	Group::sysenter | Group::pdpte | Group::segments_in_use;
void read_groups(ActiveVmcs &vmcs, VcpuState &state, Groups groups);
void write_groups(ActiveVmcs &vmcs, const VcpuState &state, Groups dirty, const VmxConfig &config);
void read_more_of_exit(ActiveVmcs &vmcs, Exit &exit, const ExitFields &fields);

/* Reads those of @groups that are not valid. */
[[gnu::always_inline]] inline void read_state(ActiveVmcs &vmcs, VcpuState &s, Groups groups)
{
	groups = groups - s.valid;
	if (!groups.empty())
		read_groups(vmcs, s, groups);
	s.valid = s.valid | groups;
}

/* After an exit: what the guest can have changed is no longer valid here, except for @groups, which are read. */
[[gnu::always_inline]] inline void read_state_anew(ActiveVmcs &vmcs, VcpuState &s, Groups groups)
{
	s.valid = (s.valid - changed_by_guest) | groups;
	if (groups == skip_state) [[likely]] {
		s.rip = vmcs.read(field::guest_rip);
		s.rflags = vmcs.read(field::guest_rflags);
		s.interruptibility = vmcs.read(field::guest_interruptibility);
	} else if (!groups.empty()) {
		read_groups(vmcs, s, groups);
	}
}

/* What is_due() at an entry and goes into the VMCS. Before write_registers(). */
void write_due(ActiveVmcs &vmcs, VcpuState &state);

/* Writes what is dirty. */
[[gnu::always_inline]] inline void write_registers(ActiveVmcs &vmcs, VcpuState &s,
						   const VmxConfig &config)
{
	if (s.dirty == Group::rip) [[likely]]
		vmcs.write(field::guest_rip, s.rip);
	else if (!s.dirty.empty())
		write_groups(vmcs, s, s.dirty, config);
	s.dirty = {};
}

/* The entry that was to deliver it has not happened, or has failed. */
void cancel_delivery(ActiveVmcs &vmcs, VcpuState &state);

/* After an exit: what the CPU has logged is there from VcpuState::pml_first on, and it begins anew. */
void read_page_log(ActiveVmcs &vmcs, VcpuState &state);

/* What is read after an exit. */
struct ReadExit {
	unsigned row;   /* exit_row() */
	Groups state;   /* what its handler needs, which read_state_anew() is to read */
	bool guest_ran; /* else the entry has failed */
};
/* The exit's own fields; Exit::cpu stays. */
[[gnu::always_inline]] inline ReadExit read_exit(ActiveVmcs &vmcs, Exit &exit)
{
	u32 reason = vmcs.read(field::exit_reason);
	ReadExit read{.row = exit_row(reason), .state = {}, .guest_ran = true};
	const ExitNeeds &needs = needs_of_exits.of[read.row];

	exit.renew(reason);
	if (needs.fields.instruction_length) [[likely]]
		exit.instruction_length = vmcs.read(field::vm_exit_instruction_length);
	else
		exit.instruction_length = 0;
	read.state = needs.state;
	if (needs.more) [[unlikely]] {
		read_more_of_exit(vmcs, exit, needs.fields);
		read.state = exit_state(needs, exit);
		read.guest_ran = !exit.entry_failed();
	}
	return read;
}

} // namespace kvmpp
