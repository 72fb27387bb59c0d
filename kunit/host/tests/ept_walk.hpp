/* SPDX-License-Identifier: GPL-2.0 */
/* Extended page tables as the CPU walks them. */
#pragma once

#include "include/kvmpp/types.hpp"

#include <gtest/gtest.h>

namespace kvmpp::host
{

/* Accessed and dirty; and what software has of a leaf. */
inline constexpr u64 ept_accessed = 1 << 8, ept_dirty = 1 << 9;
inline constexpr u64 ept_host_writable = u64{1} << 52, ept_mmu_writable = u64{1} << 53,
		     ept_kept = u64{5} << 54, ept_software = u64{0x1f} << 52;

/* The leaf for @guest_phys, of any size, or 0. */
inline u64 ept_whole_entry(u64 ept_pointer, u64 guest_phys)
{
	constexpr u64 address_field = 0x000ffffffffff000;
	u64 table = ept_pointer & address_field;

	for (int level = 4;; level--) {
		u64 index = (guest_phys >> (12 + 9 * (level - 1))) & 0x1ff;
		u64 entry = reinterpret_cast<u64 *>(table)[index];

		if (level == 1 || !(entry & 7) || (entry & 0x80))
			return entry;
		EXPECT_EQ(entry & ~address_field, 7u | ept_accessed)
			<< "a table grants all, and has no other bit";
		table = entry & address_field;
	}
}

/* What of it decides where the CPU goes, and what it may do there. */
inline u64 ept_entry(u64 ept_pointer, u64 guest_phys)
{
	return ept_whole_entry(ept_pointer, guest_phys) &
	       ~(ept_accessed | ept_dirty | ept_software);
}

} // namespace kvmpp::host
