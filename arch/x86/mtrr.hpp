/* SPDX-License-Identifier: GPL-2.0 */
/*
 * "Memory Type Range Registers" as a guest's MSRs: kept, checked, and without effect. EPT gives guest
 * memory the type that the host has it in.
 */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp
{

class Mtrrs
{
public:
	static constexpr unsigned variable_count = 8;
	/* IA32_MTRRCAP: write-combining, fixed ranges, and how many variable ones. */
	static constexpr u64 capabilities = 1 << 10 | 1 << 8 | variable_count;

	/* False: @index is none of them, or @value is not for it. */
	bool read(u32 index, unsigned physical_address_bits, u64 &value) const;
	bool write(u32 index, unsigned physical_address_bits, u64 value);

private:
	static constexpr unsigned fixed_count = 11;

	/* Bases and masks in turn, as their MSRs are. */
	u64 variable_[2 * variable_count] = {};
	u64 fixed_[fixed_count] = {};
	u64 default_type_ = 0;
};

/* "Memory Types That Can Be Encoded With PAT" */
bool valid_pat(u64 value);

} // namespace kvmpp
