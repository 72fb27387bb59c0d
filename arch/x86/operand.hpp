/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Operands of instructions that the host carries out: parts of registers, and memory from its
 * segment down to guest-physical pieces. Memory functions need emulation_state.
 */
#pragma once

#include "include/kvmpp/guest_memory.hpp"
#include "instruction.hpp"
#include "vcpu_state.hpp"

#include <cstring>

namespace kvmpp
{

inline u64 load_bytes(const u8 *from, unsigned size)
{
	u64 value = 0;

	std::memcpy(&value, from, size);
	return value;
}

inline u64 read_register(const VcpuState &s, const Operand &reg)
{
	u64 value = s.gpr[reg.reg];

	return (reg.high_byte ? value >> 8 : value) & low_bits(8 * reg.size);
}
/* Writes as instructions do: 4 bytes clear the register's upper half. */
void write_register(VcpuState &state, const Operand &reg, u64 value);
void write_register(VcpuState &state, u8 reg, unsigned size, u64 value);

/* Linear addresses have 32 bits but in 64-bit code: what goes past 4 GiB begins anew at 0. */
inline GuestLinear linear_address(const VcpuState &s, u64 value)
{
	return {s.code64() ? value : static_cast<u32>(value)};
}

/* The address within the segment, cut to the address size. @length is the instruction's. */
inline u64 effective_address(const VcpuState &s, const MemoryOperand &m, u32 length)
{
	u64 address = static_cast<u64>(m.displacement);

	if (m.base != MemoryOperand::no_register)
		address += s.gpr[m.base];
	if (m.index != MemoryOperand::no_register)
		address += s.gpr[m.index] * m.scale;
	if (m.rip_relative)
		address += s.rip + length;
	return address & low_bits(8 * m.address_size);
}

/* What is added to the segment's offsets. */
inline u64 segment_base(const VcpuState &s, Seg segment)
{
	bool has_base = !s.code64() || segment == Seg::fs || segment == Seg::gs;

	return has_base ? s.seg(segment).base : 0;
}

/* How an access to memory ended, when it did not do what was asked. */
struct Fault {
	enum class Kind : u8 {
		none,
		protection, /* #SS(0) or #GP(0): the segment, or an address that is not canonical */
		page,
		failed, /* no RAM where there must be: it cannot be emulated */
	};

	Kind kind = Kind::none;
	Seg segment = Seg::ds;
	u32 error_code = 0;
	GuestLinear linear = {};

	explicit operator bool() const { return kind != Kind::none; }
};

/* Where the operand is: in one page, or two that need not be neighbours. */
struct Place {
	struct Piece {
		GuestPhys address;
		u8 offset, length;
		bool device;
	};

	/* The first count; not cleared. */
	union {
		Piece pieces[2];
	};
	u8 count = 0;
	bool has_device = false;

	Place() {}
};

/* A page that the CPU has translated for the instruction, with the rights that this takes. */
struct TranslatedPage {
	GuestLinear linear = {};
	GuestPhys phys = {};
	bool valid = false;
	bool for_write = false;

	bool covers(GuestLinear at, bool write) const
	{
		return valid && (for_write || !write) && (at.value ^ linear.value) < page_size;
	}
	GuestPhys at(GuestLinear at) const
	{
		return {phys.value - phys.page_offset() + at.page_offset()};
	}
};

/* "Limit Checking", "Type Checking", in other than 64-bit code: of @offset to @last. */
bool limit_and_type_allow(const VcpuState &state, Seg segment, u64 offset, u64 last, bool write);

/* Whether the segment lets [offset, offset + size) be accessed. */
inline bool segment_allows(const VcpuState &s, Seg segment, u64 offset, u64 size, bool write)
{
	u64 last = offset + size - 1;

	if (!s.code64())
		return limit_and_type_allow(s, segment, offset, last, write);
	u64 base = segment_base(s, segment);
	return is_canonical(base + offset) && is_canonical(base + last);
}

/*
 * Checks all of it, before anything of it is accessed. @length is the instruction's; @known spares a walk of
 * the guest's tables. @place is an empty one.
 */
[[nodiscard]] Fault locate(const VcpuState &state, const GuestMemory &memory,
			   const TranslatedPage &known, const Operand &operand, u32 length,
			   u64 displacement, bool write, Place &place);

/* Copies between guest memory at @linear and @data, page by page. May sleep. */
[[nodiscard]] Fault copy_linear(const VcpuState &state, const GuestMemory &memory,
				GuestLinear linear, u8 *data, unsigned size, bool write);

} // namespace kvmpp
