/* SPDX-License-Identifier: GPL-2.0 */
/* Integers by width, and the addresses and numbers that must not be mixed up. */
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace kvmpp
{

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;

inline constexpr unsigned page_shift = 12;
inline constexpr u64 page_size = u64{1} << page_shift;
inline constexpr u64 page_mask = ~(page_size - 1);

/* A 64-bit number of one kind. Kinds neither mix nor convert silently. */
template <class Tag> struct Address {
	u64 value = 0;

	constexpr u64 frame() const { return value >> page_shift; }
	constexpr u64 page_offset() const { return value & ~page_mask; }
	constexpr Address operator+(u64 bytes) const { return {value + bytes}; }
	constexpr auto operator<=>(const Address &) const = default;
};

using HostPhys = Address<struct HostPhysTag>;   /* what the CPU's bus sees */
using GuestPhys = Address<struct GuestPhysTag>; /* before EPT */
using GuestLinear = Address<struct GuestLinearTag>;
using UserAddress = Address<struct UserAddressTag>; /* in the VMM's address space */

/* Linux's number of a logical CPU. */
struct CpuId {
	int value = -1;

	constexpr bool is_none() const { return value < 0; }
	constexpr bool operator==(const CpuId &) const = default;
};

} // namespace kvmpp
