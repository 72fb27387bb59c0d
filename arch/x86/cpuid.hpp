/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a guest can be offered: the host's features, less those that need more than VMX and this module
 * give. What one is told is another matter: see cpuid_table.hpp.
 */
#pragma once

#include "cpu_insn.hpp"
#include "kvmclock.hpp"
#include "paravirtual.hpp"
#include "vcpu_state.hpp"

namespace kvmpp
{

/* Numbers of bits, by the leaf's register. */
namespace cpuid_bit
{
/* leaf 1 */
inline constexpr unsigned ecx_fma = 12, ecx_pcid = 17, ecx_x2apic = 21, ecx_tsc_deadline = 24,
			  ecx_xsave = 26, ecx_osxsave = 27, ecx_avx = 28, ecx_f16c = 29,
			  ecx_hypervisor = 31, edx_apic = 9;
/* leaf 7 */
inline constexpr unsigned ebx_fsgsbase = 0, ebx_tsc_adjust = 1, ebx_avx2 = 5, ebx_smep = 7,
			  ebx_invpcid = 10, ebx_smap = 20, ecx_umip = 2, ecx_ospke = 4,
			  ecx_rdpid = 22;
/* leaf 0xd, subleaf 1: masks */
inline constexpr u32 eax_xsavec = 1 << 1, eax_xsaves = 1 << 3;
/* leaf 0x80000001 */
inline constexpr unsigned edx_nx = 20, edx_rdtscp = 27, edx_long_mode = 29;
} // namespace cpuid_bit

struct GuestFeatures {
	u64 xcr0 = 0; /* that XSETBV takes; 0: no XSAVE */
	u64 cr4 = 0;  /* that MOV to CR4 takes */
	bool rdtscp = false;
	bool invpcid = false;
	bool steal_time = false;
	unsigned physical_address_bits = 36;
};

/* Set once, before the first vCPU. */
const GuestFeatures &guest_features();
/*
 * @host_xcr0: what Linux uses; @rdtscp, @invpcid: VMX lets guests execute them; @steal_time: Linux counts it.
 */
void init_guest_features(u64 host_xcr0, bool rdtscp, bool invpcid, bool steal_time = true);
/* KVM's own leaf of features (KVM_CPUID_FEATURES), EAX: those that are there. */
u32 paravirtual_features();

/* Of the XSAVE area for the features in @xcr0, in either format. */
u32 xsave_size(u64 xcr0);

class GuestCpuid;
/* KVM_GET_SUPPORTED_CPUID: adds at most @limit entries to @table. False: there are more. */
bool supported_cpuid(GuestCpuid &table, u32 limit);

} // namespace kvmpp
