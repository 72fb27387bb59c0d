// SPDX-License-Identifier: GPL-2.0
/* Handlers of exits that need nothing of Linux: they run on dedicated CPUs as well. */
#include "cpuid_table.hpp"
#include "handlers.hpp"
#include "x2apic.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

namespace
{

void write_gpr32(VcpuState &s, Gpr reg, u32 value)
{
	s.gpr[reg] = value; /* the upper half is cleared */
}

Next handle_cpuid(VcpuState &s, const Exit &exit)
{
	insn::CpuidResult r{};

	if (s.cpuid)
		r = s.cpuid->ask(s, static_cast<u32>(s.gpr[rax]), static_cast<u32>(s.gpr[rcx]));

	write_gpr32(s, rax, r.eax);
	write_gpr32(s, rbx, r.ebx);
	write_gpr32(s, rcx, r.ecx);
	write_gpr32(s, rdx, r.edx);
	s.skip_instruction(exit.instruction_length);
	return Next::resume;
}

/*
 * Such that its thread has something to do before the guest goes on, in the guest's memory: see VmClock,
 * StealTime and handle_exit().
 */
bool is_msr_for_thread(const VcpuState &s, u32 index, bool write)
{
	/* An APIC in the kernel follows it. */
	if (write && index == msr::apic_base && s.apic.in_kernel)
		return true;
	return kvmclock::is_msr(index) ||
	       (write && (index == msr::tsc || index == msr::tsc_adjust ||
			  index == paravirtual::steal_time || index == paravirtual::pv_eoi));
}

Next handle_xsetbv(VcpuState &s, const Exit &exit)
{
	if (s.cpl() > 0 || static_cast<u32>(s.gpr[rcx]) != 0 ||
	    !write_xcr0(s, s.gpr[rdx] << 32 | static_cast<u32>(s.gpr[rax])))
		return after_injection(s, s.inject(Vector::general_protection, 0));
	s.skip_instruction(exit.instruction_length);
	return Next::resume;
}

/* IN or OUT: user space is to do it, or a device in the kernel. */
Next handle_port_io(VcpuState &s, const Exit &exit, const IoAccess &access)
{
	s.user.reason = KVM_EXIT_IO;
	s.user.io = {.direction = static_cast<u8>(access.in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT),
		     .size = access.size,
		     .port = access.port,
		     .string_count = 0,
		     .data = {}};
	for (unsigned i = 0; !access.in && i < access.size; i++)
		s.user.io.data[i] = static_cast<u8>(s.gpr[rax] >> (8 * i));
	s.pending.kind = access.in ? PendingAccess::Kind::port_in : PendingAccess::Kind::port_out;
	s.pending.size = access.size;
	s.pending.rip = s.rip;
	s.pending.instruction_length = static_cast<u8>(exit.instruction_length);
	return Next::user;
}

} // namespace

Next handle_msr(VcpuState &s, const VcpuIdentity &identity, const Exit &exit, bool write)
{
	u32 index = static_cast<u32>(s.gpr[rcx]);
	u64 written = s.gpr[rdx] << 32 | static_cast<u32>(s.gpr[rax]);
	bool ok;

	if (index == msr::tsc_deadline && s.apic.in_kernel)
		return leave_msr(s, index, write, written, exit.instruction_length);
	if (x2apic::is_msr(index))
		return write ? write_x2apic(s, identity, index, written, exit.instruction_length)
			     : read_x2apic(s, identity, index, exit.instruction_length);
	if (write) {
		ok = write_msr(s, index, By::guest, written);
	} else {
		u64 value = 0;

		ok = read_msr(s, index, By::guest, value);
		if (ok) {
			write_gpr32(s, rax, static_cast<u32>(value));
			write_gpr32(s, rdx, static_cast<u32>(value >> 32));
		}
	}
	if (!ok)
		return after_injection(s, s.inject(Vector::general_protection, 0));
	if (write)
		s.clock.note_guests_write(index);
	s.skip_instruction(exit.instruction_length);
	return Next::resume;
}

Next after_injection(VcpuState &s, bool injected)
{
	if (injected)
		return Next::resume;
	s.user = {.reason = KVM_EXIT_SHUTDOWN, .io = {}};
	return Next::user;
}

bool write_xcr0(VcpuState &s, u64 value)
{
	constexpr u64 x87 = 1, sse = 2, avx = 4;

	if (!(value & x87) || ((value & avx) && !(value & sse)) || (value & ~(s.model.xcr0 | x87)))
		return false;
	s.xcr0 = value;
	return true;
}

bool handle_bare(VcpuState &s, const VcpuIdentity &identity, const Exit &exit, Next &next)
{
	switch (exit.reason()) {
	case ExitReason::cpuid:
		next = handle_cpuid(s, exit);
		return true;
	case ExitReason::rdmsr:
	case ExitReason::wrmsr: {
		bool write = exit.reason() == ExitReason::wrmsr;

		if (is_msr_for_thread(s, static_cast<u32>(s.gpr[rcx]), write))
			return false;
		next = handle_msr(s, identity, exit, write);
		return true;
	}
	case ExitReason::io_instruction: {
		IoAccess access(exit.qualification);

		if (access.string)
			return false;
		next = handle_port_io(s, exit, access);
		return true;
	}
	case ExitReason::xsetbv:
		next = handle_xsetbv(s, exit);
		return true;
	case ExitReason::invd:
	case ExitReason::wbinvd:
		/*
		 * Guest memory is coherent: there is nothing to write back, and INVD must not lose
		 * it.
		 */
		s.skip_instruction(exit.instruction_length);
		next = Next::resume;
		return true;
	case ExitReason::nmi_window:
		/* The next entry delivers it. */
		next = Next::resume;
		return true;
	default:
		return false;
	}
}

} // namespace kvmpp
