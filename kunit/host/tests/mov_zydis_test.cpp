// SPDX-License-Identifier: GPL-2.0
/* The decoder against Zydis, a disassembler of others: what both think of streams of bytes. */
#include "guarded_bytes.hpp"

#include "arch/x86/mov.hpp"
#include "arch/x86/x86.hpp"

#include <gtest/gtest.h>

#ifdef HAVE_ZYDIS
#include <Zydis/Zydis.h>

#include <iterator>
#include <random>
#include <vector>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

struct Opinion {
	bool is_mov = false; /* between memory and a general register or a number */
	ZydisDecodedInstruction instruction;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	const ZydisDecodedOperand *memory = nullptr, *other = nullptr;
};

class Disassembler
{
public:
	Disassembler()
	{
		ZydisDecoderInit(&decoders_[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
		ZydisDecoderInit(&decoders_[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
		ZydisDecoderInit(&decoders_[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	}

	void ask(const u8 *bytes, unsigned count, CodeSize code, Opinion &o) const
	{
		o.is_mov = false;
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders_[static_cast<unsigned>(code)],
							 bytes, count, &o.instruction, o.operands)))
			return;
		switch (o.instruction.mnemonic) {
		case ZYDIS_MNEMONIC_MOV:
		case ZYDIS_MNEMONIC_MOVZX:
		case ZYDIS_MNEMONIC_MOVSX:
		case ZYDIS_MNEMONIC_MOVSXD:
			break;
		default:
			return;
		}
		bool store = o.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
		o.memory = &o.operands[store ? 0 : 1];
		o.other = &o.operands[store ? 1 : 0];
		if (o.memory->type != ZYDIS_OPERAND_TYPE_MEMORY)
			return;
		if (o.other->type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(o.other->reg.value) == ZYDIS_REGCLASS_SEGMENT)
			return;
		o.is_mov = true;
	}

private:
	ZydisDecoder decoders_[3];
};

int register_number(ZydisRegister reg)
{
	return reg == ZYDIS_REGISTER_NONE ? MovInstruction::no_register : ZydisRegisterGetId(reg);
}

/* Zydis counts AL CL DL BL AH CH DH BH SPL ... */
void expect_same_register(const MovInstruction &ours, ZydisRegister theirs)
{
	int id = ZydisRegisterGetId(theirs);

	if (ZydisRegisterGetClass(theirs) != ZYDIS_REGCLASS_GPR8) {
		EXPECT_EQ(ours.reg, id);
		EXPECT_FALSE(ours.high_byte);
		return;
	}
	EXPECT_EQ(ours.high_byte, id >= 4 && id < 8);
	EXPECT_EQ(ours.reg, id < 4 ? id : id - 4);
}

Seg segment_of(ZydisRegister reg)
{
	switch (reg) {
	case ZYDIS_REGISTER_ES:
		return Seg::es;
	case ZYDIS_REGISTER_CS:
		return Seg::cs;
	case ZYDIS_REGISTER_SS:
		return Seg::ss;
	case ZYDIS_REGISTER_FS:
		return Seg::fs;
	case ZYDIS_REGISTER_GS:
		return Seg::gs;
	default:
		return Seg::ds;
	}
}

bool has_base_in_64_bit_code(Seg segment)
{
	return segment == Seg::fs || segment == Seg::gs;
}

void expect_same(const MovInstruction &ours, const Opinion &theirs, CodeSize code)
{
	const ZydisDecodedOperandMem &mem = theirs.memory->mem;
	Seg segment = segment_of(mem.segment);

	EXPECT_EQ(ours.length, theirs.instruction.length);
	EXPECT_EQ(ours.store, theirs.memory == &theirs.operands[0]);
	/* Intel's manual has "MOVSXD r16, r/m16"; Zydis reads 32 bits, as AMD's processors do. */
	bool movsxd16 = theirs.instruction.mnemonic == ZYDIS_MNEMONIC_MOVSXD && ours.reg_size == 2;
	EXPECT_EQ(ours.size * 8, movsxd16 ? 16 : theirs.memory->size);
	EXPECT_EQ(ours.address_size * 8, theirs.instruction.address_width);
	EXPECT_EQ(ours.sign_extend, theirs.instruction.mnemonic == ZYDIS_MNEMONIC_MOVSX ||
					    theirs.instruction.mnemonic == ZYDIS_MNEMONIC_MOVSXD);
	EXPECT_EQ(ours.has_immediate, theirs.other->type == ZYDIS_OPERAND_TYPE_IMMEDIATE);
	if (ours.has_immediate) {
		EXPECT_EQ((ours.immediate ^ theirs.other->imm.value.u) & low_bits(8 * ours.size),
			  0u);
	} else {
		EXPECT_EQ(ours.reg_size * 8, theirs.other->size);
		expect_same_register(ours, theirs.other->reg.value);
	}
	bool ip = mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP;
	EXPECT_EQ(ours.rip_relative, ip);
	/*
	 * Of a SIB byte without base ("Special Encodings": base 101, mod 00, REX.B or not) Zydis 4.0
	 * makes R13D where addresses have 32 bits, and drops the displacement.
	 */
	bool their_r13d =
		mem.base == ZYDIS_REGISTER_R13D && ours.base == MovInstruction::no_register;
	if (!ip && !their_r13d) {
		EXPECT_EQ(ours.base, register_number(mem.base));
	}
	EXPECT_EQ(ours.index, register_number(mem.index));
	if (mem.index != ZYDIS_REGISTER_NONE) {
		EXPECT_EQ(ours.scale, mem.scale ? mem.scale : 1);
	}
	s64 displacement = mem.disp.has_displacement ? mem.disp.value : 0;
	if (!their_r13d) {
		EXPECT_EQ(static_cast<u64>(ours.displacement ^ displacement) &
				  low_bits(8 * ours.address_size),
			  0u);
	}
	if (code == CodeSize::bits64) {
		EXPECT_EQ(has_base_in_64_bit_code(ours.segment), has_base_in_64_bit_code(segment));
	}
	if (code != CodeSize::bits64 || has_base_in_64_bit_code(segment)) {
		EXPECT_EQ(ours.segment, segment);
	}
}

std::string dump(const u8 *bytes, unsigned count, CodeSize code)
{
	std::string text = "code size " + std::to_string(static_cast<int>(code)) + ":";
	char byte[4];

	for (unsigned i = 0; i < count; i++) {
		std::snprintf(byte, sizeof(byte), " %02x", bytes[i]);
		text += byte;
	}
	return text;
}

} // namespace

/* What we take, they take for the same. */
TEST(MovZydis, random_bytes)
{
	Disassembler disassembler;
	GuardedBytes guarded;
	std::mt19937_64 random(2);
	Opinion opinion;
	unsigned taken = 0;

	for (unsigned round = 0; round < 200000; round++) {
		u8 bytes[15];
		for (u8 &byte : bytes)
			byte = static_cast<u8>(random());
		CodeSize code = static_cast<CodeSize>(random() % 3);
		MovInstruction ours;

		if (decode_mov(guarded.place(bytes), sizeof(bytes), code, ours) !=
		    DecodeOutcome::ok)
			continue;
		taken++;
		disassembler.ask(bytes, sizeof(bytes), code, opinion);
		ASSERT_TRUE(opinion.is_mov) << dump(bytes, sizeof(bytes), code);
		expect_same(ours, opinion, code);
		ASSERT_FALSE(HasFailure()) << dump(bytes, sizeof(bytes), code);
	}
	EXPECT_GT(taken, 3000u);
}

/* Of streams made of prefixes, the opcodes of MOV and whatever, both take the same ones for the same. */
TEST(MovZydis, made_streams)
{
	static constexpr u8 prefixes[] = {0x66, 0x67, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
	static constexpr u8 opcodes[] = {0x88, 0x89, 0x8a, 0x8b, 0xa0, 0xa1,
					 0xa2, 0xa3, 0xc6, 0xc7, 0x63, 0x0f};
	static constexpr u8 second[] = {0xb6, 0xb7, 0xbe, 0xbf};
	Disassembler disassembler;
	GuardedBytes guarded;
	std::mt19937_64 random(3);
	Opinion opinion;
	unsigned taken = 0;

	for (unsigned round = 0; round < 200000; round++) {
		CodeSize code = static_cast<CodeSize>(random() % 3);
		std::vector<u8> bytes;

		for (u64 n = random() % 4; n > 0; n--)
			bytes.push_back(prefixes[random() % std::size(prefixes)]);
		if (code == CodeSize::bits64 && random() % 2)
			bytes.push_back(static_cast<u8>(0x40 | random() % 16));
		bytes.push_back(opcodes[random() % std::size(opcodes)]);
		if (bytes.back() == 0x0f)
			bytes.push_back(second[random() % std::size(second)]);
		while (bytes.size() < 15)
			bytes.push_back(static_cast<u8>(random() % 4 ? random() : random() & 0xc7));
		MovInstruction ours;
		bool ok = decode_mov(guarded.place(bytes), 15, code, ours) == DecodeOutcome::ok;
		disassembler.ask(bytes.data(), 15, code, opinion);
		ASSERT_EQ(ok, opinion.is_mov) << dump(bytes.data(), 15, code);
		if (!ok)
			continue;
		taken++;
		expect_same(ours, opinion, code);
		ASSERT_FALSE(HasFailure()) << dump(bytes.data(), 15, code);
		/* One byte less is too short. */
		ASSERT_EQ(decode_mov(guarded.place({bytes.data(), ours.length - 1u}),
				     ours.length - 1u, code, ours),
			  DecodeOutcome::too_short);
	}
	EXPECT_GT(taken, 60000u);
}
#else
TEST(MovZydis, compared)
{
	GTEST_SKIP() << "libzydis-dev is not installed";
}
#endif
