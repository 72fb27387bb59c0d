/* SPDX-License-Identifier: GPL-2.0 */
/*
 * kvmclock as the guest sees it: MSRs by which it says where it wants the time, and what it finds there
 * (Documentation/virt/kvm/x86/msr.rst of Linux).
 */
#pragma once

#include "include/kvmpp/types.hpp"

#include <atomic>

namespace kvmpp
{

namespace kvmclock
{

inline constexpr u32 wall_clock_old = 0x11, system_time_old = 0x12, wall_clock = 0x4b564d00,
		     system_time = 0x4b564d01;
/* Of CPUID 0x40000001, EAX: both pairs of MSRs, and flags that mean something. */
inline constexpr u32 cpuid_features = 1 << 0 | 1 << 3 | 1 << 24;

constexpr bool is_wall_clock(u32 index)
{
	return index == wall_clock || index == wall_clock_old;
}
constexpr bool is_system_time(u32 index)
{
	return index == system_time || index == system_time_old;
}
constexpr bool is_msr(u32 index)
{
	return is_wall_clock(index) || is_system_time(index);
}

/* In PvclockTime::flags. */
inline constexpr u8 tsc_stable = 1 << 0, guest_stopped = 1 << 1;

/* struct pvclock_vcpu_time_info. The version is odd while the rest is being changed. */
struct PvclockTime {
	u32 version = 0;
	u32 pad0 = 0;
	u64 tsc_timestamp = 0;
	u64 system_time = 0;
	u32 tsc_to_system_mul = 0;
	s8 tsc_shift = 0;
	u8 flags = 0;
	u8 pad[2] = {};
};
static_assert(sizeof(PvclockTime) == 32);

/* struct pvclock_wall_clock: when the system time was 0. */
struct PvclockWallClock {
	u32 version = 0;
	u32 sec = 0;
	u32 nsec = 0;
};

/* From ticks of the TSC to nanoseconds, as the guest does it. */
struct TscScale {
	u32 mul = 0;
	s8 shift = 0;

	static constexpr TscScale of(u64 khz)
	{
		u64 numerator = 1'000'000, denominator = khz;
		TscScale scale;

		/* Their quotient is to be from a half to 1, so that `mul` has 32 bits. */
		for (; numerator >= denominator; scale.shift++)
			denominator <<= 1;
		for (; 2 * numerator < denominator; scale.shift--)
			numerator <<= 1;
		scale.mul = static_cast<u32>((numerator << 32) / denominator);
		return scale;
	}
	constexpr u64 ns(u64 ticks) const
	{
		u64 shifted = shift < 0 ? ticks >> -shift : ticks << shift;

		return static_cast<u64>(static_cast<unsigned __int128>(shifted) * mul >> 32);
	}
};

} // namespace kvmclock

/*
 * What a vCPU's guest has asked of kvmclock. The thread that runs the vCPU sees to it before the next entry:
 * virt/clock.hpp.
 */
struct GuestClock {
	u64 system_time = 0; /* the MSR: an address, and bit 0 */
	/* The MSR that all vCPUs of the VM have in common. */
	std::atomic<u64> *wall_clock = nullptr;
	bool uses_old_msr = false;
	bool changed = false;
	bool wall_clock_changed = false;
	/* User space has stopped it for a while, and the guest is to know. */
	bool stopped = false;

	bool enabled() const { return system_time & 1; }
	u64 address() const { return system_time & ~u64{1}; }

	bool read(u32 index, u64 &value) const
	{
		if (!wall_clock || !kvmclock::is_msr(index))
			return false;
		value = kvmclock::is_wall_clock(index) ? wall_clock->load(std::memory_order_relaxed)
						       : system_time;
		return true;
	}
	bool write(u32 index, u64 value)
	{
		if (!wall_clock || !kvmclock::is_msr(index))
			return false;
		if (kvmclock::is_wall_clock(index)) {
			wall_clock->store(value, std::memory_order_relaxed);
			wall_clock_changed = true;
		} else {
			system_time = value;
			changed = true;
		}
		return true;
	}
	/* The guest itself has, which user space that sets the MSR does not tell of. */
	void note_guests_write(u32 index)
	{
		if (kvmclock::is_system_time(index))
			uses_old_msr = index == kvmclock::system_time_old;
	}
};

} // namespace kvmpp
