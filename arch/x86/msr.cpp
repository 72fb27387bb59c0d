// SPDX-License-Identifier: GPL-2.0
/* The MSRs that a guest reads and writes with an exit; the others in the bitmap are its own. */
#include "cpu_insn.hpp"
#include "cpuid.hpp"
#include "handlers.hpp"
#include "tsc_record.hpp"
#include "x2apic.hpp"

namespace kvmpp
{

namespace
{

/* "Memory Types That Can Be Encoded With PAT" */
bool valid_pat(u64 value)
{
	for (int i = 0; i < 8; i++, value >>= 8) {
		u8 type = value & 0xff;

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

bool write_efer(VcpuState &s, u64 value)
{
	constexpr u64 settable = efer::sce | efer::lme | efer::nx;

	if (value & ~(settable | efer::lma))
		return false;
	if (s.paging() && ((value ^ s.efer) & efer::lme))
		return false;
	if ((value ^ s.efer) & efer::nx)
		s.flush_tlb = true;
	s.efer = (value & settable) | (s.efer & efer::lma);
	s.syscall_msrs_dirty = true; /* see VmxVcpu::load_guest_msrs() */
	s.mark_dirty(Group::efer);
	return true;
}

/*
 * "x2APIC State Transitions". A guest gets to x2APIC mode where the CPU's APIC is its own; then it
 * keeps it, wherever it runs.
 */
bool write_apic_base(VcpuState &s, u64 value)
{
	using namespace apic_base_bit;

	if (value & (0x2ff | ~low_bits(guest_features().physical_address_bits)))
		return false;
	if ((value & extended) &&
	    (!(value & enabled) || !(s.apic.owned || (s.apic_base & extended))))
		return false;
	if ((s.apic_base & extended) && (value & (extended | enabled)) == enabled)
		return false;
	s.apic_base = value;
	return true;
}

} // namespace

bool read_msr(VcpuState &s, u32 index, u64 &value)
{
	switch (index) {
	case msr::tsc:
		value = insn::rdtsc() + s.tsc_offset;
		return true;
	case msr::apic_base:
		value = s.apic_base;
		return true;
	case msr::misc_enable:
		value = s.misc_enable;
		return true;
	case msr::pat:
		value = s.pat;
		return true;
	case msr::efer:
		value = s.efer;
		return true;
	case msr::star:
		value = s.star;
		return true;
	case msr::lstar:
		value = s.lstar;
		return true;
	case msr::cstar:
		value = s.cstar;
		return true;
	case msr::syscall_mask:
		value = s.syscall_mask;
		return true;
	case msr::tsc_aux:
		value = s.tsc_aux;
		return guest_features().rdtscp;
	case msr::bios_sign_id:
		value = u64{1} << 32; /* a microcode revision, which some guests insist on */
		return true;
	case msr::mcg_cap:
	case msr::mcg_status:
	case msr::mtrr_cap:
	case msr::debugctl:
		value = 0;
		return true;
	default:
		return s.clock.read(index, value);
	}
}

bool write_msr(VcpuState &s, u32 index, u64 value)
{
	switch (index) {
	case msr::tsc:
		s.tsc_offset = s.tsc_record ? s.tsc_record->offset_for(value, insn::rdtsc())
					    : value - insn::rdtsc();
		s.mark_dirty(Group::tsc_offset);
		return true;
	case msr::apic_base:
		return write_apic_base(s, value);
	case msr::misc_enable:
		s.misc_enable = value;
		return true;
	case msr::pat:
		if (!valid_pat(value))
			return false;
		s.pat = value;
		s.mark_dirty(Group::pat);
		return true;
	case msr::efer:
		return write_efer(s, value);
	case msr::star:
		s.star = value;
		s.syscall_msrs_dirty = true;
		return true;
	case msr::lstar:
	case msr::cstar:
		/* They go into the CPU later, where a value that faults would fault in the host. */
		if (!is_canonical(value))
			return false;
		(index == msr::lstar ? s.lstar : s.cstar) = value;
		s.syscall_msrs_dirty = true;
		return true;
	case msr::syscall_mask:
		if (value >> 32)
			return false;
		s.syscall_mask = value;
		s.syscall_msrs_dirty = true;
		return true;
	case msr::tsc_aux:
		if (value >> 32 || !guest_features().rdtscp)
			return false;
		s.tsc_aux = value;
		s.syscall_msrs_dirty = true;
		return true;
	case msr::bios_sign_id:
	case msr::mcg_status:
	case msr::debugctl:
		return value == 0;
	default:
		return s.clock.write(index, value);
	}
}

} // namespace kvmpp
