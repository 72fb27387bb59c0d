// SPDX-License-Identifier: GPL-2.0
#include "alu.hpp"

namespace kvmpp
{

namespace
{

constexpr u64 arithmetic_flags =
	rflags::cf | rflags::pf | rflags::af | rflags::zf | rflags::sf | rflags::of;

/* PF, ZF, SF of @value, which has no bits above @size bytes. */
u64 result_flags(unsigned size, u64 value)
{
	return (__builtin_parity(value & 0xff) ? 0 : rflags::pf) | (value == 0 ? rflags::zf : 0) |
	       (value >> (8 * size - 1) ? rflags::sf : 0);
}

/*
 * All six flags. @carries has a bit for each position that a carry or borrow came out of,
 * @overflow the operands' and the result's signs disagreeing in its top bit.
 */
u64 sum_flags(unsigned size, u64 value, u64 carries, u64 overflow)
{
	unsigned top = 8 * size - 1;

	return result_flags(size, value) | ((carries >> top) & 1 ? rflags::cf : 0) |
	       ((carries >> 3) & 1 ? rflags::af : 0) | ((overflow >> top) & 1 ? rflags::of : 0);
}

AluResult sum(unsigned size, u64 a, u64 b, u64 carry)
{
	u64 value = (a + b + carry) & low_bits(8 * size);

	return {value,
		sum_flags(size, value, (a & b) | ((a | b) & ~value), (a ^ value) & (b ^ value))};
}

AluResult difference(unsigned size, u64 a, u64 b, u64 borrow)
{
	u64 value = (a - b - borrow) & low_bits(8 * size);

	return {value,
		sum_flags(size, value, (~a & b) | ((~a | b) & value), (a ^ b) & (a ^ value))};
}

AluResult logical(unsigned size, u64 value)
{
	return {value, result_flags(size, value)};
}

} // namespace

AluResult alu(Operation operation, unsigned size, u64 a, u64 b, u64 old)
{
	u64 mask = low_bits(8 * size);
	u64 carry = old & rflags::cf ? 1 : 0;
	u64 changed = arithmetic_flags;
	u64 bit = u64{1} << (b & (8 * size - 1));
	AluResult r = {};

	a &= mask;
	b &= mask;
	switch (operation) {
	case Operation::add:
		r = sum(size, a, b, 0);
		break;
	case Operation::adc:
		r = sum(size, a, b, carry);
		break;
	case Operation::sub:
	case Operation::cmp:
		r = difference(size, a, b, 0);
		break;
	case Operation::sbb:
		r = difference(size, a, b, carry);
		break;
	case Operation::neg:
		r = difference(size, 0, a, 0);
		break;
	case Operation::inc:
		r = sum(size, a, 1, 0);
		changed &= ~rflags::cf;
		break;
	case Operation::dec:
		r = difference(size, a, 1, 0);
		changed &= ~rflags::cf;
		break;
	case Operation::and_:
	case Operation::test:
		r = logical(size, a & b);
		break;
	case Operation::or_:
		r = logical(size, a | b);
		break;
	case Operation::xor_:
		r = logical(size, a ^ b);
		break;
	case Operation::not_:
		r.value = ~a & mask;
		changed = 0;
		break;
	case Operation::bt:
	case Operation::bts:
	case Operation::btr:
	case Operation::btc:
		r.value = operation == Operation::bts   ? a | bit
			  : operation == Operation::btr ? a & ~bit
			  : operation == Operation::btc ? a ^ bit
							: a;
		r.rflags = a & bit ? rflags::cf : 0;
		changed = rflags::cf;
		break;
	default:
		return {a, old};
	}
	return {r.value, (old & ~changed) | (r.rflags & changed)};
}

} // namespace kvmpp
