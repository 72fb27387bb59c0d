/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a guest is told that its CPU can do: the host's features, less those that need more than
 * VMX.
 */
#pragma once

#include "cpu_insn.hpp"
#include "vcpu_state.hpp"

namespace kvmpp
{

struct GuestFeatures {
	u64 xcr0 = 0; /* that XSETBV takes; 0: no XSAVE */
	u64 cr4 = 0;  /* that MOV to CR4 takes */
	bool rdtscp = false;
	bool invpcid = false;
	unsigned physical_address_bits = 36;
};

/* Set once, before the first vCPU. */
const GuestFeatures &guest_features();
/* @host_xcr0: what Linux uses; the two others: VMX lets guests execute them. */
void init_guest_features(u64 host_xcr0, bool rdtscp, bool invpcid);

insn::CpuidResult guest_cpuid(const VcpuState &state, u32 vcpu_id, u32 leaf, u32 subleaf);

} // namespace kvmpp
