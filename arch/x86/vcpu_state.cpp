// SPDX-License-Identifier: GPL-2.0
#include "vcpu_state.hpp"

#include "cpuid_table.hpp"

namespace kvmpp
{

namespace
{

constexpr InterruptionInfo exception(Vector vector, bool error_code)
{
	return {static_cast<u32>(vector) |
		static_cast<u32>(InterruptionInfo::Type::hardware_exception) << 8 |
		(error_code ? InterruptionInfo::error_code_bit : 0) | InterruptionInfo::valid_bit};
}

enum class Severity { benign, contributory, page_fault, double_fault };

/* The classes of the table in "Interrupt 8 - Double Fault Exception (#DF)". */
Severity severity(const InterruptionInfo &info)
{
	if (info.type() != InterruptionInfo::Type::hardware_exception)
		return Severity::benign;
	switch (static_cast<Vector>(info.vector())) {
	case Vector::divide_error:
	case Vector::invalid_tss:
	case Vector::segment_not_present:
	case Vector::stack_fault:
	case Vector::general_protection:
		return Severity::contributory;
	case Vector::page_fault:
		return Severity::page_fault;
	case Vector::double_fault:
		return Severity::double_fault;
	default:
		return Severity::benign;
	}
}

} // namespace

void VcpuState::reset(u32 vcpu_id, u64 tsc_offset_at_reset)
{
	GuestModel kept_model = model;
	const GuestCpuid *kept_cpuid = cpuid;
	MachineCheck *kept_machine_check = machine_check;
	TscRecord *kept_record = tsc_record;

	*this = VcpuState();
	model = kept_model;
	cpuid = kept_cpuid;
	machine_check = kept_machine_check;
	tsc_record = kept_record;
	reset_registers();
	cr0 = cr0::cd | cr0::nw | cr0::et;
	pat = 0x0007040600070406;
	/* APIC enabled at its usual place; the first vCPU is the bootstrap processor. */
	apic_base = 0xfee00000 | 1 << 11 | (vcpu_id == 0 ? 1 << 8 : 0);
	misc_enable = misc_enable_bit::no_branch_trace | misc_enable_bit::no_pebs;
	microcode_version = u64{1} << 32; /* one that some guests insist on */
	tsc_offset = tsc_offset_at_reset;
}

/* What is the same after RESET and INIT. */
void VcpuState::reset_registers()
{
	for (u64 &value : gpr)
		value = 0;
	gpr[rdx] = cpuid ? cpuid->ask(*this, 1, 0).eax : 0;
	if (!gpr[rdx])
		gpr[rdx] = 0x600;
	rip = 0xfff0;
	rflags = rflags::fixed;
	cr2 = cr3 = cr4 = cr8 = efer = 0;
	for (Segment &s : segment)
		s = {.base = 0, .limit = 0xffff, .access_rights = 0x93, .selector = 0};
	seg(Seg::cs) = {
		.base = 0xffff0000, .limit = 0xffff, .access_rights = 0x9b, .selector = 0xf000};
	seg(Seg::ldtr).access_rights = 0x82;
	seg(Seg::tr).access_rights = 0x8b;
	gdtr = idtr = {.base = 0, .limit = 0xffff};
	interruptibility = 0;
	pending_debug = 0;
	for (u64 &address : dr)
		address = 0;
	dr6 = dr6::fixed;
	dr7 = dr7::fixed;
	mark_dirty(Groups::all());
	cpu_registers_dirty = true;
	flush_tlb = true;
	rip_passed_4g = false;
}

void VcpuState::init()
{
	cr0 = cr0::et | (cr0 & (cr0::cd | cr0::nw));
	reset_registers();
	has_event = shutdown_pending = false;
	pending = {};
	nmi = {};
	interrupt = {};
	debug.step_due = false;
	/* Nobody writes to where the guest was any more. */
	clock.system_time = paravirtual.steal_time = 0;
	clock.changed = true;
}

void VcpuState::start_at(u8 vector)
{
	seg(Seg::cs).selector = static_cast<u16>(vector << 8);
	seg(Seg::cs).base = u64{vector} << 12;
	rip = 0;
	mark_dirty(Group::segments | Group::rip);
}

/* What the end of one brings: blocking ends, a trap comes. */
void VcpuState::end_instruction()
{
	if (interruptibility & blocking_by_sti_or_mov_ss) {
		interruptibility &= ~blocking_by_sti_or_mov_ss;
		mark_dirty(Group::interruptibility);
	}
	if (is_debugged(GuestDebug::single_step)) {
		debug.step_due = rflags & rflags::tf;
	} else if (rflags & rflags::tf) {
		dr6 |= dr6::bs;
		(void)inject(Vector::debug);
	}
}

bool VcpuState::inject(Vector vector)
{
	return inject(exception(vector, false), 0);
}

bool VcpuState::inject(Vector vector, u32 error_code)
{
	return inject(exception(vector, cr0 & cr0::pe), error_code);
}

bool VcpuState::inject_page_fault(u64 address, u32 error_code)
{
	if (!inject(exception(Vector::page_fault, true), error_code))
		return false;
	cr2 = address;
	return true;
}

bool VcpuState::inject(InterruptionInfo info, u32 error_code)
{
	if (has_event) {
		Severity first = severity(event.info), second = severity(info);

		if (first == Severity::double_fault && second != Severity::benign)
			return false;
		if ((first == Severity::contributory && second == Severity::contributory) ||
		    (first == Severity::page_fault &&
		     (second == Severity::contributory || second == Severity::page_fault))) {
			info = exception(Vector::double_fault, true);
			error_code = 0;
		}
		/*
		 * Else the later one goes first; the instruction that raised the other runs again.
		 */
	}
	/* INT n whose delivery it came in is executed again: injected later it would return elsewhere. */
	if (interrupt.soft)
		interrupt = {};
	has_event = true;
	event = {.info = info, .error_code = error_code, .instruction_length = 0, .again = false};
	return true;
}

} // namespace kvmpp
