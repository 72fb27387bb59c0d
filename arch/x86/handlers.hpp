/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What happens after a VM exit. A handler sees the exit's record, the vCPU's state and the guest's
 * memory; it never touches the VMCS. Context: the vCPU's thread, its mutex held, the memory slots
 * kept in place by the caller; may sleep.
 */
#pragma once

#include "exit.hpp"
#include "include/kvmpp/guest_memory.hpp"
#include "vcpu_state.hpp"

namespace kvmpp
{

enum class Next {
	resume,      /* enter the guest again */
	user,        /* return to user space with VcpuState::user */
	spin,        /* it spins: its CPU may go to another of the VM; then enter again */
	needs_linux, /* handle_bare() only: it is for handle_exit(), and nothing was done */
};

/* A vCPU's part that handlers need and never change. */
struct VcpuIdentity {
	u32 id;
	unsigned physical_address_bits;
};

/* Needs what exit_state() names. */
Next handle_exit(VcpuState &state, const VcpuIdentity &identity, const Exit &exit,
		 const GuestMemory &memory);

/*
 * Those of them that need neither Linux nor the guest's memory, and run on a CPU that Linux does not
 * have.
 */
Next handle_bare(VcpuState &state, const VcpuIdentity &identity, const Exit &exit);

/* RDMSR or WRMSR, whichever it is of. */
Next handle_msr(VcpuState &state, const VcpuIdentity &identity, const Exit &exit, bool write);

/*
 * The instruction at RIP accesses memory that is not RAM: user space is to do it. Needs emulation_state.
 * @exit is an EPT violation.
 */
Next emulate_mmio(VcpuState &state, const Exit &exit, const GuestMemory &memory);

/* INS or OUTS. Needs emulation_state. */
Next handle_string_io(VcpuState &state, const Exit &exit, const GuestMemory &memory);

/*
 * User space has done the access that VcpuState::pending names; @data holds what it read. Which of the two
 * PendingAccess::needs_memory() says; they need emulation_state and skip_state.
 */
Next complete_in_memory(VcpuState &state, const GuestMemory &memory, const u8 (&data)[8]);
Next complete_in_registers(VcpuState &state, const u8 (&data)[8]);

/* RDMSR and WRMSR. False is #GP for the guest, and nothing changed. */
bool read_msr(const VcpuState &state, u32 index, By by, u64 &value);
bool write_msr(VcpuState &state, u32 index, By by, u64 value);
/* IA32_APIC_BASE as it may be for the guest, from whatever it was; and with what changes it may make. */
bool valid_apic_base(const GuestModel &model, u64 value);
bool write_apic_base(VcpuState &state, u64 value, By by);

/* Values as MOV to CR0 and CR4 and XSETBV take them. False is #GP, and nothing changed. */
bool write_cr0(VcpuState &state, const VcpuIdentity &identity, u64 value,
	       const GuestMemory &memory);
bool write_cr4(VcpuState &state, const VcpuIdentity &identity, u64 value,
	       const GuestMemory &memory);
bool write_xcr0(VcpuState &state, u64 value);
/* Whether the guest has all the bits of CR4 that are set. */
bool valid_cr4(const GuestModel &model, u64 value);

/* KVM_EXIT_INTERNAL_ERROR with @suberror and up to two numbers. */
Next internal_error(VcpuState &state, u32 suberror, u64 first = 0, u64 second = 0);

/* Next::resume where @injected, and a shutdown where the fault was the third in a row. */
Next after_injection(VcpuState &state, bool injected);

} // namespace kvmpp
