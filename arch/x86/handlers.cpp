// SPDX-License-Identifier: GPL-2.0
#include "handlers.hpp"

#include "cpuid.hpp"
#include "events.hpp"
#include "guest_debug.hpp"
#include "paging.hpp"

#include <linux_glue/x86.h>

#include <linux/kvm.h>

namespace kvmpp
{

namespace
{

Next handle_exception(VcpuState &s, const Exit &exit)
{
	if (exit.interruption.type() == InterruptionInfo::Type::nmi)
		return Next::resume; /* given to Linux before interrupts were switched on */

	switch (static_cast<Vector>(exit.interruption.vector())) {
	case Vector::machine_check:
		return Next::resume; /* likewise */
	case Vector::alignment_check:
		/* Not the guest's own check: Linux has the CPU raise #AC for a split lock. */
		if (!(s.cpl() == 3 && (s.cr0 & cr0::am) && (s.rflags & rflags::ac)) &&
		    glue_split_lock(s.rip))
			return Next::resume;
		return after_injection(
			s, s.inject(Vector::alignment_check, exit.interruption_error_code));
	case Vector::breakpoint:
		/* For INJECT_BP. */
		s.soft_length = exit.instruction_length;
		return debug_exit(s, Vector::breakpoint, 0);
	case Vector::debug: {
		if (s.is_debugged(GuestDebug::single_step | GuestDebug::hardware_breakpoints))
			return debug_exit(s, Vector::debug, exit.qualification | dr6::fixed);

		constexpr u64 breakpoints = 0xf;

		/*
		 * "Exit Qualification for Debug Exceptions": DR6 as the exception would have set
		 * it.
		 */
		s.dr6 = (s.dr6 & ~breakpoints) |
			(exit.qualification & (breakpoints | dr6::bd | dr6::bs));
		if (s.dr7 & dr7::gd) {
			s.dr7 &= ~dr7::gd;
			s.mark_dirty(Group::dr7);
		}
		if (exit.interruption.type() ==
		    InterruptionInfo::Type::privileged_software_exception) {
			/* INT1: a trap, so that delivery has to step over it, blocking or not. */
			s.interruptibility &= ~blocking_by_sti_or_mov_ss;
			s.mark_dirty(Group::interruptibility);
			s.has_event = true;
			s.event = {.info = {exit.interruption.raw & InterruptionInfo::for_entry},
				   .error_code = 0,
				   .instruction_length = exit.instruction_length};
			return Next::resume;
		}
		if ((s.rflags & rflags::tf) && (s.interruptibility & blocking_by_sti_or_mov_ss)) {
			/* VM entry insists on the trap that such blocking has held back. */
			s.pending_debug |= dr6::bs;
			s.mark_dirty(Group::pending_debug);
		}
		return after_injection(s, s.inject(Vector::debug));
	}
	default:
		return internal_error(s, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, exit.raw_reason,
				      static_cast<u64>(exit.cpu.value));
	}
}

/* The value of the register that MOV to or from CR or DR names, as wide as the code is. */
u64 read_operand(const VcpuState &s, Gpr reg)
{
	return s.code64() ? s.gpr[reg] : static_cast<u32>(s.gpr[reg]);
}

void write_operand(VcpuState &s, Gpr reg, u64 value)
{
	s.gpr[reg] = s.code64() ? value : static_cast<u32>(value);
	if (reg == rsp)
		s.mark_dirty(Group::rsp);
}

Next handle_cr(VcpuState &s, const VcpuIdentity &identity, const Exit &exit,
	       const GuestMemory &memory)
{
	CrAccess access(exit.qualification);
	u64 old_cr8 = s.cr8;
	bool ok = false;

	switch (access.type) {
	case CrAccess::Type::mov_to: {
		u64 value = read_operand(s, access.reg);

		if (access.cr == 0)
			ok = write_cr0(s, identity, value, memory);
		else if (access.cr == 4)
			ok = write_cr4(s, identity, value, memory);
		else if (access.cr == 8 && value <= 15) {
			s.cr8 = value;
			ok = true;
		}
		break;
	}
	case CrAccess::Type::mov_from:
		if (access.cr == 8) {
			write_operand(s, access.reg, s.cr8);
			ok = true;
		}
		break;
	case CrAccess::Type::clts:
		ok = write_cr0(s, identity, s.cr0 & ~cr0::ts, memory);
		break;
	case CrAccess::Type::lmsw: {
		constexpr u64 settable = cr0::mp | cr0::em | cr0::ts;

		/* LMSW can set PE but not clear it. */
		ok = write_cr0(s, identity,
			       (s.cr0 & ~settable) | (access.lmsw_source & (settable | cr0::pe)),
			       memory);
		break;
	}
	}
	if (!ok)
		return after_injection(s, s.inject(Vector::general_protection, 0));
	s.skip_instruction(exit.instruction_length);
	if (s.cr8 < old_cr8) {
		/* User space's APIC may have an interrupt that is no longer held back. */
		s.user = {.reason = KVM_EXIT_SET_TPR, .io = {}};
		return Next::user;
	}
	return Next::resume;
}

Next handle_dr(VcpuState &s, const Exit &exit)
{
	DrAccess access(exit.qualification);

	/* Unlike that of MOV CR, this exit comes before the check of the privilege level. */
	if ((access.dr == 4 || access.dr == 5) && (s.cr4 & cr4::de))
		return after_injection(s, s.inject(Vector::invalid_opcode));
	if (s.cpl() > 0)
		return after_injection(s, s.inject(Vector::general_protection, 0));
	if (s.effective_dr7() & dr7::gd) {
		if (s.is_debugged(GuestDebug::hardware_breakpoints))
			return debug_exit(s, Vector::debug, dr6::bd | dr6::fixed);
		/*
		 * "General detect": the exit comes before the exception that the CPU would raise.
		 */
		s.dr6 |= dr6::bd;
		s.dr7 &= ~dr7::gd;
		s.mark_dirty(Group::dr7);
		return after_injection(s, s.inject(Vector::debug));
	}
	if (access.dr == 4 || access.dr == 5)
		access.dr += 2;
	if (access.from) {
		write_operand(s, access.reg,
			      access.dr < 4    ? s.dr[access.dr]
			      : access.dr == 6 ? s.dr6
					       : s.dr7);
	} else {
		u64 value = read_operand(s, access.reg);

		if (access.dr >= 4 && value >> 32)
			return after_injection(s, s.inject(Vector::general_protection, 0));
		if (access.dr < 4)
			s.dr[access.dr] = value;
		else if (access.dr == 6)
			s.dr6 = (value & dr6::writable) | dr6::fixed;
		else {
			s.dr7 = (value & dr7::writable) | dr7::fixed;
			s.mark_dirty(Group::dr7);
		}
	}
	s.skip_instruction(exit.instruction_length);
	return Next::resume;
}

/* KVM's hypercalls, of which there is none: user mode may not make any. */
Next handle_hypercall(VcpuState &s, const Exit &exit)
{
	constexpr s64 no_such_call = -1000 /* KVM_ENOSYS */, not_allowed = -1 /* KVM_EPERM */;
	u64 result = static_cast<u64>(s.cpl() > 0 ? not_allowed : no_such_call);

	write_operand(s, rax, result);
	s.skip_instruction(exit.instruction_length);
	return Next::resume;
}

} // namespace

Next internal_error(VcpuState &s, u32 suberror, u64 first, u64 second)
{
	s.user = {.reason = KVM_EXIT_INTERNAL_ERROR,
		  .internal = {.suberror = suberror, .ndata = 2, .data = {first, second}}};
	return Next::user;
}

Next handle_exit(VcpuState &s, const VcpuIdentity &identity, const Exit &exit,
		 const GuestMemory &memory)
{
	if (exit.entry_failed()) {
		s.user = {.reason = KVM_EXIT_FAIL_ENTRY,
			  .fail_entry = {.hardware_entry_failure_reason = exit.raw_reason,
					 .cpu = static_cast<u32>(exit.cpu.value)}};
		return Next::user;
	}
	deliver_again(s, exit);
	if (Next next = handle_bare(s, identity, exit); next != Next::needs_linux)
		return next;
	switch (exit.reason()) {
	case ExitReason::external_interrupt:
		return Next::resume; /* taken when interrupts were switched on */
	case ExitReason::exception_or_nmi:
		return handle_exception(s, exit);
	case ExitReason::io_instruction:
		return handle_string_io(s, exit, memory); /* the others are bare */
	case ExitReason::rdmsr:
		return handle_msr(s, identity, exit, false);
	case ExitReason::wrmsr:
		if (!paravirtual::memory_allows(static_cast<u32>(s.gpr[rcx]),
						s.gpr[rdx] << 32 | static_cast<u32>(s.gpr[rax]),
						memory))
			return after_injection(s, s.inject(Vector::general_protection, 0));
		return handle_msr(s, identity, exit, true);
	case ExitReason::control_register_access:
		return handle_cr(s, identity, exit, memory);
	case ExitReason::mov_dr:
		return handle_dr(s, exit);
	case ExitReason::interrupt_window:
		return Next::resume; /* who wanted it looks whether it is open */
	case ExitReason::page_modification_log_full:
		return Next::resume; /* it is empty by now */
	case ExitReason::hlt:
		s.skip_instruction(exit.instruction_length);
		/* As KVM: it stands at the instruction after HLT, which is what is told. */
		s.debug.step_due = false;
		s.user = {.reason = KVM_EXIT_HLT, .io = {}};
		return Next::user;
	case ExitReason::pause:
		/* Nothing else exits on PAUSE: "PAUSE exiting" is off. */
		s.skip_instruction(exit.instruction_length);
		return Next::spin;
	case ExitReason::triple_fault:
		s.user = {.reason = KVM_EXIT_SHUTDOWN, .io = {}};
		return Next::user;
	case ExitReason::rdpmc:
		return after_injection(s, s.inject(Vector::general_protection, 0));
	case ExitReason::vmcall:
		return handle_hypercall(s, exit);
	case ExitReason::getsec:
	case ExitReason::rsm:
	case ExitReason::vmclear:
	case ExitReason::vmlaunch:
	case ExitReason::vmptrld:
	case ExitReason::vmptrst:
	case ExitReason::vmread:
	case ExitReason::vmresume:
	case ExitReason::vmwrite:
	case ExitReason::vmxoff:
	case ExitReason::vmxon:
	case ExitReason::mwait:
	case ExitReason::monitor:
	case ExitReason::invept:
	case ExitReason::invvpid:
		/* CPUID does not offer them. */
		return after_injection(s, s.inject(Vector::invalid_opcode));
	default:
		return internal_error(s, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, exit.raw_reason,
				      static_cast<u64>(exit.cpu.value));
	}
}

bool write_cr0(VcpuState &s, const VcpuIdentity &identity, u64 value, const GuestMemory &memory)
{
	/* "Control Registers": what raises #GP. ET cannot be cleared. */
	value |= cr0::et;
	if (value >> 32 || ((value & cr0::nw) && !(value & cr0::cd)) ||
	    ((value & cr0::pg) && !(value & cr0::pe)))
		return false;
	value &= cr0::all;

	bool paging_on = (value & cr0::pg) && !(s.cr0 & cr0::pg);
	bool paging_off = !(value & cr0::pg) && (s.cr0 & cr0::pg);

	if (paging_on && (s.efer & efer::lme)) {
		if (!(s.cr4 & cr4::pae) || s.seg(Seg::cs).is_long())
			return false;
		s.efer |= efer::lma;
		/*
		 * In IA-32e mode VM entry accepts no TSS but a busy 64-bit one, whose type 16-bit
		 * ones lack.
		 */
		s.seg(Seg::tr).access_rights |= 0x8;
		s.mark_dirty(Group::efer | Group::segments);
	} else if ((value & cr0::pg) && (s.cr4 & cr4::pae) && !s.long_mode() &&
		   ((s.cr0 ^ value) & (cr0::pg | cr0::cd | cr0::nw))) {
		if (!load_pdptes(s, memory, identity.physical_address_bits))
			return false;
	} else if (paging_off && s.long_mode()) {
		if (s.seg(Seg::cs).is_long() || (s.cr4 & cr4::pcide))
			return false;
		s.efer &= ~efer::lma;
		s.mark_dirty(Group::efer);
	}
	if ((s.cr0 ^ value) & (cr0::pg | cr0::wp))
		s.flush_tlb = true;
	s.cr0 = value;
	s.mark_dirty(Group::cr0);
	return true;
}

bool valid_cr4(const GuestModel &model, u64 value)
{
	return !(value & ~guest_features().cr4) && !(value & cr4_by_cpuid & ~model.cr4);
}

bool write_cr4(VcpuState &s, const VcpuIdentity &identity, u64 value, const GuestMemory &memory)
{
	u64 changed = s.cr4 ^ value;

	if (!valid_cr4(s.model, value))
		return false;
	if (s.long_mode() && !(value & cr4::pae))
		return false;
	if ((changed & value & cr4::pcide) && (!s.long_mode() || (s.cr3 & 0xfff)))
		return false;

	u64 old = s.cr4;
	s.cr4 = value;
	/* "PDPTE Registers": the changes that load them. */
	if (s.pae_paging() && (changed & (cr4::pae | cr4::pse | cr4::pge | cr4::smep)) &&
	    !load_pdptes(s, memory, identity.physical_address_bits)) {
		s.cr4 = old;
		return false;
	}
	if (changed & (cr4::pae | cr4::pse | cr4::pge | cr4::pcide | cr4::smep | cr4::smap))
		s.flush_tlb = true;
	s.mark_dirty(Group::cr4);
	return true;
}

} // namespace kvmpp
