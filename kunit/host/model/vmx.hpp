/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VMX as the processors of the model have it: what each VMCS and each CPU is in, and a violation for
 * what hardware punishes or silently corrupts. A fault or VMfail that the instruction reports is no
 * violation by itself: the module is to handle it.
 */
#pragma once

#include "arch/x86/capabilities.hpp"
#include "arch/x86/vcpu_state.hpp"
#include "cpus.hpp"
#include "include/kvmpp/types.hpp"

#include <functional>
#include <map>
#include <set>
#include <vector>

namespace kvmpp::host
{

struct Vmcs {
	int active_on = -1;
	bool cleared = false; /* VMCLEAR has initialised it */
	bool launched = false;
	std::map<u32, u64> fields;
};

struct Invalidation {
	int cpu;
	bool vpid; /* INVVPID, else INVEPT */
	insn::Invalidate type;
	u64 what; /* EPT pointer or VPID */

	bool operator==(const Invalidation &) const = default;
};

struct Processor {
	static constexpr u64 no_vmcs = ~u64{0};

	bool vmxe = false; /* CR4.VMXE */
	bool vmxe_is_ours = false;
	bool vmx = false; /* in VMX operation */
	bool pt_knows = false;
	u64 vmxon_region = 0;
	u64 current = no_vmcs;
	std::map<u32, u64> msrs;
	u64 cr2 = 0;
	u64 xcr0 = 7;
	u64 dr[4] = {};
	u64 cr4 = 0, gdt_base = 0;
	/* The first bytes of the FPU state, as a dedicated CPU has it loaded. */
	u64 fpu = 0;
	u64 debugctl = 2;
	/* The next VMXON, VMCLEAR, VMPTRLD fails. */
	bool fail_vmxon = false, fail_vmclear = false, fail_vmptrld = false;
};

/* Called before and after each VMXON, VMXOFF, VMCLEAR and VMPTRLD: an NMI may come there. */
void at_vmx_instructions(std::function<void()> function);

/* Everything as after power-on: full capabilities, VMX off everywhere. */
void reset_vmx();

Processor &processor(int cpu);
inline Processor &here()
{
	return processor(this_cpu());
}
/* The VMCS in the memory at @address, made when first asked for. */
Vmcs &vmcs_at(u64 address);
unsigned active_vmcss(int cpu);
std::vector<Invalidation> take_invalidations();
/* Fields that this processor lacks: VMREAD and VMWRITE fail. */
std::set<u32> &missing_fields();
/* The memory is given back: it must hold neither a VMXON region in use nor an active VMCS. */
void memory_freed(u64 address, u64 bytes);

using CpuidTable = std::map<std::pair<u32, u32>, insn::CpuidResult>;
CpuidTable &cpuid_table();
/* Linux wants to hear of split locks in guests, and at which RIPs it did. */
void set_split_lock_detection(bool on);
std::vector<u64> take_split_locks();
void set_tsc(u64 value);

/* A processor that has all that the module asks for, as in the registers' tables of the manual. */
VmxRegisters capable_registers();
/* Makes all CPUs, or one, read those. */
void set_registers(int cpu, const VmxRegisters &registers);

/*
 * What the guest does when it is entered: called with the current VMCS and the guest's registers, it
 * fills in the exit's fields. True is VMfail.
 */
using Guest = std::function<bool(Vmcs &vmcs, u64 *gprs)>;
void set_guest(Guest guest);
bool enter_guest(kvmpp_gprs &gprs, bool launched);

} // namespace kvmpp::host
