// SPDX-License-Identifier: GPL-2.0
#include "vmcs_setup.hpp"

#include "controls.hpp"
#include "cpu_insn.hpp"
#include "vcpu_state.hpp"
#include "x86.hpp"

namespace kvmpp
{

void write_controls(ActiveVmcs &vmcs, const VmxConfig &config, const VmcsControls &c,
		    VcpuState &state)
{
	state.primary_controls = c.primary;
	state.ept_pointer = c.ept_pointer;
	state.mark_dirty(Group::controls | Group::ept_pointer);
	vmcs.write(field::pin_based_controls, c.pin);
	if (c.pin & pin::preemption_timer)
		vmcs.write(field::preemption_timer_value, longest_preemption_timer);
	vmcs.write(field::secondary_processor_based_controls, c.secondary);
	if (c.secondary & secondary::pause_loop_exiting) {
		vmcs.write(field::ple_gap, c.ple_gap);
		vmcs.write(field::ple_window, c.ple_window);
	}
	if (c.secondary & secondary::enable_pml) {
		vmcs.write(field::pml_address, c.pml_address);
		vmcs.write(field::guest_pml_index, pml_entries - 1);
	}
	vmcs.write(field::vm_exit_controls, config.exit);
	vmcs.write(field::page_fault_error_code_mask, 0);
	vmcs.write(field::page_fault_error_code_match, 0);
	vmcs.write(field::cr3_target_count, 0);
	vmcs.write(field::vm_exit_msr_store_count, 0);
	vmcs.write(field::vm_exit_msr_load_count, 0);
	vmcs.write(field::vm_entry_msr_load_count, 0);
	vmcs.write(field::vm_entry_interruption_info, 0);
	vmcs.write(field::msr_bitmap, c.msr_bitmap);
	vmcs.write(field::vpid, c.vpid);
	vmcs.write(field::cr0_guest_host_mask, ~cr0_guest_owned);
	vmcs.write(field::cr4_guest_host_mask, ~cr4_guest_owned);
	vmcs.write(field::vmcs_link_pointer, ~u64{0});
	vmcs.write(field::guest_ia32_debugctl, 0);
	vmcs.write(field::guest_activity_state, 0);

	vmcs.write(field::host_cr0, insn::read_cr0() & ~cr0::ts);
	vmcs.write(field::host_ds_selector, 0);
	vmcs.write(field::host_es_selector, 0);
	vmcs.write(field::host_fs_selector, 0);
	vmcs.write(field::host_gs_selector, 0);
}

void write_host_state(ActiveVmcs &vmcs, const glue_host_state &host)
{
	vmcs.write(field::host_cs_selector, host.cs);
	vmcs.write(field::host_ss_selector, host.ss);
	vmcs.write(field::host_tr_selector, host.tr);
	vmcs.write(field::host_tr_base, host.tr_base);
	vmcs.write(field::host_gdtr_base, host.gdt_base);
	vmcs.write(field::host_idtr_base, host.idt_base);
	vmcs.write(field::host_gs_base, host.gs_base);
	vmcs.write(field::host_sysenter_cs, host.sysenter_cs);
	vmcs.write(field::host_sysenter_esp, host.sysenter_esp);
	vmcs.write(field::host_sysenter_eip, host.sysenter_eip);
	vmcs.write(field::host_ia32_efer, host.efer);
	vmcs.write(field::host_ia32_pat, host.pat);
}

} // namespace kvmpp
