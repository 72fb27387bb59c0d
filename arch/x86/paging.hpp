/* SPDX-License-Identifier: GPL-2.0 */
/* The guest's own page tables, walked in software: for instructions that the host completes. */
#pragma once

#include "include/kvmpp/guest_memory.hpp"
#include "vcpu_state.hpp"

namespace kvmpp
{

struct PageAccess {
	bool write = false;
	bool fetch = false;
};

struct Translation {
	enum class Outcome : u8 {
		ok,
		page_fault, /* for the guest, with error_code */
		no_tables,  /* the guest's tables are not in RAM, or RAM that the VMM took away */
	};
	Outcome outcome;
	u32 error_code = 0;
	GuestPhys address = {};
};

/*
 * Where @linear is, with the rights of the vCPU's privilege level ("Paging"). Accessed and dirty
 * flags are set where all is well. Needs emulation_state.
 */
Translation translate(const VcpuState &state, const GuestMemory &memory, GuestLinear linear,
		      PageAccess access);

/*
 * Loads the PDPTEs that CR3 points to. False where one has a reserved bit set or CR3 is not in RAM.
 */
bool load_pdptes(VcpuState &state, const GuestMemory &memory, unsigned physical_address_bits);

} // namespace kvmpp
