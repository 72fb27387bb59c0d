// SPDX-License-Identifier: GPL-2.0
/* The decoder against Zydis, a disassembler of others: what both think of streams of bytes. */
#include "guarded_bytes.hpp"

#include "arch/x86/instruction.hpp"
#include "arch/x86/x86.hpp"

#include <gtest/gtest.h>

#ifdef HAVE_ZYDIS
#include <Zydis/Zydis.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <random>
#include <string>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

/* What Zydis calls the operations; several names for the string instructions. */
struct Name {
	ZydisMnemonic theirs;
	Operation ours;
};
constexpr Name names[] = {
	{ZYDIS_MNEMONIC_ADD, Operation::add},
	{ZYDIS_MNEMONIC_OR, Operation::or_},
	{ZYDIS_MNEMONIC_ADC, Operation::adc},
	{ZYDIS_MNEMONIC_SBB, Operation::sbb},
	{ZYDIS_MNEMONIC_AND, Operation::and_},
	{ZYDIS_MNEMONIC_SUB, Operation::sub},
	{ZYDIS_MNEMONIC_XOR, Operation::xor_},
	{ZYDIS_MNEMONIC_CMP, Operation::cmp},
	{ZYDIS_MNEMONIC_BT, Operation::bt},
	{ZYDIS_MNEMONIC_BTS, Operation::bts},
	{ZYDIS_MNEMONIC_BTR, Operation::btr},
	{ZYDIS_MNEMONIC_BTC, Operation::btc},
	{ZYDIS_MNEMONIC_TEST, Operation::test},
	{ZYDIS_MNEMONIC_INC, Operation::inc},
	{ZYDIS_MNEMONIC_DEC, Operation::dec},
	{ZYDIS_MNEMONIC_NOT, Operation::not_},
	{ZYDIS_MNEMONIC_NEG, Operation::neg},
	{ZYDIS_MNEMONIC_MOV, Operation::mov},
	{ZYDIS_MNEMONIC_MOVZX, Operation::movzx},
	{ZYDIS_MNEMONIC_MOVSX, Operation::movsx},
	{ZYDIS_MNEMONIC_MOVSXD, Operation::movsx},
	{ZYDIS_MNEMONIC_MOVBE, Operation::movbe},
	{ZYDIS_MNEMONIC_XCHG, Operation::xchg},
	{ZYDIS_MNEMONIC_XADD, Operation::xadd},
	{ZYDIS_MNEMONIC_CMPXCHG, Operation::cmpxchg},
	{ZYDIS_MNEMONIC_CMPXCHG8B, Operation::cmpxchg8b},
	{ZYDIS_MNEMONIC_MOVSB, Operation::mov},
	{ZYDIS_MNEMONIC_MOVSW, Operation::mov},
	{ZYDIS_MNEMONIC_MOVSD, Operation::mov},
	{ZYDIS_MNEMONIC_MOVSQ, Operation::mov},
	{ZYDIS_MNEMONIC_STOSB, Operation::mov},
	{ZYDIS_MNEMONIC_STOSW, Operation::mov},
	{ZYDIS_MNEMONIC_STOSD, Operation::mov},
	{ZYDIS_MNEMONIC_STOSQ, Operation::mov},
	{ZYDIS_MNEMONIC_LODSB, Operation::mov},
	{ZYDIS_MNEMONIC_LODSW, Operation::mov},
	{ZYDIS_MNEMONIC_LODSD, Operation::mov},
	{ZYDIS_MNEMONIC_LODSQ, Operation::mov},
	{ZYDIS_MNEMONIC_CMPSB, Operation::cmp},
	{ZYDIS_MNEMONIC_CMPSW, Operation::cmp},
	{ZYDIS_MNEMONIC_CMPSD, Operation::cmp},
	{ZYDIS_MNEMONIC_CMPSQ, Operation::cmp},
	{ZYDIS_MNEMONIC_SCASB, Operation::cmp},
	{ZYDIS_MNEMONIC_SCASW, Operation::cmp},
	{ZYDIS_MNEMONIC_SCASD, Operation::cmp},
	{ZYDIS_MNEMONIC_SCASQ, Operation::cmp},
};

struct Opinion {
	bool in_repertoire = false; /* with an operand in memory */
	Operation operation;
	ZydisDecodedInstruction instruction;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

bool of_general_registers(const ZydisDecodedOperand &o)
{
	if (o.type != ZYDIS_OPERAND_TYPE_REGISTER)
		return true;
	switch (ZydisRegisterGetClass(o.reg.value)) {
	case ZYDIS_REGCLASS_GPR8:
	case ZYDIS_REGCLASS_GPR16:
	case ZYDIS_REGCLASS_GPR32:
	case ZYDIS_REGCLASS_GPR64:
		return true;
	default:
		return false;
	}
}

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
		o.in_repertoire = false;
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders_[static_cast<unsigned>(code)],
							 bytes, count, &o.instruction, o.operands)))
			return;
		const Name *name =
			std::find_if(std::begin(names), std::end(names), [&](const Name &n) {
				return n.theirs == o.instruction.mnemonic;
			});
		if (name == std::end(names))
			return;
		o.operation = name->ours;
		bool memory = false;
		for (unsigned i = 0; i < 2 && i < o.instruction.operand_count; i++) {
			memory = memory || o.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
			if (!of_general_registers(o.operands[i]) &&
			    o.operands[i].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
				return;
		}
		/* SSE has a MOVSD and a CMPSD, too; 82 is another 80, which compilers do not know. */
		o.in_repertoire = memory && o.instruction.opcode != 0x82;
	}

private:
	ZydisDecoder decoders_[3];
};

int register_number(ZydisRegister reg)
{
	return reg == ZYDIS_REGISTER_NONE ? MemoryOperand::no_register : ZydisRegisterGetId(reg);
}

/* Zydis counts AL CL DL BL AH CH DH BH SPL ... */
void expect_same_register(const Operand &ours, ZydisRegister theirs)
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

void expect_same_memory(const MemoryOperand &ours, const ZydisDecodedOperandMem &mem,
			const Opinion &theirs, CodeSize code)
{
	Seg segment = segment_of(mem.segment);
	bool ip = mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP;

	EXPECT_EQ(ours.address_size * 8, theirs.instruction.address_width);
	EXPECT_EQ(ours.rip_relative, ip);
	/*
	 * Of a SIB byte without base ("Special Encodings": base 101, mod 00, REX.B or not) Zydis 4.0
	 * makes R13D where addresses have 32 bits, and drops the displacement.
	 */
	bool their_r13d =
		mem.base == ZYDIS_REGISTER_R13D && ours.base == MemoryOperand::no_register;
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

void expect_same_operand(const Operand &ours, const ZydisDecodedOperand &theirs, const Opinion &o,
			 CodeSize code, unsigned destination_size)
{
	/* Intel's manual has "MOVSXD r16, r/m16"; Zydis reads 32 bits, as AMD's processors do. */
	bool movsxd16 = o.instruction.mnemonic == ZYDIS_MNEMONIC_MOVSXD && destination_size == 2;

	switch (theirs.type) {
	case ZYDIS_OPERAND_TYPE_MEMORY:
		ASSERT_EQ(ours.kind, Operand::Kind::memory);
		EXPECT_EQ(ours.size * 8, movsxd16 ? 16 : theirs.size);
		expect_same_memory(ours.memory, theirs.mem, o, code);
		break;
	case ZYDIS_OPERAND_TYPE_REGISTER:
		ASSERT_EQ(ours.kind, Operand::Kind::reg);
		EXPECT_EQ(ours.size * 8, theirs.size);
		expect_same_register(ours, theirs.reg.value);
		break;
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		ASSERT_EQ(ours.kind, Operand::Kind::immediate);
		EXPECT_EQ((ours.immediate ^ theirs.imm.value.u) & low_bits(8 * ours.size), 0u);
		/* What the operation sees of it. */
		if (theirs.imm.is_signed) {
			EXPECT_EQ((ours.immediate ^ theirs.imm.value.u) &
					  low_bits(8 * destination_size),
				  0u);
		}
		break;
	default:
		FAIL() << "an operand of another kind";
	}
}

void expect_same(const Instruction &ours, const Opinion &theirs, CodeSize code)
{
	using Repeat = Instruction::Repeat;
	ZydisInstructionAttributes attributes = theirs.instruction.attributes;
	bool repeated = attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE);
	bool repeated_ne = attributes & (ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_REPNZ);
	bool unary = ours.source.kind == Operand::Kind::none;

	EXPECT_EQ(ours.length, theirs.instruction.length);
	EXPECT_EQ(ours.operation, theirs.operation);
	EXPECT_EQ(ours.address_size * 8, theirs.instruction.address_width);
	expect_same_operand(ours.destination, theirs.operands[0], theirs, code,
			    ours.destination.size);
	if (!unary)
		expect_same_operand(ours.source, theirs.operands[1], theirs, code,
				    ours.destination.size);
	else
		EXPECT_EQ(theirs.instruction.operand_count_visible, 1);
	if (ours.string && ours.operation == Operation::cmp) {
		EXPECT_EQ(ours.repeat, repeated_ne ? Repeat::while_not_equal
				       : repeated  ? Repeat::while_equal
						   : Repeat::none);
	} else if (ours.string && repeated) {
		EXPECT_NE(ours.repeat, Repeat::none);
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

/* Both take the same ones, for the same. Returns whether they do take it. */
bool compare(const Disassembler &disassembler, GuardedBytes &guarded, const u8 (&bytes)[15],
	     CodeSize code, Opinion &opinion)
{
	Instruction ours;
	bool ok = decode(guarded.place(bytes), sizeof(bytes), code, ours) == DecodeOutcome::ok;

	disassembler.ask(bytes, sizeof(bytes), code, opinion);
	EXPECT_EQ(ok, opinion.in_repertoire);
	if (ok && opinion.in_repertoire) {
		expect_same(ours, opinion, code);
		/* One byte less is too short. */
		unsigned less = ours.length - 1u;
		EXPECT_EQ(decode(guarded.place({bytes, less}), less, code, ours),
			  DecodeOutcome::too_short);
	}
	return ok;
}

} // namespace

TEST(InstructionZydis, random_bytes)
{
	Disassembler disassembler;
	GuardedBytes guarded;
	std::mt19937_64 random(2);
	Opinion opinion;
	unsigned taken = 0;

	for (unsigned round = 0; round < 1000000; round++) {
		u8 bytes[15];
		u64 words[2] = {random(), random()};
		std::memcpy(bytes, words, sizeof(bytes));
		CodeSize code = static_cast<CodeSize>(random() % 3);

		taken += compare(disassembler, guarded, bytes, code, opinion);
		ASSERT_FALSE(HasFailure()) << dump(bytes, sizeof(bytes), code);
	}
	EXPECT_GT(taken, 100000u);
}

/* Prefixes, and then each opcode as often as any other. */
TEST(InstructionZydis, made_streams)
{
	static constexpr u8 prefixes[] = {0x66, 0x67, 0x26, 0x2e, 0x36, 0x3e,
					  0x64, 0x65, 0xf0, 0xf2, 0xf3};
	Disassembler disassembler;
	GuardedBytes guarded;
	std::mt19937_64 random(3);
	Opinion opinion;
	unsigned taken = 0;

	for (unsigned round = 0; round < 600000; round++) {
		CodeSize code = static_cast<CodeSize>(random() % 3);
		u8 bytes[15];
		unsigned n = 0;

		for (u64 count = random() % 4; count > 0; count--)
			bytes[n++] = prefixes[random() % std::size(prefixes)];
		if (code == CodeSize::bits64 && random() % 2)
			bytes[n++] = static_cast<u8>(0x40 | random() % 16);
		switch (random() % 4) {
		case 0:
			bytes[n++] = 0x0f;
			break;
		case 1:
			bytes[n++] = 0x0f;
			bytes[n++] = 0x38;
			bytes[n++] = static_cast<u8>(0xf0 | random() % 2);
			break;
		}
		bytes[n++] = static_cast<u8>(random());
		while (n < sizeof(bytes))
			bytes[n++] = static_cast<u8>(random() % 4 ? random() : random() & 0xc7);
		taken += compare(disassembler, guarded, bytes, code, opinion);
		ASSERT_FALSE(HasFailure()) << dump(bytes, sizeof(bytes), code);
	}
	EXPECT_GT(taken, 100000u);
}
#else
TEST(InstructionZydis, compared)
{
	GTEST_SKIP() << "libzydis-dev is not installed";
}
#endif
