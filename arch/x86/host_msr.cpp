// SPDX-License-Identifier: GPL-2.0
#include "host_msr.hpp"

#include "cpuid.hpp"

#include <linux_glue/x86.h>

namespace kvmpp
{

namespace
{

/* In KVM's order; IA32_TSC_AUX, which not every host has, is the last. */
constexpr u32 to_save[] = {
	msr::sysenter_cs,
	msr::sysenter_esp,
	msr::sysenter_eip,
	msr::star,
	msr::cstar,
	msr::kernel_gs_base,
	msr::syscall_mask,
	msr::lstar,
	msr::tsc,
	msr::pat,
	msr::feature_control,
	msr::tsc_adjust,
	msr::tsc_deadline,
	msr::misc_enable,
	msr::mcg_status,
	msr::mcg_ctl,
	msr::smi_count,
	msr::power_ctl,
	msr::bios_sign_id,
	paravirtual::async_pf_enable,
	paravirtual::steal_time,
	paravirtual::pv_eoi,
	paravirtual::async_pf_interrupt,
	paravirtual::async_pf_acknowledge,
	msr::tsc_aux,
};

constexpr u32 of_features[] = {msr::bios_sign_id};

/* What is not canonical becomes so, as KVM has it: VM entry would fail. */
constexpr u64 made_canonical(u64 address)
{
	return static_cast<u64>(static_cast<s64>(address << 16) >> 16);
}

} // namespace

Groups host_msr_groups(u32 index)
{
	switch (index) {
	case msr::fs_base:
	case msr::gs_base:
		return Group::segments;
	case msr::sysenter_cs:
	case msr::sysenter_esp:
	case msr::sysenter_eip:
		return Group::sysenter;
	default:
		return {};
	}
}

bool read_host_msr(const VcpuState &s, u32 index, u64 &value)
{
	switch (index) {
	case msr::fs_base:
		value = s.seg(Seg::fs).base;
		return true;
	case msr::gs_base:
		value = s.seg(Seg::gs).base;
		return true;
	case msr::kernel_gs_base:
		value = s.kernel_gs_base;
		return true;
	case msr::sysenter_cs:
		value = s.sysenter_cs;
		return true;
	case msr::sysenter_esp:
		value = s.sysenter_esp;
		return true;
	case msr::sysenter_eip:
		value = s.sysenter_eip;
		return true;
	default:
		return read_msr(s, index, By::host, value);
	}
}

bool write_host_msr(VcpuState &s, u32 index, u64 value)
{
	switch (index) {
	case msr::fs_base:
	case msr::gs_base:
		if (!is_canonical(value))
			return false;
		s.seg(index == msr::fs_base ? Seg::fs : Seg::gs).base = value;
		s.mark_dirty(Group::segments);
		return true;
	case msr::kernel_gs_base:
		if (!is_canonical(value))
			return false;
		s.kernel_gs_base = value;
		return true;
	case msr::sysenter_cs:
		s.sysenter_cs = static_cast<u32>(value);
		s.mark_dirty(Group::sysenter);
		return true;
	case msr::sysenter_esp:
	case msr::sysenter_eip:
		(index == msr::sysenter_esp ? s.sysenter_esp : s.sysenter_eip) =
			made_canonical(value);
		s.mark_dirty(Group::sysenter);
		return true;
	default:
		return write_msr(s, index, By::host, value);
	}
}

std::span<const u32> msrs_to_save()
{
	std::span<const u32> all(to_save);

	return guest_features().rdtscp ? all : all.first(all.size() - 1);
}

std::span<const u32> msrs_of_features()
{
	return of_features;
}

bool read_feature_msr(u32 index, u64 &value)
{
	value = 0;
	if (index != msr::bios_sign_id)
		return false;
	/* KVM says 0 where it cannot be read. */
	(void)glue_rdmsr_safe(index, &value);
	return true;
}

} // namespace kvmpp
