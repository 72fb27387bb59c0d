/* SPDX-License-Identifier: GPL-2.0 */
/* The passage of guest state between VcpuState and the VMCS: the only code that moves it. */
#pragma once

#include "capabilities.hpp"
#include "exit.hpp"
#include "loaded_vmcs.hpp"
#include "vcpu_state.hpp"

namespace kvmpp
{

/* Reads those of @groups that are not valid. */
void read_state(ActiveVmcs &vmcs, VcpuState &state, Groups groups);

/* Writes what is dirty, and the event to deliver: see settle_events(). */
void write_state(ActiveVmcs &vmcs, VcpuState &state, const VmxConfig &config);

/* The entry that was to deliver it has not happened, or has failed. */
void cancel_delivery(ActiveVmcs &vmcs, VcpuState &state);

/* The guest ran: what it can have changed is no longer valid here. */
void forget_state(VcpuState &state);

/* After an exit: what the CPU has logged is there from VcpuState::pml_first on, and it begins anew. */
void read_page_log(ActiveVmcs &vmcs, VcpuState &state);

/* The exit's own fields, as exit_fields() says. */
void read_exit(ActiveVmcs &vmcs, CpuId cpu, Exit &exit);

} // namespace kvmpp
