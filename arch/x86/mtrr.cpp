// SPDX-License-Identifier: GPL-2.0
#include "mtrr.hpp"

#include "include/kvmpp/nospec.hpp"
#include "x86.hpp"

namespace kvmpp
{

namespace
{

constexpr u32 first_variable = 0x200, default_type = 0x2ff;

/* "Memory Types That Can Be Encoded in MTRRs": UC, WC, WT, WP, WB. */
bool valid_type(u8 type)
{
	return type < 8 && (1 << type & 0x73);
}

/* Which of the fixed-range registers, in the order of addresses; fixed_count and above: none. */
unsigned fixed_number(u32 index)
{
	if (index == 0x250) /* 64 KiB each */
		return 0;
	if (index == 0x258 || index == 0x259) /* 16 KiB */
		return 1 + (index & 1);
	if (index >= 0x268 && index <= 0x26f) /* 4 KiB */
		return 3 + (index & 7);
	return ~0u;
}

} // namespace

bool valid_pat(u64 value)
{
	for (int i = 0; i < 8; i++, value >>= 8) {
		u8 type = value & 0xff;

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

bool Mtrrs::read(u32 index, unsigned physical_address_bits, u64 &value) const
{
	if (unsigned n = index - first_variable; n < 2 * variable_count)
		value = variable_[n % (2 * variable_count)] & low_bits(physical_address_bits);
	else if (unsigned fixed = fixed_number(index); fixed < fixed_count)
		value = fixed_[array_index_nospec(fixed, fixed_count)];
	else if (index == default_type)
		value = default_type_;
	else
		return false;
	return true;
}

bool Mtrrs::write(u32 index, unsigned physical_address_bits, u64 value)
{
	if (unsigned n = index - first_variable; n < 2 * variable_count) {
		bool is_mask = n & 1;

		if (value & (~low_bits(physical_address_bits) | (is_mask ? 0x7ff : 0xf00)))
			return false;
		if (!is_mask && !valid_type(value & 0xff))
			return false;
		variable_[n % (2 * variable_count)] = value;
	} else if (unsigned fixed = fixed_number(index); fixed < fixed_count) {
		for (int i = 0; i < 8; i++)
			if (!valid_type(value >> (8 * i) & 0xff))
				return false;
		fixed_[array_index_nospec(fixed, fixed_count)] = value;
	} else if (index == default_type) {
		constexpr u64 enabled = 1 << 11, fixed_enabled = 1 << 10;

		if ((value & ~(enabled | fixed_enabled | 0xff)) || !valid_type(value & 0xff))
			return false;
		default_type_ = value;
	} else {
		return false;
	}
	return true;
}

} // namespace kvmpp
