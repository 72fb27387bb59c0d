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

const CpuidEntry *GuestCpuid::find(u32 function) const
{
	for (u32 i = first_[chain_of(function)]; i != none; i = next_[i])
		if (entries_[i].function == function)
			return &entries_[i];
	return nullptr;
}

Result<> GuestCpuid::check() const
{
	if (const CpuidEntry *e = find(0x80000008)) {
		u32 linear = (e->eax >> 8) & 0xff;

		if (linear != 48 && linear != 57 && linear != 0)
			return Errno::inval;
	}
	constexpr u32 tile_data = 1 << 18;
	if (const CpuidEntry *e = find(0xd, 0); e && (e->eax & tile_data))
		return Errno::perm;
	return {};
}

GuestModel GuestCpuid::model() const
{
	const GuestFeatures &host = guest_features();
	GuestModel m;

	auto offered = [](u32 word, unsigned bit, u64 flag) { return word >> bit & 1 ? flag : 0; };
	if (const CpuidEntry *e = find(0))
		m.intel = e->ebx == 0x756e6547 && e->edx == 0x49656e69 && e->ecx == 0x6c65746e;
	if (const CpuidEntry *e = find(1)) {
		u32 ecx = e->ecx;

		m.cr4 |= offered(ecx, ecx_xsave, cr4::osxsave) | offered(ecx, ecx_pcid, cr4::pcide);
		m.x2apic = ecx & 1u << ecx_x2apic;
		m.tsc_deadline = ecx & 1u << ecx_tsc_deadline;
	}
	if (const CpuidEntry *e = find(7, 0)) {
		m.cr4 |= offered(e->ebx, ebx_fsgsbase, cr4::fsgsbase) |
			 offered(e->ebx, ebx_smep, cr4::smep) |
			 offered(e->ebx, ebx_smap, cr4::smap) |
			 offered(e->ecx, ecx_umip, cr4::umip);
		m.tsc_adjust = e->ebx & 1u << ebx_tsc_adjust;
		m.invpcid = e->ebx & 1u << ebx_invpcid;
		m.rdpid = e->ecx & 1u << ecx_rdpid;
	}
	if (const CpuidEntry *e = find(0xd, 0))
		m.xcr0 = e->eax & host.xcr0;
	if (const CpuidEntry *e = find(0x80000001)) {
		u32 edx = e->edx;

		m.long_mode = edx & 1u << edx_long_mode;
		m.nx = edx & 1u << edx_nx;
		m.rdtscp = edx & 1u << edx_rdtscp;
	}
	if (const CpuidEntry *top = find(0x80000000); top && top->eax >= 0x80000008)
		if (const CpuidEntry *e = find(0x80000008))
			m.physical_address_bits = e->eax & 0xff;
	return m;
}

CpuidEntry GuestCpuid::as_seen(u32 i, const VcpuState &s) const
{
	const CpuidEntry &e = entries_[i];

	/* Else nobody finds it. */
	return &e == find(e.function, e.index) ? as_found(e, s) : e;
}

CpuidEntry GuestCpuid::as_found(CpuidEntry e, const VcpuState &s)
{
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
	const CpuidEntry &e = *find(0);

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
const CpuidEntry *GuestCpuid::find_out_of_range(u32 &function, u32 index) const
{
	const CpuidEntry *basic = find(0);

	if (!basic || is_amd())
		return nullptr;

	u32 first = function & 0x80000000;
	if (function >= 0x40000000 && function <= 0x4fffffff)
		first = function & 0xffffff00;
	else if (function >= 0xc0000000)
		first = 0xc0000000;
	const CpuidEntry *of_class = find(first);
	if (of_class && function <= of_class->eax)
		return nullptr;
	function = basic->eax;
	return find(function, index);
}

insn::CpuidResult GuestCpuid::ask(const VcpuState &s, u32 leaf, u32 subleaf) const
{
	const CpuidEntry *found = find(leaf, subleaf);

	if (!found)
		found = find_out_of_range(leaf, subleaf);
	if (found)
		return as_found(*found, s).result();
	/* Of any level of the topology: the level asked for, and the x2APIC id. */
	if (leaf == 0xb || leaf == 0x1f)
		if (const CpuidEntry *first = find(leaf, 1))
			return {0, 0, subleaf & 0xff, first->edx};
	return {};
}

} // namespace kvmpp
