/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Instructions that access memory, decoded: those that the host carries out when the memory is a
 * device. instruction.cpp has the table of them. In 16, 32 and 64-bit code.
 */
#pragma once

#include "x86.hpp"

namespace kvmpp
{

enum class CodeSize : u8 { bits16, bits32, bits64 };

/* The first eight and the four of BT are in the order of their encoding. */
enum class Operation : u8 {
	add,
	or_,
	adc,
	sbb,
	and_,
	sub,
	xor_,
	cmp,
	bt,
	bts,
	btr,
	btc,
	test,
	inc,
	dec,
	not_,
	neg,
	mov,
	movzx,
	movsx,
	movbe,
	xchg,
	xadd,
	cmpxchg,
	cmpxchg8b,
};

/* segment:[base + index * scale + displacement] */
struct MemoryOperand {
	static constexpr s8 no_register = -1;

	Seg segment = Seg::ds;
	u8 address_size = 8;
	s8 base = no_register;
	s8 index = no_register;
	u8 scale = 1;
	bool rip_relative = false; /* to the next instruction */
	s64 displacement = 0;
};

struct Operand {
	enum class Kind : u8 { none, memory, reg, immediate };

	Kind kind = Kind::none;
	u8 size = 0; /* bytes */
	/* AH, CH, DH, BH: reg is then the number of AX, CX, DX, BX. */
	bool high_byte = false;
	u8 reg = 0;
	u64 immediate = 0; /* sign-extended */
	MemoryOperand memory = {};

	bool is_memory() const { return kind == Kind::memory; }
};

/*
 * String instructions are the operation of their elements, on what RSI and RDI point to: STOS is a
 * MOV to memory, SCAS a CMP of rAX with memory, MOVS and CMPS have two operands in memory.
 */
struct Instruction {
	enum class Repeat : u8 { none, while_equal, while_not_equal };

	Operation operation = Operation::mov;
	u8 length = 0;
	bool string = false;
	Repeat repeat = Repeat::none; /* of a string instruction; MOVS, STOS, LODS: whatever */
	u8 address_size = 8;
	Operand destination;
	Operand source; /* none where there is but one operand */

	bool writes_destination() const
	{
		return operation != Operation::cmp && operation != Operation::test &&
		       operation != Operation::bt;
	}
	/* Else it only overwrites it. */
	bool reads_destination() const
	{
		return operation != Operation::mov && operation != Operation::movzx &&
		       operation != Operation::movsx && operation != Operation::movbe;
	}
};

enum class DecodeOutcome {
	ok,
	too_short, /* more bytes are needed than are there */
	unknown,   /* not in the table, or no instruction */
};

/* Decodes @count bytes; reads no byte past them. @instruction is an empty one. */
DecodeOutcome decode(const u8 *bytes, unsigned count, CodeSize code, Instruction &instruction);

} // namespace kvmpp
