/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The VMCS's fields by the manual's names and encodings ("Field Encoding in VMCS"). A field's type
 * knows from its encoding how wide it is and whether it may be written.
 */
#pragma once

#include "include/kvmpp/types.hpp"

#include <type_traits>

namespace kvmpp
{

/* "Structure of VMCS Component Encoding". */
template <u32 Encoding> struct Field {
	static constexpr u32 encoding = Encoding;
	static constexpr unsigned width_code = (Encoding >> 13) & 3;
	static constexpr unsigned type_code = (Encoding >> 10) & 3;
	static constexpr bool read_only = type_code == 1;

	using Value = std::conditional_t<
		width_code == 0, u16,
		std::conditional_t<width_code == 2, u32, u64>>; /* 1: 64 bits, 3: natural width */

	static_assert((Encoding & 1) == 0, "the high half of a field is not a field of its own");
};

namespace field
{

#define VMCS_FIELD(name, encoding)                                                                 \
	inline constexpr Field<encoding> name                                                      \
	{                                                                                          \
	}

/* 16-bit control and guest-state fields */
VMCS_FIELD(vpid, 0x0000);
VMCS_FIELD(guest_es_selector, 0x0800);
VMCS_FIELD(guest_tr_selector, 0x080e);
VMCS_FIELD(guest_pml_index, 0x0812);

/* 16-bit host-state fields */
VMCS_FIELD(host_es_selector, 0x0c00);
VMCS_FIELD(host_cs_selector, 0x0c02);
VMCS_FIELD(host_ss_selector, 0x0c04);
VMCS_FIELD(host_ds_selector, 0x0c06);
VMCS_FIELD(host_fs_selector, 0x0c08);
VMCS_FIELD(host_gs_selector, 0x0c0a);
VMCS_FIELD(host_tr_selector, 0x0c0c);

/* 64-bit control fields */
VMCS_FIELD(msr_bitmap, 0x2004);
VMCS_FIELD(pml_address, 0x200e);
VMCS_FIELD(tsc_offset, 0x2010);
VMCS_FIELD(ept_pointer, 0x201a);

/* 64-bit read-only data field */
VMCS_FIELD(guest_physical_address, 0x2400);

/* 64-bit guest-state fields */
VMCS_FIELD(vmcs_link_pointer, 0x2800);
VMCS_FIELD(guest_ia32_debugctl, 0x2802);
VMCS_FIELD(guest_ia32_pat, 0x2804);
VMCS_FIELD(guest_ia32_efer, 0x2806);
VMCS_FIELD(guest_pdpte0, 0x280a);
VMCS_FIELD(guest_pdpte1, 0x280c);
VMCS_FIELD(guest_pdpte2, 0x280e);
VMCS_FIELD(guest_pdpte3, 0x2810);

/* 64-bit host-state fields */
VMCS_FIELD(host_ia32_pat, 0x2c00);
VMCS_FIELD(host_ia32_efer, 0x2c02);

/* 32-bit control fields */
VMCS_FIELD(pin_based_controls, 0x4000);
VMCS_FIELD(primary_processor_based_controls, 0x4002);
VMCS_FIELD(exception_bitmap, 0x4004);
VMCS_FIELD(page_fault_error_code_mask, 0x4006);
VMCS_FIELD(page_fault_error_code_match, 0x4008);
VMCS_FIELD(cr3_target_count, 0x400a);
VMCS_FIELD(vm_exit_controls, 0x400c);
VMCS_FIELD(vm_exit_msr_store_count, 0x400e);
VMCS_FIELD(vm_exit_msr_load_count, 0x4010);
VMCS_FIELD(vm_entry_controls, 0x4012);
VMCS_FIELD(vm_entry_msr_load_count, 0x4014);
VMCS_FIELD(vm_entry_interruption_info, 0x4016);
VMCS_FIELD(vm_entry_exception_error_code, 0x4018);
VMCS_FIELD(vm_entry_instruction_length, 0x401a);
VMCS_FIELD(secondary_processor_based_controls, 0x401e);
VMCS_FIELD(ple_gap, 0x4020);
VMCS_FIELD(ple_window, 0x4022);

/* 32-bit read-only data fields */
VMCS_FIELD(vm_instruction_error, 0x4400);
VMCS_FIELD(exit_reason, 0x4402);
VMCS_FIELD(vm_exit_interruption_info, 0x4404);
VMCS_FIELD(vm_exit_interruption_error_code, 0x4406);
VMCS_FIELD(idt_vectoring_info, 0x4408);
VMCS_FIELD(idt_vectoring_error_code, 0x440a);
VMCS_FIELD(vm_exit_instruction_length, 0x440c);
VMCS_FIELD(vm_exit_instruction_info, 0x440e);

/* 32-bit guest-state fields */
VMCS_FIELD(guest_es_limit, 0x4800);
VMCS_FIELD(guest_gdtr_limit, 0x4810);
VMCS_FIELD(guest_idtr_limit, 0x4812);
VMCS_FIELD(guest_es_access_rights, 0x4814);
VMCS_FIELD(guest_cs_access_rights, 0x4816);
VMCS_FIELD(guest_ss_access_rights, 0x4818);
VMCS_FIELD(guest_interruptibility, 0x4824);
VMCS_FIELD(guest_activity_state, 0x4826);
VMCS_FIELD(guest_sysenter_cs, 0x482a);
VMCS_FIELD(preemption_timer_value, 0x482e);

/* 32-bit host-state field */
VMCS_FIELD(host_sysenter_cs, 0x4c00);

/* natural-width control fields */
VMCS_FIELD(cr0_guest_host_mask, 0x6000);
VMCS_FIELD(cr4_guest_host_mask, 0x6002);
VMCS_FIELD(cr0_read_shadow, 0x6004);
VMCS_FIELD(cr4_read_shadow, 0x6006);

/* natural-width read-only data fields */
VMCS_FIELD(exit_qualification, 0x6400);
VMCS_FIELD(guest_linear_address, 0x640a);

/* natural-width guest-state fields */
VMCS_FIELD(guest_cr0, 0x6800);
VMCS_FIELD(guest_cr3, 0x6802);
VMCS_FIELD(guest_cr4, 0x6804);
VMCS_FIELD(guest_es_base, 0x6806);
VMCS_FIELD(guest_fs_base, 0x680e);
VMCS_FIELD(guest_gs_base, 0x6810);
VMCS_FIELD(guest_gdtr_base, 0x6816);
VMCS_FIELD(guest_idtr_base, 0x6818);
VMCS_FIELD(guest_dr7, 0x681a);
VMCS_FIELD(guest_rsp, 0x681c);
VMCS_FIELD(guest_rip, 0x681e);
VMCS_FIELD(guest_rflags, 0x6820);
VMCS_FIELD(guest_pending_debug_exceptions, 0x6822);
VMCS_FIELD(guest_sysenter_esp, 0x6824);
VMCS_FIELD(guest_sysenter_eip, 0x6826);

/* natural-width host-state fields */
VMCS_FIELD(host_cr0, 0x6c00);
VMCS_FIELD(host_cr3, 0x6c02);
VMCS_FIELD(host_cr4, 0x6c04);
VMCS_FIELD(host_fs_base, 0x6c06);
VMCS_FIELD(host_gs_base, 0x6c08);
VMCS_FIELD(host_tr_base, 0x6c0a);
VMCS_FIELD(host_gdtr_base, 0x6c0c);
VMCS_FIELD(host_idtr_base, 0x6c0e);
VMCS_FIELD(host_sysenter_esp, 0x6c10);
VMCS_FIELD(host_sysenter_eip, 0x6c12);
VMCS_FIELD(host_rsp, 0x6c14);
VMCS_FIELD(host_rip, 0x6c16);

#undef VMCS_FIELD

} // namespace field

/*
 * The guest's segment registers have encodings two apart, in the order ES, CS, SS, DS, FS, GS,
 * LDTR, TR: this steps from ES's field to that of segment @index.
 */
template <u32 Encoding> constexpr u32 segment_field(Field<Encoding>, unsigned index)
{
	return Encoding + 2 * index;
}

} // namespace kvmpp
