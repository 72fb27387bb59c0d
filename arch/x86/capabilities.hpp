/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What this CPU's VMX can do, and the controls that the module runs guests with. The decision is a
 * function of the registers' values, so that every refusal is a host test.
 */
#pragma once

#include "controls.hpp"
#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"

namespace kvmpp
{

class OnCpu;

/* The registers that say what VMX can do. A register that does not exist reads 0. */
struct VmxRegisters {
	bool cpuid_vmx = false;
	u64 feature_control = 0;
	u64 basic = 0;
	u64 pin = 0;
	u64 primary = 0;
	u64 secondary = 0;
	u64 exit = 0;
	u64 entry = 0;
	u64 ept_vpid = 0;
	u64 misc = 0;
	u32 cpu_signature = 0; /* family, model, stepping: CPUID.1:EAX */
	u64 cr0_fixed0 = 0;
	u64 cr4_fixed0 = 0;
	u64 host_cr4 = 0;

	/* Of the CPU it runs on. */
	static VmxRegisters read(const OnCpu &);
};

struct VmxConfig {
	u32 revision = 0;
	u32 pin = 0;
	u32 primary = 0;
	u32 secondary = 0;
	u32 exit = 0;
	u32 entry = 0;
	/* Bits that a guest's CR0 and CR4 must have set in VMX operation, less PE and PG. */
	u64 cr0_must_be_set = 0;
	u64 cr4_must_be_set = 0;
	/* Sizes of pages that EPT entries can have, beyond 4 KiB. */
	bool ept_2m = false, ept_1g = false;
	/* They have accessed and dirty bits. */
	bool ept_accessed = false;
	/* The VMX-preemption timer counts each time that this bit of the TSC changes. */
	u8 preemption_timer_bit = 0;

	bool operator==(const VmxConfig &) const = default;
	bool has_rdtscp() const { return secondary & secondary::enable_rdtscp; }
	int largest_page_level() const { return ept_2m ? ept_1g ? 3 : 2 : 1; }
	bool has_invpcid() const { return secondary & secondary::enable_invpcid; }
	bool has_pml() const { return secondary & secondary::enable_pml; }
	bool has_preemption_timer() const { return pin & pin::preemption_timer; }
};

/* Why a CPU is refused: one line for the log. */
struct Refusal {
	Errno error;
	const char *reason;
};

/*
 * Something that guests need and @registers lack, for the log; null when there is no more. @next is 0
 * at first and counts on, so that tools/kvmpp can tell all that is lacking.
 */
const char *vmx_lacks(const VmxRegisters &registers, unsigned &next);

/* The controls for @registers, or why there are none: @refusal is then set. */
bool vmx_configure(const VmxRegisters &registers, VmxConfig &config, Refusal &refusal);

} // namespace kvmpp
