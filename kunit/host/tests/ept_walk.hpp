/* SPDX-License-Identifier: GPL-2.0 */
/* Extended page tables as the CPU walks them. */
#pragma once

#include "include/kvmpp/types.hpp"

#include <gtest/gtest.h>

namespace kvmpp::host
{

/* The leaf for @guest_phys, of any size, or 0. */
inline u64 ept_entry(u64 ept_pointer, u64 guest_phys)
{
	constexpr u64 address_field = 0x000ffffffffff000;
	u64 table = ept_pointer & address_field;

	for (int level = 4;; level--) {
		u64 index = (guest_phys >> (12 + 9 * (level - 1))) & 0x1ff;
		u64 entry = reinterpret_cast<u64 *>(table)[index];

		if (level == 1 || !(entry & 7) || (entry & 0x80))
			return entry;
		EXPECT_EQ(entry & 0xfff, 7u) << "a table grants all, and has no other bit";
		table = entry & address_field;
	}
}

} // namespace kvmpp::host
