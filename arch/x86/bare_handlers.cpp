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

[[gnu::always_inline]] inline Next end_cpuid(VcpuState &s, const Exit &exit,
					     const insn::CpuidResult &r)
{
	write_gpr32(s, rax, r.eax);
	write_gpr32(s, rbx, r.ebx);
	write_gpr32(s, rcx, r.ecx);
	write_gpr32(s, rdx, r.edx);
	s.skip_instruction(exit.instruction_length);
	return Next::resume;
}

[[gnu::noinline]] Next handle_other_cpuid(VcpuState &s, const Exit &exit)
{
	return end_cpuid(
		s, exit,
		s.cpuid->ask(s, static_cast<u32>(s.gpr[rax]), static_cast<u32>(s.gpr[rcx])));
}

/* Not inline, as others are not: handle_bare() has nothing to save for them. */
[[gnu::noinline]] Next handle_cpuid(VcpuState &s, const Exit &exit)
{
	insn::CpuidResult r;

	if (!s.cpuid->ask_constant(static_cast<u32>(s.gpr[rax]), static_cast<u32>(s.gpr[rcx]), r))
		return handle_other_cpuid(s, exit);
	return end_cpuid(s, exit, r);
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

[[gnu::noinline]] Next handle_bare_msr(VcpuState &s, const VcpuIdentity &identity, const Exit &exit,
				       bool write)
{
	if (is_msr_for_thread(s, static_cast<u32>(s.gpr[rcx]), write))
		return Next::needs_linux;
	return handle_msr(s, identity, exit, write);
}

/* Guest memory is coherent: there is nothing to write back, and INVD must not lose it. */
[[gnu::noinline]] Next handle_wbinvd(VcpuState &s, const Exit &exit)
{
	s.skip_instruction(exit.instruction_length);
	return Next::resume;
}

[[gnu::noinline]] Next handle_xsetbv(VcpuState &s, const Exit &exit)
{
	if (s.cpl() > 0 || static_cast<u32>(s.gpr[rcx]) != 0 ||
	    !write_xcr0(s, s.gpr[rdx] << 32 | static_cast<u32>(s.gpr[rax])))
		return after_injection(s, s.inject(Vector::general_protection, 0));
	s.skip_instruction(exit.instruction_length);
	return Next::resume;
}

/* IN or OUT: user space is to do it, or a device in the kernel. */
[[gnu::noinline]] Next handle_port_io(VcpuState &s, const Exit &exit)
{
	const IoAccess access(exit.qualification);

	if (access.string)
		return Next::needs_linux;
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
	s.cpu_registers_dirty = true;
	return true;
}

Next handle_bare(VcpuState &s, const VcpuIdentity &identity, const Exit &exit)
{
	switch (exit.reason()) {
	case ExitReason::cpuid:
		return handle_cpuid(s, exit);
	case ExitReason::rdmsr:
		return handle_bare_msr(s, identity, exit, false);
	case ExitReason::wrmsr:
		return handle_bare_msr(s, identity, exit, true);
	case ExitReason::io_instruction:
		return handle_port_io(s, exit);
	case ExitReason::xsetbv:
		return handle_xsetbv(s, exit);
	case ExitReason::invd:
	case ExitReason::wbinvd:
		return handle_wbinvd(s, exit);
	case ExitReason::nmi_window:
		/* The next entry delivers it. */
		return Next::resume;
	default:
		return Next::needs_linux;
	}
}

} // namespace kvmpp
