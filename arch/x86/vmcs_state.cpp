// SPDX-License-Identifier: GPL-2.0
#include "vmcs_state.hpp"

#include "events.hpp"

#include <utility>

namespace kvmpp
{

namespace
{

/* Caching belongs to the host: with EPT these bits would only slow the guest down. */
constexpr u64 cr0_never_real = cr0::cd | cr0::nw;

/* The guest's value of a register of which it owns some bits: the others are in the shadow. */
constexpr u64 merge(u64 real, u64 shadow, u64 owned)
{
	return (real & owned) | (shadow & ~owned);
}

/* The first @count of them. */
void read_segments(ActiveVmcs &vmcs, VcpuState &s, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		Segment &seg = s.segment[i];

		seg.selector = static_cast<u16>(
			vmcs.read_encoding(segment_field(field::guest_es_selector, i)));
		seg.base = vmcs.read_encoding(segment_field(field::guest_es_base, i));
		seg.limit = static_cast<u32>(
			vmcs.read_encoding(segment_field(field::guest_es_limit, i)));
		seg.access_rights = static_cast<u32>(
			vmcs.read_encoding(segment_field(field::guest_es_access_rights, i)));
	}
}

/* As s.code64() and s.cpl() have it, which are right after the first two. */
void read_segments_in_use(ActiveVmcs &vmcs, VcpuState &s)
{
	s.seg(Seg::cs).access_rights = vmcs.read(field::guest_cs_access_rights);
	s.seg(Seg::ss).access_rights = vmcs.read(field::guest_ss_access_rights);
	if (!s.code64()) {
		/* Neither LDTR nor TR. */
		read_segments(vmcs, s, segment_count - 2);
		return;
	}
	s.seg(Seg::fs).base = vmcs.read(field::guest_fs_base);
	s.seg(Seg::gs).base = vmcs.read(field::guest_gs_base);
}

void write_segments(ActiveVmcs &vmcs, const VcpuState &s)
{
	for (unsigned i = 0; i < segment_count; i++) {
		const Segment &seg = s.segment[i];

		vmcs.write_encoding(segment_field(field::guest_es_selector, i), seg.selector);
		vmcs.write_encoding(segment_field(field::guest_es_base, i), seg.base);
		vmcs.write_encoding(segment_field(field::guest_es_limit, i), seg.limit);
		vmcs.write_encoding(segment_field(field::guest_es_access_rights, i),
				    seg.access_rights);
	}
}

u32 exceptions(const VcpuState &s)
{
	constexpr u32 both = GuestDebug::enable | GuestDebug::software_breakpoints;

	return 1 << static_cast<u32>(Vector::debug) |
	       /* An endless loop of them would shut interrupts out. */
	       1 << static_cast<u32>(Vector::alignment_check) |
	       1 << static_cast<u32>(Vector::machine_check) |
	       ((s.debug.control & both) == both ? 1 << static_cast<u32>(Vector::breakpoint) : 0);
}

void write_event(ActiveVmcs &vmcs, VcpuState &s)
{
	if (needs_window_state(s))
		read_state(vmcs, s, window_state);
	Event event = settle_events(s);
	if (!event.info.valid())
		return;
	vmcs.write(field::vm_entry_interruption_info, event.info.raw);
	if (event.info.has_error_code())
		vmcs.write(field::vm_entry_exception_error_code, event.error_code);
	if (event.info.is_software())
		vmcs.write(field::vm_entry_instruction_length, event.instruction_length);
}

/* See VcpuState::rip_passed_4g. */
void cut_rip(ActiveVmcs &vmcs, VcpuState &s)
{
	constexpr unsigned cs = static_cast<unsigned>(Seg::cs);
	u64 rights = s.valid.has(Group::segments)
			     ? s.segment[cs].access_rights
			     : vmcs.read_encoding(segment_field(field::guest_es_access_rights, cs));

	if (!s.long_mode() || !(rights & Segment::l_bit))
		s.rip = static_cast<u32>(s.rip);
	s.rip_passed_4g = false;
}

} // namespace

void read_groups(ActiveVmcs &vmcs, VcpuState &s, Groups groups)
{
	if (groups.has(Group::rip))
		s.rip = vmcs.read(field::guest_rip);
	if (groups.has(Group::rsp))
		s.gpr[rsp] = vmcs.read(field::guest_rsp);
	if (groups.has(Group::rflags))
		s.rflags = vmcs.read(field::guest_rflags);
	if (groups.has(Group::interruptibility))
		s.interruptibility = vmcs.read(field::guest_interruptibility);
	if (groups.has(Group::cr0))
		s.cr0 = merge(vmcs.read(field::guest_cr0), s.cr0, cr0_guest_owned);
	if (groups.has(Group::cr3))
		s.cr3 = vmcs.read(field::guest_cr3);
	if (groups.has(Group::cr4))
		s.cr4 = merge(vmcs.read(field::guest_cr4), s.cr4, cr4_guest_owned);
	if (groups.has(Group::segments))
		read_segments(vmcs, s, segment_count);
	else if (groups.has(Group::segments_in_use) && !s.valid.has(Group::segments))
		read_segments_in_use(vmcs, s);
	if (groups.has(Group::tables)) {
		s.gdtr = {vmcs.read(field::guest_gdtr_base),
			  static_cast<u16>(vmcs.read(field::guest_gdtr_limit))};
		s.idtr = {vmcs.read(field::guest_idtr_base),
			  static_cast<u16>(vmcs.read(field::guest_idtr_limit))};
	}
	if (groups.has(Group::pending_debug))
		s.pending_debug = vmcs.read(field::guest_pending_debug_exceptions);
	if (groups.has(Group::sysenter)) {
		s.sysenter_cs = vmcs.read(field::guest_sysenter_cs);
		s.sysenter_esp = vmcs.read(field::guest_sysenter_esp);
		s.sysenter_eip = vmcs.read(field::guest_sysenter_eip);
	}
	/* Else the CPU has left nothing there. */
	if (groups.has(Group::pdpte) && s.pae_paging()) {
		s.pdpte[0] = vmcs.read(field::guest_pdpte0);
		s.pdpte[1] = vmcs.read(field::guest_pdpte1);
		s.pdpte[2] = vmcs.read(field::guest_pdpte2);
		s.pdpte[3] = vmcs.read(field::guest_pdpte3);
	}
}

void write_groups(ActiveVmcs &vmcs, const VcpuState &s, Groups dirty, const VmxConfig &config)
{
	if (dirty.has(Group::rip))
		vmcs.write(field::guest_rip, s.rip);
	if (dirty.has(Group::rsp))
		vmcs.write(field::guest_rsp, s.gpr[rsp]);
	if (dirty.has(Group::rflags))
		vmcs.write(field::guest_rflags, s.rflags);
	if (dirty.has(Group::interruptibility))
		vmcs.write(field::guest_interruptibility, s.interruptibility);
	if (dirty.has(Group::cr0)) {
		vmcs.write(field::guest_cr0, (s.cr0 & ~cr0_never_real) | config.cr0_must_be_set);
		vmcs.write(field::cr0_read_shadow, s.cr0);
	}
	if (dirty.has(Group::cr3))
		vmcs.write(field::guest_cr3, s.cr3);
	if (dirty.has(Group::cr4)) {
		u64 own = s.cr4 & ~cr4::mce;
		vmcs.write(field::guest_cr4, own | config.cr4_must_be_set);
		vmcs.write(field::cr4_read_shadow, s.cr4);
	}
	if (dirty.has(Group::efer)) {
		vmcs.write(field::guest_ia32_efer, s.efer);
		vmcs.write(field::vm_entry_controls,
			   config.entry | (s.long_mode() ? entry_control::ia32e_mode_guest : 0));
	}
	if (dirty.has(Group::segments))
		write_segments(vmcs, s);
	if (dirty.has(Group::tables)) {
		vmcs.write(field::guest_gdtr_base, s.gdtr.base);
		vmcs.write(field::guest_gdtr_limit, s.gdtr.limit);
		vmcs.write(field::guest_idtr_base, s.idtr.base);
		vmcs.write(field::guest_idtr_limit, s.idtr.limit);
	}
	if (dirty.has(Group::pending_debug))
		vmcs.write(field::guest_pending_debug_exceptions, s.pending_debug);
	if (dirty.has(Group::dr7))
		vmcs.write(field::guest_dr7, s.effective_dr7());
	if (dirty.has(Group::sysenter)) {
		vmcs.write(field::guest_sysenter_cs, static_cast<u32>(s.sysenter_cs));
		vmcs.write(field::guest_sysenter_esp, s.sysenter_esp);
		vmcs.write(field::guest_sysenter_eip, s.sysenter_eip);
	}
	if (dirty.has(Group::pdpte)) {
		vmcs.write(field::guest_pdpte0, s.pdpte[0]);
		vmcs.write(field::guest_pdpte1, s.pdpte[1]);
		vmcs.write(field::guest_pdpte2, s.pdpte[2]);
		vmcs.write(field::guest_pdpte3, s.pdpte[3]);
	}
	if (dirty.has(Group::pat))
		vmcs.write(field::guest_ia32_pat, s.pat);
	if (dirty.has(Group::tsc_offset))
		vmcs.write(field::tsc_offset, s.tsc_offset);
	if (dirty.has(Group::controls)) {
		vmcs.write(field::primary_processor_based_controls, s.primary_controls | s.windows);
		vmcs.write(field::exception_bitmap, exceptions(s));
	}
	if (dirty.has(Group::ept_pointer))
		vmcs.write(field::ept_pointer, s.ept_pointer);
}

void write_due(ActiveVmcs &vmcs, VcpuState &s)
{
	if (s.rip_passed_4g && s.dirty.has(Group::rip))
		cut_rip(vmcs, s);
	if (has_to_settle(s))
		write_event(vmcs, s);
}

void cancel_delivery(ActiveVmcs &vmcs, VcpuState &s)
{
	if (std::exchange(s.delivering, Delivery::none) != Delivery::none)
		vmcs.write(field::vm_entry_interruption_info, 0);
}

void read_page_log(ActiveVmcs &vmcs, VcpuState &s)
{
	constexpr u16 empty = pml_entries - 1;
	/* The next free one: when all are taken, that before the first. */
	u16 index = vmcs.read(field::guest_pml_index);

	if (index == empty) [[likely]]
		return;
	s.pml_first = static_cast<u16>(index + 1);
	vmcs.write(field::guest_pml_index, empty);
}

void read_more_of_exit(ActiveVmcs &vmcs, Exit &exit, const ExitFields &fields)
{
	exit.has_more = true;
	if (fields.qualification)
		exit.qualification = vmcs.read(field::exit_qualification);
	if (fields.addresses) {
		exit.guest_linear = vmcs.read(field::guest_linear_address);
		exit.guest_phys = {vmcs.read(field::guest_physical_address)};
	}
	if (fields.interruption) {
		exit.interruption = {vmcs.read(field::vm_exit_interruption_info)};
		if (exit.interruption.has_error_code())
			exit.interruption_error_code =
				vmcs.read(field::vm_exit_interruption_error_code);
		if (exit.interruption.is_software())
			exit.instruction_length = vmcs.read(field::vm_exit_instruction_length);
	}
	if (fields.vectoring) {
		exit.vectoring = {vmcs.read(field::idt_vectoring_info)};
		if (exit.vectoring.valid()) {
			if (exit.vectoring.has_error_code())
				exit.vectoring_error_code =
					vmcs.read(field::idt_vectoring_error_code);
			if (exit.vectoring.is_software())
				exit.instruction_length =
					vmcs.read(field::vm_exit_instruction_length);
		}
	}
	if (fields.of_string && IoAccess(exit.qualification).string) {
		exit.guest_linear = vmcs.read(field::guest_linear_address);
		exit.instruction_info = vmcs.read(field::vm_exit_instruction_info);
	}
}

} // namespace kvmpp
