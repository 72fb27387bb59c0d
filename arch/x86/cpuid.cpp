// SPDX-License-Identifier: GPL-2.0
#include "cpuid.hpp"

#include "x2apic.hpp"

namespace kvmpp
{

namespace
{

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
 * Leaf 1, by the manual's bit numbers: no MTRR, MONITOR, VMX, PMU, debug store, TSC deadline.
 */
constexpr u32 leaf1_edx =
	bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26);
constexpr u32 leaf1_ecx = bits(0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30);
constexpr unsigned ecx_pcid = 17, ecx_xsave = 26, ecx_osxsave = 27, ecx_avx = 28, ecx_fma = 12,
		   ecx_f16c = 29, ecx_x2apic = 21, ecx_hypervisor = 31, edx_apic = 9;
/*
 * Leaf 7: FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, INVPCID, RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB,
 * SHA.
 */
constexpr u32 leaf7_ebx = bits(0, 3, 5, 7, 8, 9, 10, 18, 19, 20, 23, 24, 29);
constexpr unsigned ebx_fsgsbase = 0, ebx_avx2 = 5, ebx_smep = 7, ebx_invpcid = 10, ebx_smap = 20;
constexpr u32 leaf7_ecx = bits(2, 22); /* UMIP, RDPID */
constexpr unsigned ecx_umip = 2, ecx_rdpid = 22;
/* 0x80000001: SYSCALL, NX, 1 GiB pages, RDTSCP, LM; LAHF, ABM, PREFETCHW. */
constexpr u32 extended_edx = bits(11, 20, 26, 27, 29);
constexpr u32 extended_ecx = bits(0, 5, 8);
constexpr unsigned edx_rdtscp = 27;

constexpr u32 highest_leaf = 0xd;
constexpr u32 highest_extended_leaf = 0x80000008;
constexpr u32 hypervisor_leaf = 0x40000000;

u32 without(u32 value, bool drop, u32 mask)
{
	return drop ? value & ~mask : value;
}

/* Size of the XSAVE area for the features in @xcr0: legacy and header, then AVX. */
u32 xsave_size(u64 xcr0)
{
	return xcr0 & 4 ? 832 : 576;
}

} // namespace

const GuestFeatures &guest_features()
{
	return features;
}

void init_guest_features(u64 host_xcr0, bool rdtscp, bool invpcid)
{
	insn::CpuidResult leaf1 = insn::cpuid(1), leaf7 = insn::cpuid(7);

	features.rdtscp = rdtscp;
	features.invpcid = invpcid;
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

insn::CpuidResult guest_cpuid(const VcpuState &s, u32 vcpu_id, u32 leaf, u32 subleaf)
{
	if (leaf == hypervisor_leaf)
		return {hypervisor_leaf, 0x706d766b, 0x6d766b70, 0x00007070}; /* "kvmppkvmpp" */
	/* A leaf beyond the last of its kind answers as the last basic leaf does. */
	if (leaf > highest_leaf && (leaf < 0x80000000 || leaf > highest_extended_leaf))
		leaf = highest_leaf;

	insn::CpuidResult r = insn::cpuid(leaf, subleaf);
	bool no_xsave = features.xcr0 == 0, no_avx = !(features.xcr0 & 4);

	switch (leaf) {
	case 0:
		r.eax = r.eax < highest_leaf ? r.eax : highest_leaf;
		break;
	case 1:
		r.ebx = (r.ebx & 0x0000ffff) | 1 << 16 | vcpu_id << 24;
		r.ecx = (r.ecx & leaf1_ecx) | bit(ecx_hypervisor);
		r.ecx = without(r.ecx, no_xsave, bit(ecx_xsave));
		r.ecx = without(r.ecx, no_avx, bits(ecx_avx, ecx_fma, ecx_f16c));
		if (s.cr4 & cr4::osxsave)
			r.ecx |= bit(ecx_osxsave);
		r.edx &= leaf1_edx;
		/* A local APIC is there where it is the CPU's own, and stays in x2APIC mode. */
		if (s.apic.owned || (s.apic_base & apic_base_bit::extended)) {
			r.ecx |= bit(ecx_x2apic);
			r.edx |= bit(edx_apic);
		}
		break;
	case 4:
		/* Caches, shared with nobody. */
		r.eax &= 0x3fff;
		break;
	case 7:
		if (subleaf != 0)
			return {};
		r.eax = 0;
		r.ebx = without(r.ebx & leaf7_ebx, !features.invpcid, bit(ebx_invpcid));
		r.ebx = without(r.ebx, no_avx, bit(ebx_avx2));
		r.ecx = without(r.ecx & leaf7_ecx, !features.rdtscp, bit(ecx_rdpid));
		r.edx = 0;
		break;
	case 0xb:
		return {0, 0, subleaf & 0xff, vcpu_id};
	case 0xd:
		if (no_xsave)
			return {};
		if (subleaf == 0)
			return {static_cast<u32>(features.xcr0), xsave_size(s.xcr0),
				xsave_size(features.xcr0), 0};
		if (subleaf == 1)
			return {r.eax & 1, 0, 0, 0}; /* XSAVEOPT */
		if (subleaf != 2 || no_avx)
			return {};
		break;
	case 2:
	case 0x80000002:
	case 0x80000003:
	case 0x80000004:
	case 0x80000006:
		break;
	case 0x80000000:
		r = {highest_extended_leaf, 0, 0, 0};
		break;
	case 0x80000001:
		r.ecx &= extended_ecx;
		r.edx = without(r.edx & extended_edx, !features.rdtscp, bit(edx_rdtscp));
		/*
		 * Whether SYSCALL is there depends on the mode of the CPU that asks, here the
		 * host's.
		 */
		r.edx = without(r.edx, !s.long_mode(), bit(11));
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

} // namespace kvmpp
