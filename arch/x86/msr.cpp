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

bool write_efer(VcpuState &s, u64 value, By by)
{
	constexpr u64 settable = efer::sce | efer::lme | efer::nx;

	if (value & ~(settable | efer::lma))
		return false;
	if (by == By::guest) {
		if ((value & (efer::lme | efer::lma)) && !s.model.long_mode)
			return false;
		if ((value & efer::nx) && !s.model.nx)
			return false;
		if (s.paging() && ((value ^ s.efer) & efer::lme))
			return false;
	}
	if ((value ^ s.efer) & efer::nx)
		s.flush_tlb = true;
	s.efer = (value & settable) | (s.efer & efer::lma);
	s.cpu_registers_dirty = true; /* see VmxVcpu::load_guest_msrs() */
	s.mark_dirty(Group::efer);
	return true;
}

void write_tsc(VcpuState &s, u64 value, By by)
{
	u64 old = s.tsc_offset;

	s.tsc_offset = s.tsc_record ? s.tsc_record->offset_for(value, insn::rdtsc())
				    : value - insn::rdtsc();
	if (by == By::guest)
		s.tsc_adjust += s.tsc_offset - old;
	s.mark_dirty(Group::tsc_offset);
}

void write_tsc_adjust(VcpuState &s, u64 value, By by)
{
	if (!s.model.tsc_adjust)
		return;
	if (by == By::guest) {
		s.tsc_offset += value - s.tsc_adjust;
		s.mark_dirty(Group::tsc_offset);
	}
	s.tsc_adjust = value;
}

bool write_misc_enable(VcpuState &s, u64 value, By by)
{
	using namespace misc_enable_bit;

	if (by == By::guest) {
		if ((value ^ s.misc_enable) & (no_branch_trace | no_pebs))
			return false;
		value = (value & ~performance_monitoring) |
			(s.misc_enable & performance_monitoring);
	}
	s.misc_enable = value;
	return true;
}

bool has_tsc_aux(const VcpuState &s, By by)
{
	return guest_features().rdtscp && (by == By::host || s.model.rdtscp || s.model.rdpid);
}

/* Those that are there to be read, and say nothing. */
bool reads_as_zero(u32 index)
{
	switch (index) {
	case 0: /* IA32_P5_MC_ADDR, IA32_P5_MC_TYPE */
	case 1:
	case msr::platform_id:
	case msr::ebl_cr_poweron:
	case msr::p6_counter0:
	case msr::p6_counter1:
	case msr::p6_event0:
	case msr::p6_event1:
	case msr::perf_ctl:
	case msr::debugctl:
	case msr::rapl_power_unit:
	case msr::package_energy:
	case msr::dram_energy:
	case msr::core_energy:
	case msr::uncore_energy:
		return true;
	default:
		return false;
	}
}

} // namespace

bool valid_apic_base(const GuestModel &model, u64 value)
{
	using namespace apic_base_bit;

	if (value & (0x2ff | ~low_bits(model.physical_address_bits)))
		return false;
	return !(value & extended) || ((value & enabled) && model.x2apic);
}

/* "x2APIC State Transitions" */
bool write_apic_base(VcpuState &s, u64 value, By by)
{
	using namespace apic_base_bit;
	constexpr u64 mode = extended | enabled;

	if (!valid_apic_base(s.model, value))
		return false;
	if (by == By::guest) {
		if ((s.apic_base & extended) && (value & mode) == enabled)
			return false;
		if (!(s.apic_base & mode) && (value & mode) == mode)
			return false;
	}
	s.apic_base = value;
	return true;
}

bool read_msr(const VcpuState &s, u32 index, By by, u64 &value)
{
	if (s.machine_check && MachineCheck::is_msr(index))
		return s.machine_check->read(index, by, value);
	value = 0;
	switch (index) {
	case msr::tsc:
		value = insn::rdtsc() + s.tsc_offset;
		return true;
	case msr::tsc_adjust:
		value = s.tsc_adjust;
		return true;
	case msr::apic_base:
		value = s.apic_base;
		return true;
	case msr::misc_enable:
		value = s.misc_enable;
		return true;
	case msr::feature_control:
		value = s.feature_control;
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
		return has_tsc_aux(s, by);
	case msr::bios_sign_id:
		value = s.microcode_version;
		return true;
	case msr::power_ctl:
		value = s.power_control;
		return true;
	case msr::smi_count:
		value = s.smi_count;
		return true;
	case msr::mtrr_cap:
		value = Mtrrs::capabilities;
		return true;
	/* What a guest divides or multiplies by, or takes for a frequency: as KVM has them. */
	case msr::ebc_frequency_id:
		value = 1 << 24;
		return true;
	case msr::fsb_frequency:
		value = 3;
		return true;
	case msr::perf_status:
		value = 1000 | u64{4} << 40;
		return true;
	case msr::bbl_cr_ctl3:
		value = 0xbe702111;
		return true;
	/* Of an APIC in the kernel, which is asked first; without one, as KVM. */
	case msr::tsc_deadline:
		return true;
	case msr::xss:
		return by == By::host;
	case paravirtual::steal_time:
		value = s.paravirtual.steal_time;
		return true;
	case paravirtual::pv_eoi:
		value = s.paravirtual.pv_eoi;
		return true;
	case paravirtual::async_pf_enable:
	case paravirtual::async_pf_interrupt:
	case paravirtual::async_pf_acknowledge:
		return true;
	default:
		return reads_as_zero(index) || s.clock.read(index, value) ||
		       s.mtrrs.read(index, s.model.physical_address_bits, value);
	}
}

bool write_msr(VcpuState &s, u32 index, By by, u64 value)
{
	if (s.machine_check && MachineCheck::is_msr(index))
		return s.machine_check->write(index, by, value);
	switch (index) {
	case msr::tsc:
		write_tsc(s, value, by);
		return true;
	case msr::tsc_adjust:
		write_tsc_adjust(s, value, by);
		return true;
	case msr::apic_base:
		return write_apic_base(s, value, by);
	case msr::misc_enable:
		return write_misc_enable(s, value, by);
	case msr::feature_control:
		if ((value & ~feature_control::locked) ||
		    (by == By::guest && (s.feature_control & feature_control::locked)))
			return false;
		s.feature_control = value;
		return true;
	case msr::pat:
		if (!valid_pat(value))
			return false;
		s.pat = value;
		s.mark_dirty(Group::pat);
		return true;
	case msr::efer:
		return write_efer(s, value, by);
	case msr::star:
		s.star = value;
		s.cpu_registers_dirty = true;
		return true;
	case msr::lstar:
	case msr::cstar:
		/* They go into the CPU later, where a value that faults would fault in the host. */
		if (!is_canonical(value))
			return false;
		(index == msr::lstar ? s.lstar : s.cstar) = value;
		s.cpu_registers_dirty = true;
		return true;
	case msr::syscall_mask:
		if (value >> 32)
			return false;
		s.syscall_mask = value;
		s.cpu_registers_dirty = true;
		return true;
	case msr::tsc_aux:
		if (!has_tsc_aux(s, by) || (s.model.intel && value >> 32))
			return false;
		s.tsc_aux = static_cast<u32>(value);
		s.cpu_registers_dirty = true;
		return true;
	case msr::bios_sign_id:
		/* Software writes 0 before it reads it. */
		if (by == By::host)
			s.microcode_version = value;
		return true;
	case msr::power_ctl:
		s.power_control = value;
		return true;
	case msr::smi_count:
		if (by == By::guest)
			return false;
		s.smi_count = value;
		return true;
	case msr::debugctl: {
		/* Branch records and single-stepping of branches, which nothing comes of. */
		constexpr u64 ignored = 3;

		return !(value & ~ignored);
	}
	case msr::p6_counter0:
	case msr::p6_counter1:
	case msr::p6_event0:
	case msr::p6_event1:
	case msr::bios_update_trigger:
	case msr::bbl_cr_ctl3:
		return true;
	case msr::tsc_deadline:
		return true;
	case msr::xss:
		return by == By::host && value == 0;
	case paravirtual::steal_time:
		if (!guest_features().steal_time || !paravirtual::valid_steal_time(value))
			return false;
		s.paravirtual.steal_time = value;
		s.paravirtual.steal_due = s.paravirtual.wants_steal_time();
		return true;
	case paravirtual::pv_eoi:
		if (!paravirtual::valid_pv_eoi(value))
			return false;
		s.paravirtual.pv_eoi = value;
		return true;
	/* They come by an APIC in the kernel, and cannot be switched on without. */
	case paravirtual::async_pf_enable:
		return value == 0;
	case paravirtual::async_pf_interrupt:
		return false;
	case paravirtual::async_pf_acknowledge:
		return true;
	default:
		return s.clock.write(index, value) ||
		       s.mtrrs.write(index, s.model.physical_address_bits, value);
	}
}

} // namespace kvmpp
