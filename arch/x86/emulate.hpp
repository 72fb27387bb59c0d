/* SPDX-License-Identifier: GPL-2.0 */
/* What the emulation of instructions and string I/O have in common. */
#pragma once

#include "handlers.hpp"
#include "operand.hpp"

namespace kvmpp
{

/* It cannot be emulated: for user space, or #UD where the guest's user mode has done it. */
Next emulation_failed(VcpuState &state, const Exit &exit);

/* The fault for the guest, or the end. */
Next deliver(VcpuState &state, const Exit &exit, const Fault &fault);

/*
 * Steps a string instruction on by @count elements, of which each moves index registers by @size
 * bytes, up or down by RFLAGS.DF.
 */
void step_index(VcpuState &state, u8 reg, unsigned size, unsigned address_size, u64 count = 1);

/* User space has the data of an INS in the port page. */
Next finish_string_in(VcpuState &state, const GuestMemory &memory);

} // namespace kvmpp
