// SPDX-License-Identifier: GPL-2.0
#include "capabilities.hpp"

#include "controls.hpp"
#include "cpu_insn.hpp"
#include "x86.hpp"

#include <linux_glue/x86.h>

namespace kvmpp
{

namespace
{

u64 rdmsr_or_zero(u32 msr)
{
	u64 value;

	return glue_rdmsr_safe(msr, &value) == 0 ? value : 0;
}

/* A bit that must be there, in the registers' allowed-1 settings or in IA32_VMX_EPT_VPID_CAP. */
struct Requirement {
	u64 VmxRegisters::*where;
	u64 bit;
	const char *reason;
};

/* "Capability MSRs": bits 63:32 say which controls may be 1. */
constexpr u64 allowed(u32 control)
{
	return u64{control} << 32;
}

constexpr Requirement requirements[] = {
	{&VmxRegisters::pin, allowed(pin::external_interrupt_exiting),
	 "no external-interrupt exiting"},
	{&VmxRegisters::pin, allowed(pin::nmi_exiting), "no NMI exiting"},
	{&VmxRegisters::pin, allowed(pin::virtual_nmis), "no virtual NMIs"},
	{&VmxRegisters::primary, allowed(primary::hlt_exiting), "no HLT exiting"},
	{&VmxRegisters::primary, allowed(primary::interrupt_window_exiting),
	 "no interrupt-window exiting"},
	{&VmxRegisters::primary, allowed(primary::nmi_window_exiting), "no NMI-window exiting"},
	{&VmxRegisters::primary, allowed(primary::mwait_exiting), "no MWAIT exiting"},
	{&VmxRegisters::primary, allowed(primary::monitor_exiting), "no MONITOR exiting"},
	{&VmxRegisters::primary, allowed(primary::rdpmc_exiting), "no RDPMC exiting"},
	{&VmxRegisters::primary, allowed(primary::cr8_load_exiting), "no CR8-load exiting"},
	{&VmxRegisters::primary, allowed(primary::cr8_store_exiting), "no CR8-store exiting"},
	{&VmxRegisters::primary, allowed(primary::mov_dr_exiting), "no MOV-DR exiting"},
	{&VmxRegisters::primary, allowed(primary::unconditional_io_exiting),
	 "no unconditional I/O exiting"},
	{&VmxRegisters::primary, allowed(primary::use_tsc_offsetting), "no TSC offsetting"},
	{&VmxRegisters::primary, allowed(primary::use_msr_bitmaps), "no MSR bitmaps"},
	{&VmxRegisters::primary, allowed(primary::activate_secondary_controls),
	 "no secondary controls"},
	{&VmxRegisters::secondary, allowed(secondary::enable_ept), "no EPT"},
	{&VmxRegisters::secondary, allowed(secondary::enable_vpid), "no VPID"},
	{&VmxRegisters::secondary, allowed(secondary::unrestricted_guest), "no unrestricted guest"},
	{&VmxRegisters::secondary, allowed(secondary::wbinvd_exiting), "no WBINVD exiting"},
	{&VmxRegisters::exit, allowed(exit_control::host_address_space_size), "no 64-bit host"},
	{&VmxRegisters::exit, allowed(exit_control::save_debug_controls),
	 "no saving of debug controls"},
	{&VmxRegisters::exit, allowed(exit_control::save_efer),
	 "no saving of IA32_EFER on VM exit"},
	{&VmxRegisters::exit, allowed(exit_control::load_efer),
	 "no loading of IA32_EFER on VM exit"},
	{&VmxRegisters::exit, allowed(exit_control::save_pat), "no saving of IA32_PAT on VM exit"},
	{&VmxRegisters::exit, allowed(exit_control::load_pat), "no loading of IA32_PAT on VM exit"},
	{&VmxRegisters::entry, allowed(entry_control::load_debug_controls),
	 "no loading of debug controls"},
	{&VmxRegisters::entry, allowed(entry_control::ia32e_mode_guest), "no 64-bit guests"},
	{&VmxRegisters::entry, allowed(entry_control::load_efer),
	 "no loading of IA32_EFER on VM entry"},
	{&VmxRegisters::entry, allowed(entry_control::load_pat),
	 "no loading of IA32_PAT on VM entry"},
	{&VmxRegisters::ept_vpid, ept_cap::walk_length_4, "no 4-level EPT"},
	{&VmxRegisters::ept_vpid, ept_cap::write_back, "no write-back EPT"},
	{&VmxRegisters::ept_vpid, ept_cap::invept, "no INVEPT"},
	{&VmxRegisters::ept_vpid, ept_cap::invept_single, "no single-context INVEPT"},
	{&VmxRegisters::ept_vpid, ept_cap::invept_all, "no all-context INVEPT"},
	{&VmxRegisters::ept_vpid, ept_cap::invvpid, "no INVVPID"},
	{&VmxRegisters::ept_vpid, ept_cap::invvpid_single, "no single-context INVVPID"},
	{&VmxRegisters::ept_vpid, ept_cap::invvpid_all, "no all-context INVVPID"},
};

/*
 * Intel's specification updates: "VMX-Preemption Timer Does Not Count Down at the Rate Specified", errata AAJ124,
 * AAK139, AAM126, AAN92, AAO95, AAP86, AAT59, AAU65, AAX65 and BA86; and the Xeon E3-1220 v2.
 */
bool counts_wrongly(u32 cpu_signature)
{
	constexpr u32 reserved = u32{0xf} << 28 | 3 << 14;

	switch (cpu_signature & ~reserved) {
	case 0x106a0:
	case 0x106a1:
	case 0x106a4:
	case 0x106a5:
	case 0x106e5:
	case 0x20652:
	case 0x20655:
	case 0x206e6:
	case 0x306a8:
		return true;
	default:
		return false;
	}
}

/* The wanted controls that are allowed, and those the CPU insists on. */
constexpr u32 settle(u64 capability, u32 wanted)
{
	u32 must_be_set = static_cast<u32>(capability);
	u32 may_be_set = static_cast<u32>(capability >> 32);

	return (wanted & may_be_set) | must_be_set;
}

} // namespace

VmxRegisters VmxRegisters::read(const OnCpu &)
{
	VmxRegisters r;

	r.cpuid_vmx = insn::cpuid(1).ecx & (1 << 5);
	if (!r.cpuid_vmx)
		return r;
	r.cpu_signature = insn::cpuid(1).eax;
	r.feature_control = rdmsr_or_zero(msr::feature_control);
	r.basic = rdmsr_or_zero(msr::vmx_basic);
	/* Without the "true" registers, controls that the manual's default1 class names stay 1. */
	u32 plain = r.basic & (u64{1} << 55) ? 0 : msr::vmx_true_pinbased_controls - 0x481;
	r.pin = rdmsr_or_zero(msr::vmx_true_pinbased_controls - plain);
	r.primary = rdmsr_or_zero(msr::vmx_true_procbased_controls - plain);
	r.exit = rdmsr_or_zero(msr::vmx_true_exit_controls - plain);
	r.entry = rdmsr_or_zero(msr::vmx_true_entry_controls - plain);
	if (r.primary & allowed(primary::activate_secondary_controls))
		r.secondary = rdmsr_or_zero(msr::vmx_procbased_controls2);
	if (r.secondary & allowed(secondary::enable_ept | secondary::enable_vpid))
		r.ept_vpid = rdmsr_or_zero(msr::vmx_ept_vpid_cap);
	r.misc = rdmsr_or_zero(msr::vmx_misc);
	r.cr0_fixed0 = rdmsr_or_zero(msr::vmx_cr0_fixed0);
	r.cr4_fixed0 = rdmsr_or_zero(msr::vmx_cr4_fixed0);
	r.host_cr4 = glue_host_cr4();
	return r;
}

const char *vmx_lacks(const VmxRegisters &r, unsigned &next)
{
	while (next < sizeof(requirements) / sizeof(requirements[0])) {
		const Requirement &need = requirements[next++];

		if ((r.*need.where & need.bit) != need.bit)
			return need.reason;
	}
	return nullptr;
}

bool vmx_configure(const VmxRegisters &r, VmxConfig &config, Refusal &refusal)
{
	if (!r.cpuid_vmx) {
		refusal = {Errno::opnotsupp, "this CPU has no VMX"};
		return false;
	}
	if (!(r.feature_control & feature_control::locked)) {
		refusal = {Errno::opnotsupp, "IA32_FEATURE_CONTROL is not locked: firmware and "
					     "Linux left VMX undecided"};
		return false;
	}
	if (!(r.feature_control & feature_control::vmx_outside_smx)) {
		refusal = {Errno::opnotsupp, "VMX is disabled by firmware (IA32_FEATURE_CONTROL): "
					     "enable it in the BIOS setup"};
		return false;
	}
	/* "VMCS size" and "memory type": bits 44:32 and 53:50 of IA32_VMX_BASIC. */
	if (((r.basic >> 32) & 0x1fff) > page_size || ((r.basic >> 50) & 0xf) != 6) {
		refusal = {Errno::io, "VMCS larger than a page or not write-back"};
		return false;
	}
	unsigned next = 0;
	if (const char *reason = vmx_lacks(r, next)) {
		refusal = {Errno::io, reason};
		return false;
	}

	config.revision = static_cast<u32>(r.basic) & 0x7fffffff;
	config.pin = settle(r.pin,
			    pin::external_interrupt_exiting | pin::nmi_exiting | pin::virtual_nmis |
				    (counts_wrongly(r.cpu_signature) ? 0 : pin::preemption_timer));
	if (config.has_preemption_timer())
		config.preemption_timer_bit = r.misc & 0x1f;
	config.primary =
		settle(r.primary,
		       primary::hlt_exiting | primary::mwait_exiting | primary::monitor_exiting |
			       primary::rdpmc_exiting | primary::cr8_load_exiting |
			       primary::cr8_store_exiting | primary::mov_dr_exiting |
			       primary::unconditional_io_exiting | primary::use_tsc_offsetting |
			       primary::use_msr_bitmaps | primary::activate_secondary_controls);
	config.secondary = settle(
		r.secondary, secondary::enable_ept | secondary::enable_vpid |
				     secondary::unrestricted_guest | secondary::wbinvd_exiting |
				     secondary::enable_rdtscp | secondary::enable_invpcid |
				     secondary::pause_loop_exiting | secondary::enable_pml);
	config.exit = settle(r.exit, exit_control::host_address_space_size |
					     exit_control::save_debug_controls |
					     exit_control::save_efer | exit_control::load_efer |
					     exit_control::save_pat | exit_control::load_pat);
	config.entry = settle(r.entry, entry_control::load_debug_controls |
					       entry_control::load_efer | entry_control::load_pat);
	config.ept_2m = r.ept_vpid & ept_cap::page_2m;
	config.ept_1g = r.ept_vpid & ept_cap::page_1g;
	config.ept_accessed = r.ept_vpid & ept_cap::accessed_dirty;
	/* With EPT the guest's own CR3 is none of the host's business. */
	constexpr u32 must_be_off =
		primary::cr3_load_exiting | primary::cr3_store_exiting | primary::invlpg_exiting;
	if (config.primary & must_be_off) {
		refusal = {Errno::io, "CR3 or INVLPG exiting cannot be switched off"};
		return false;
	}
	/*
	 * With an unrestricted guest PE and PG are free ("Restrictions on Guest Control
	 * Registers").
	 */
	config.cr0_must_be_set = r.cr0_fixed0 & ~(cr0::pe | cr0::pg);
	/* A machine check is the host's, in the guest as well: with MCE clear it would reset. */
	config.cr4_must_be_set = r.cr4_fixed0 | (r.host_cr4 & cr4::mce);
	return true;
}

} // namespace kvmpp
