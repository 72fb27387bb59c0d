/* SPDX-License-Identifier: GPL-2.0 */
/*
 * MSRs of KVM's beside kvmclock's, as they are for a VM whose local APICs are in user space
 * (Documentation/virt/kvm/x86/msr.rst of Linux).
 */
#pragma once

#include "include/kvmpp/guest_memory.hpp"
#include "include/kvmpp/types.hpp"

namespace kvmpp
{

namespace paravirtual
{

inline constexpr u32 async_pf_enable = 0x4b564d02, steal_time = 0x4b564d03, pv_eoi = 0x4b564d04,
		     async_pf_interrupt = 0x4b564d06, async_pf_acknowledge = 0x4b564d07;
/* Of CPUID 0x40000001, EAX. */
inline constexpr u32 async_pf_feature = 1 << 4, steal_time_feature = 1 << 5,
		     pv_eoi_feature = 1 << 6;

/* In MSRs that are an address and this. */
inline constexpr u64 enabled = 1 << 0;

/* struct kvm_steal_time. The version is odd while the rest is being changed. */
struct StealTime {
	u64 steal = 0; /* ns that the vCPU's thread wanted to run and could not */
	u32 version = 0;
	u32 flags = 0;
	u8 preempted = 0;
	u8 pad8[3] = {};
	u32 pad[11] = {};
};
static_assert(sizeof(StealTime) == 64);

constexpr bool valid_steal_time(u64 value)
{
	constexpr u64 reserved = 0x3e;

	return !(value & reserved);
}

/* Where nobody in the kernel has an APIC, no EOI is ever left for the guest to find. */
constexpr bool valid_pv_eoi(u64 value)
{
	constexpr u64 reserved = 2;

	return !(value & reserved);
}

/* Whether @value, for MSR @index, is the address of memory if it has to be. */
inline bool memory_allows(u32 index, u64 value, const GuestMemory &memory)
{
	return index != pv_eoi || !(value & enabled) || memory.takes_writes({value & ~enabled});
}

} // namespace paravirtual

/* What a vCPU's guest has asked of them. */
struct GuestParavirtual {
	u64 pv_eoi = 0;
	u64 steal_time = 0;
	/* It is to be told of the time before the next entry: virt/steal_time.hpp. */
	bool steal_due = false;
	/* The last exit was for an interrupt of the host's: nothing is half done. */
	bool between_instructions = false;

	bool wants_steal_time() const { return steal_time & paravirtual::enabled; }
};

} // namespace kvmpp
