// SPDX-License-Identifier: GPL-2.0
#include "cpuid.hpp"

#include "cpuid_table.hpp"

namespace kvmpp
{

namespace
{

using namespace cpuid_bit;

constinit GuestFeatures features;

constexpr u32 bit(unsigned n)
{
	return u32{1} << n;
}

template <class... Bits> constexpr u32 bits(Bits... n)
{
	return (bit(n) | ...);
}

/*
 * Leaf 1, by the manual's bit numbers: no MONITOR, VMX, PMU, debug store. A VMM that has the local APIC in the
 * kernel adds TSC deadline: see KVM_CAP_TSC_DEADLINE_TIMER.
 */
constexpr u32 leaf1_edx =
	bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27);
constexpr u32 leaf1_ecx = bits(0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30);
/*
 * Leaf 7: FSGSBASE, BMI1, AVX2, FDP_EXCPTN_ONLY, SMEP, BMI2, ERMS, INVPCID, ZERO_FCS_FDS, RDSEED, ADX,
 * SMAP, CLFLUSHOPT, CLWB, SHA; UMIP, RDPID; MD_CLEAR, FSRM.
 */
constexpr u32 leaf7_ebx = bits(0, 3, 5, 6, 7, 8, 9, 10, 13, 18, 19, 20, 23, 24, 29);
constexpr u32 leaf7_ecx = bits(2, 22);
constexpr u32 leaf7_edx = bits(4, 10);
/* Subleaf 1 of 0xd: XSAVEOPT, XSAVEC, XGETBV of 1. */
constexpr u32 leafd_eax = bits(0, 1, 2);
/* 0x80000001: SYSCALL, NX, 1 GiB pages, RDTSCP, LM; LAHF, ABM, PREFETCHW. */
constexpr u32 extended_edx = bits(11, 20, 26, 27, 29);
constexpr u32 extended_ecx = bits(0, 5, 8);

constexpr u32 highest_leaf = 0xd;
constexpr u32 first_extended_leaf = 0x80000000, highest_extended_leaf = 0x80000008;
constexpr u32 signature_leaf = 0x40000000, paravirtual_leaf = 0x40000001;

u32 without(u32 value, bool drop, u32 mask)
{
	return drop ? value & ~mask : value;
}

/* Leaves that have subleaves, of those that are offered. */
bool is_indexed(u32 function)
{
	return function == 4 || function == 7 || function == 0xb || function == 0xd;
}

/* What of a leaf of the host's CPU is for a guest. */
insn::CpuidResult offered(u32 leaf, u32 subleaf)
{
	insn::CpuidResult r = insn::cpuid(leaf, subleaf);
	bool no_xsave = features.xcr0 == 0, no_avx = !(features.xcr0 & 4);

	switch (leaf) {
	case 0:
		r.eax = r.eax < highest_leaf ? r.eax : highest_leaf;
		break;
	case 1:
		/* One thread; which APIC it has is for the VMM to say. */
		r.ebx = (r.ebx & 0x0000ffff) | 1 << 16;
		/* The kernel's x2APIC needs none of the host's. */
		r.ecx = (r.ecx & leaf1_ecx) | bits(ecx_hypervisor, ecx_x2apic);
		r.ecx = without(r.ecx, no_xsave, bit(ecx_xsave));
		r.ecx = without(r.ecx, no_avx, bits(ecx_avx, ecx_fma, ecx_f16c));
		r.edx &= leaf1_edx;
		break;
	case 4:
		/* Caches, shared with nobody. */
		r.eax &= 0x3fff;
		break;
	case 6:
		r = {bit(2), 0, 0, 0}; /* an APIC timer that never stops */
		break;
	case 7:
		r.eax = 0;
		r.ebx = without(r.ebx & leaf7_ebx, !features.invpcid, bit(ebx_invpcid));
		r.ebx = without(r.ebx, no_avx, bit(ebx_avx2)) | bit(ebx_tsc_adjust);
		r.ecx = without(r.ecx & leaf7_ecx, !features.rdtscp, bit(ecx_rdpid));
		r.edx &= leaf7_edx;
		break;
	case 0xb:
		r = {0, 0, 0, 0}; /* no topology */
		break;
	case 0xd:
		if (no_xsave)
			return {};
		if (subleaf == 0)
			return {static_cast<u32>(features.xcr0), xsave_size(features.xcr0),
				xsave_size(features.xcr0), 0};
		if (subleaf == 1) {
			r = {r.eax & leafd_eax, 0, 0, 0};
			if (r.eax & eax_xsavec)
				r.ebx = xsave_size(features.xcr0);
		}
		break;
	case 2:
	case 0x80000002:
	case 0x80000003:
	case 0x80000004:
	case 0x80000006:
		break;
	case first_extended_leaf:
		r.eax = r.eax < highest_extended_leaf ? r.eax : highest_extended_leaf;
		break;
	case 0x80000001:
		r.ebx = 0;
		r.ecx &= extended_ecx;
		/* Whether SYSCALL is there depends on the mode of the CPU that asks: here, 64-bit. */
		r.edx = without(r.edx & extended_edx, !features.rdtscp, bit(edx_rdtscp));
		break;
	case 0x80000007:
		r = {0, 0, 0, r.edx & bit(8)}; /* invariant TSC */
		break;
	case 0x80000008:
		r = {(r.eax & 0xff00) | features.physical_address_bits, 0, 0, 0};
		break;
	default:
		return {};
	}
	return r;
}

} // namespace

const GuestFeatures &guest_features()
{
	return features;
}

void init_guest_features(u64 host_xcr0, bool rdtscp, bool invpcid, bool steal_time)
{
	insn::CpuidResult leaf1 = insn::cpuid(1), leaf7 = insn::cpuid(7);

	features.rdtscp = rdtscp;
	features.invpcid = invpcid;
	features.steal_time = steal_time;
	/* What four levels of EPT can map. */
	features.physical_address_bits = insn::cpuid(highest_extended_leaf).eax & 0xff;
	if (features.physical_address_bits > 48)
		features.physical_address_bits = 48;
	/* Wider features (AVX-512 and later) need more than this module saves. */
	features.xcr0 = host_xcr0 & 7;
	features.cr4 = cr4::vme | cr4::pvi | cr4::tsd | cr4::de | cr4::pse | cr4::pae | cr4::mce |
		       cr4::pge | cr4::pce | cr4::osfxsr | cr4::osxmmexcpt;
	if (features.xcr0)
		features.cr4 |= cr4::osxsave;
	if (leaf1.ecx & bit(ecx_pcid))
		features.cr4 |= cr4::pcide;
	if (leaf7.ebx & bit(ebx_fsgsbase))
		features.cr4 |= cr4::fsgsbase;
	if (leaf7.ebx & bit(ebx_smep))
		features.cr4 |= cr4::smep;
	if (leaf7.ebx & bit(ebx_smap))
		features.cr4 |= cr4::smap;
	if (leaf7.ecx & bit(ecx_umip))
		features.cr4 |= cr4::umip;
}

u32 paravirtual_features()
{
	constexpr u32 no_port_delay = 1 << 1;

	return no_port_delay | kvmclock::cpuid_features | paravirtual::async_pf_feature |
	       (features.steal_time ? paravirtual::steal_time_feature : 0) |
	       paravirtual::pv_eoi_feature;
}

u32 xsave_size(u64 xcr0)
{
	/* Legacy area and header, then AVX. */
	return xcr0 & 4 ? 832 : 576;
}

bool supported_cpuid(GuestCpuid &table, u32 limit)
{
	auto add = [&](u32 function, u32 index, insn::CpuidResult r) {
		return table.count() < limit &&
		       table.add({.function = function,
				  .index = index,
				  .flags = is_indexed(function) ? CpuidEntry::has_index : 0,
				  .eax = r.eax,
				  .ebx = r.ebx,
				  .ecx = r.ecx,
				  .edx = r.edx});
	};
	for (u32 first : {u32{0}, first_extended_leaf}) {
		u32 last = offered(first, 0).eax;

		for (u32 function = first; function <= last; function++) {
			insn::CpuidResult r = offered(function, 0);

			if (!add(function, 0, r))
				return false;
			/* Caches, up to the one of no type that ends them. */
			for (u32 i = 1; function == 4 && (r.eax & 0x1f); i++)
				if (r = offered(4, i); !add(4, i, r))
					return false;
			if (function == 0xd && features.xcr0) {
				if (!add(0xd, 1, offered(0xd, 1)))
					return false;
				if ((features.xcr0 & 4) && !add(0xd, 2, offered(0xd, 2)))
					return false;
			}
		}
	}
	return add(signature_leaf, 0,
		   {paravirtual_leaf, 0x4b4d564b, 0x564b4d56, 0x0000004d}) && /* "KVMKVMKVM" */
	       add(paravirtual_leaf, 0, {paravirtual_features(), 0, 0, 0});
}

} // namespace kvmpp
