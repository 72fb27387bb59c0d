// SPDX-License-Identifier: GPL-2.0
#include "cpuid_table.hpp"

#include "cpuid.hpp"
#include "x2apic.hpp"

namespace kvmpp
{

namespace
{

using namespace cpuid_bit;

constexpr u32 changed(u32 value, u32 mask, bool set)
{
	return set ? value | mask : value & ~mask;
}

} // namespace

bool GuestCpuid::add(const CpuidEntry &entry)
{
	if (count_ == max_entries)
		return false;
	u16 i = static_cast<u16>(count_++);
	u16 *link = &first_[chain_of(entry.function)];

	while (*link != none)
		link = &next_[*link];
	*link = i;
	next_[i] = none;
	entries_[i] = entry;
	return true;
}

u32 GuestCpuid::find(u32 function) const
{
	u32 i = first_[chain_of(function)];

	while (i != none && entries_[i].function != function)
		i = next_[i];
	return i;
}

Result<> GuestCpuid::check() const
{
	if (u32 i = find(0x80000008); i != none) {
		u32 linear = (entries_[i].eax >> 8) & 0xff;

		if (linear != 48 && linear != 57 && linear != 0)
			return Errno::inval;
	}
	constexpr u32 tile_data = 1 << 18;
	if (u32 i = find(0xd, 0); i != none && (entries_[i].eax & tile_data))
		return Errno::perm;
	return {};
}

GuestModel GuestCpuid::model() const
{
	const GuestFeatures &host = guest_features();
	GuestModel m;

	auto offered = [](u32 word, unsigned bit, u64 flag) { return word >> bit & 1 ? flag : 0; };
	if (u32 i = find(0); i != none) {
		const CpuidEntry &e = entries_[i];

		m.intel = e.ebx == 0x756e6547 && e.edx == 0x49656e69 && e.ecx == 0x6c65746e;
	}
	if (u32 i = find(1); i != none) {
		u32 ecx = entries_[i].ecx;

		m.cr4 |= offered(ecx, ecx_xsave, cr4::osxsave) | offered(ecx, ecx_pcid, cr4::pcide);
		m.x2apic = ecx & 1u << ecx_x2apic;
		m.tsc_deadline = ecx & 1u << ecx_tsc_deadline;
	}
	if (u32 i = find(7, 0); i != none) {
		const CpuidEntry &e = entries_[i];

		m.cr4 |= offered(e.ebx, ebx_fsgsbase, cr4::fsgsbase) |
			 offered(e.ebx, ebx_smep, cr4::smep) | offered(e.ebx, ebx_smap, cr4::smap) |
			 offered(e.ecx, ecx_umip, cr4::umip);
		m.tsc_adjust = e.ebx & 1u << ebx_tsc_adjust;
		m.invpcid = e.ebx & 1u << ebx_invpcid;
		m.rdpid = e.ecx & 1u << ecx_rdpid;
	}
	if (u32 i = find(0xd, 0); i != none)
		m.xcr0 = entries_[i].eax & host.xcr0;
	if (u32 i = find(0x80000001); i != none) {
		u32 edx = entries_[i].edx;

		m.long_mode = edx & 1u << edx_long_mode;
		m.nx = edx & 1u << edx_nx;
		m.rdtscp = edx & 1u << edx_rdtscp;
	}
	if (u32 top = find(0x80000000); top != none && entries_[top].eax >= 0x80000008)
		if (u32 i = find(0x80000008); i != none)
			m.physical_address_bits = entries_[i].eax & 0xff;
	return m;
}

CpuidEntry GuestCpuid::as_seen(u32 i, const VcpuState &s) const
{
	const CpuidEntry &e = entries_[i];

	/* Else nobody finds it. */
	return i == find(e.function, e.index) ? as_found(i, s) : e;
}

CpuidEntry GuestCpuid::as_found(u32 i, const VcpuState &s) const
{
	CpuidEntry e = entries_[i];

	switch (e.function) {
	case 1:
		if (guest_features().xcr0)
			e.ecx = changed(e.ecx, 1u << ecx_osxsave, s.cr4 & cr4::osxsave);
		e.edx = changed(e.edx, 1u << edx_apic, s.apic_base & apic_base_bit::enabled);
		break;
	case 7:
		/* CR4.PKE cannot be set. */
		if (e.index == 0)
			e.ecx &= ~(1u << ecx_ospke);
		break;
	case 0xd:
		if (e.index == 0)
			e.ebx = xsave_size(s.xcr0);
		else if (e.index == 1 && (e.eax & (eax_xsavec | eax_xsaves)))
			e.ebx = xsave_size(s.xcr0);
		break;
	}
	return e;
}

bool GuestCpuid::is_same(const GuestCpuid &other, const VcpuState &s) const
{
	if (count_ != other.count_)
		return false;
	for (u32 i = 0; i < count_; i++)
		if (as_seen(i, s) != other.as_seen(i, s))
			return false;
	return true;
}

bool GuestCpuid::is_amd() const
{
	u32 i = find(0);
	const CpuidEntry &e = entries_[i];

	return (e.ebx == 0x68747541 && e.edx == 0x69746e65 &&
		e.ecx == 0x444d4163) || /* AuthenticAMD */
	       (e.ebx == 0x69444d41 && e.edx == 0x74656273 &&
		e.ecx == 0x21726574) || /* AMDisbetter! */
	       (e.ebx == 0x6f677948 && e.edx == 0x6e65476e &&
		e.ecx == 0x656e6975); /* HygonGenuine */
}

/*
 * Intel's: a leaf beyond the last one of its class, or of a class that there is not, is as the last basic
 * leaf, with the subleaf that was asked for. Hypervisors' classes are of 256 leaves each.
 */
u32 GuestCpuid::find_out_of_range(u32 &function, u32 index) const
{
	u32 basic = find(0);

	if (basic == none || is_amd())
		return none;

	u32 first = function & 0x80000000;
	if (function >= 0x40000000 && function <= 0x4fffffff)
		first = function & 0xffffff00;
	else if (function >= 0xc0000000)
		first = 0xc0000000;
	u32 of_class = find(first);
	if (of_class != none && function <= entries_[of_class].eax)
		return none;
	function = entries_[basic].eax;
	return find(function, index);
}

insn::CpuidResult GuestCpuid::ask_further(const VcpuState &s, u32 leaf, u32 subleaf, u32 i) const
{
	if (i == none)
		i = find_out_of_range(leaf, subleaf);
	if (i != none) {
		CpuidEntry e = as_found(i, s);

		return {e.eax, e.ebx, e.ecx, e.edx};
	}
	/* Of any level of the topology: the level asked for, and the x2APIC id. */
	if (leaf == 0xb || leaf == 0x1f)
		if (u32 first = find(leaf, 1); first != none)
			return {0, 0, subleaf & 0xff, entries_[first].edx};
	return {};
}

} // namespace kvmpp
