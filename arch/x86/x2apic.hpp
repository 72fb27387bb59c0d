/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The local APIC of a guest on a CPU of its own. There the guest has the CPU's real one, in x2APIC mode
 * ("Extended XAPIC (x2APIC)"): most of its MSRs are read and written without an exit. Intercepted are
 * those by which a guest could reach, or be told of, what is not its own: the ICR, which is translated
 * to the CPUs of its VM; the ids; and the entries of the LVT that take SMI, NMI and INIT.
 */
#pragma once

#include "handlers.hpp"
#include "include/kvmpp/nospec.hpp"
#include "include/kvmpp/types.hpp"
#include "vcpu_state.hpp"

#include <atomic>

namespace kvmpp
{

namespace x2apic
{
inline constexpr u32 first = 0x800, id = 0x802, tpr = 0x808, eoi = 0x80b, ldr = 0x80d, svr = 0x80f,
		     isr = 0x810, irr = 0x820, esr = 0x828, lvt_cmci = 0x82f, icr = 0x830,
		     lvt_timer = 0x832, lvt_thermal = 0x833, lvt_performance = 0x834,
		     lvt_lint0 = 0x835, lvt_lint1 = 0x836, lvt_error = 0x837, initial_count = 0x838,
		     current_count = 0x839, divide = 0x83e, self_ipi = 0x83f, last = 0x8ff;

constexpr bool is_msr(u32 index)
{
	return index >= first && index <= last;
}
} // namespace x2apic

namespace apic_base_bit
{
inline constexpr u64 bsp = 1 << 8, extended = 1 << 10, enabled = 1 << 11;
}

/*
 * Which CPU each vCPU of a VM has for its own, by the vCPU's id. Written by who dedicates and releases,
 * read by the CPUs themselves.
 */
class ApicMap
{
public:
	static constexpr u32 max_vcpus = 1024;

	/* There is such a vCPU, without a CPU of its own; or there is none. */
	void set_shared(u32 vcpu)
	{
		at_[vcpu].store(shared, std::memory_order_seq_cst);
		u32 seen = end_.load(std::memory_order_relaxed);
		while (seen <= vcpu &&
		       !end_.compare_exchange_weak(seen, vcpu + 1, std::memory_order_seq_cst))
			;
	}
	void set_none(u32 vcpu) { at_[vcpu].store(none, std::memory_order_seq_cst); }
	/* It has the CPU with that APIC id, and its APIC. */
	void set_own(u32 vcpu, u32 apic_id)
	{
		at_[vcpu].store(apic_id + first_own, std::memory_order_seq_cst);
	}

	/* Above the highest id that there has been. */
	u32 end() const { return end_.load(std::memory_order_seq_cst); }
	bool has(u32 vcpu) const { return load(vcpu) != none; }
	/* Whether it has one; then also its APIC id. */
	bool own(u32 vcpu, u32 &apic_id) const
	{
		u32 value = load(vcpu);

		apic_id = value - first_own;
		return value >= first_own;
	}

private:
	static constexpr u32 none = 0, shared = 1, first_own = 2;

	u32 load(u32 vcpu) const
	{
		return at_[array_index_nospec(vcpu, max_vcpus)].load(std::memory_order_seq_cst);
	}

	std::atomic<u32> at_[max_vcpus] = {};
	std::atomic<u32> end_{0};
};

/*
 * RDMSR and WRMSR of x2APIC's range that exit. Next::resume with the instruction done, Next::user with
 * what user space or an APIC in the kernel is to do, or #GP. Nothing of Linux is needed.
 */
Next read_x2apic(VcpuState &state, const VcpuIdentity &identity, u32 index, u32 length);
Next write_x2apic(VcpuState &state, const VcpuIdentity &identity, u32 index, u64 value, u32 length);

/* RDMSR or WRMSR of one that user space is to do, or who in the kernel has the APIC. */
Next leave_msr(VcpuState &state, u32 index, bool write, u64 value, u32 length);

/* Takes those that the guest has for its own out of what exits. @bitmap is as the VMCS has it. */
void allow_x2apic(u8 *bitmap);
/* "MSR-Bitmap Address": reads or writes of @msr do not exit. */
void allow_msr(u8 *bitmap, u32 msr, bool read, bool write);

/*
 * The APIC of this CPU becomes the guest's, as it was left the last time. And back: what the guest leaves
 * it with. In x2APIC mode, interrupts off.
 */
void load_x2apic(const LocalApic::Registers &registers);
void save_x2apic(LocalApic::Registers &registers);

} // namespace kvmpp
