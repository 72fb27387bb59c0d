/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The MOV instructions that drivers use on device memory, decoded: MOV between register or
 * immediate and memory, MOVZX, MOVSX, MOVSXD, in 16, 32 and 64-bit code.
 */
#pragma once

#include "vcpu_state.hpp"

namespace kvmpp
{

enum class CodeSize : u8 { bits16, bits32, bits64 };

struct MovInstruction {
	static constexpr s8 no_register = -1;

	u8 length = 0; /* of the instruction */
	bool store = false;
	u8 size = 0; /* of the memory operand, bytes */

	/* The other operand: a register, or with `immediate` a number. */
	u8 reg = 0;
	u8 reg_size = 0;        /* bytes written by a load */
	bool high_byte = false; /* AH, CH, DH, BH: reg is then the number of AX, CX, DX, BX */
	bool sign_extend = false;
	bool has_immediate = false;
	u64 immediate = 0;

	/* The memory operand: segment:[base + index * scale + displacement]. */
	Seg segment = Seg::ds;
	u8 address_size = 8;
	s8 base = no_register;
	s8 index = no_register;
	u8 scale = 1;
	bool rip_relative = false; /* to the next instruction */
	s64 displacement = 0;
};

enum class DecodeOutcome {
	ok,
	too_short, /* more bytes are needed than are there */
	unknown,   /* an instruction of another kind, or none */
};

/* Decodes @count bytes; reads no byte past them. */
DecodeOutcome decode_mov(const u8 *bytes, unsigned count, CodeSize code,
			 MovInstruction &instruction);

/* The operand's linear address. Needs all registers and Group::segments. */
GuestLinear operand_address(const VcpuState &state, const MovInstruction &instruction);

} // namespace kvmpp
