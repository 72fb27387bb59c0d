// SPDX-License-Identifier: GPL-2.0
/* The decoder against encodings written down by hand from the manual's tables. */
#include "guarded_bytes.hpp"
#include "guest.hpp"

#include "arch/x86/instruction.hpp"
#include "arch/x86/operand.hpp"

#include <optional>
#include <random>
#include <vector>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

using Bytes = std::vector<u8>;
constexpr CodeSize b16 = CodeSize::bits16, b32 = CodeSize::bits32, b64 = CodeSize::bits64;
constexpr s8 none = MemoryOperand::no_register;

class Decode : public GuestTest
{
protected:
	DecodeOutcome decode(const Bytes &bytes, CodeSize code)
	{
		i = Instruction();
		return kvmpp::decode(guarded.place(bytes), static_cast<unsigned>(bytes.size()),
				     code, i);
	}
	/* Decodes, and every shorter piece of it is found too short without a look past its end. */
	void ok(const Bytes &bytes, CodeSize code)
	{
		for (size_t n = 0; n < bytes.size(); n++) {
			Bytes start(bytes.begin(), bytes.begin() + static_cast<long>(n));
			EXPECT_EQ(decode(start, code), DecodeOutcome::too_short)
				<< testing::PrintToString(start);
		}
		EXPECT_EQ(decode(bytes, code), DecodeOutcome::ok) << testing::PrintToString(bytes);
		EXPECT_EQ(i.length, bytes.size()) << testing::PrintToString(bytes);
		/* What follows does not matter. */
		Instruction alone = i;
		Bytes more = bytes;
		more.insert(more.end(), 15, 0xcc);
		EXPECT_EQ(decode(more, code), DecodeOutcome::ok);
		EXPECT_EQ(i.length, alone.length);
	}
	void unknown(const Bytes &bytes, CodeSize code)
	{
		EXPECT_EQ(decode(bytes, code), DecodeOutcome::unknown)
			<< testing::PrintToString(bytes);
	}
	bool store() const { return i.destination.is_memory(); }
	const Operand &memory_operand() const { return store() ? i.destination : i.source; }
	const Operand &other() const { return store() ? i.source : i.destination; }
	const MemoryOperand &m() const { return memory_operand().memory; }
	u64 address() { return effective_address(s, m(), i.length); }
	void expect_memory(s8 base, s8 index, u8 scale, s64 displacement)
	{
		EXPECT_EQ(m().base, base);
		EXPECT_EQ(m().index, index);
		EXPECT_EQ(m().scale, scale);
		EXPECT_EQ(m().displacement, displacement);
	}
	void expect_register(bool stored, u8 size, u8 reg, u8 reg_size)
	{
		EXPECT_EQ(store(), stored);
		EXPECT_EQ(memory_operand().size, size);
		EXPECT_EQ(other().kind, Operand::Kind::reg);
		EXPECT_EQ(other().reg, reg);
		EXPECT_EQ(other().size, reg_size);
	}

	GuardedBytes guarded;
	Instruction i;
};

} // namespace

TEST_F(Decode, opcodes_64)
{
	ok({0x88, 0x18}, b64); /* mov %bl, (%rax) */
	expect_register(true, 1, rbx, 1);
	expect_memory(rax, none, 1, 0);
	ok({0x89, 0x18}, b64); /* mov %ebx, (%rax) */
	expect_register(true, 4, rbx, 4);
	ok({0x48, 0x89, 0x18}, b64);
	expect_register(true, 8, rbx, 8);
	ok({0x66, 0x89, 0x18}, b64);
	expect_register(true, 2, rbx, 2);
	ok({0x8a, 0x18}, b64);
	expect_register(false, 1, rbx, 1);
	ok({0x4c, 0x8b, 0x18}, b64); /* mov (%rax), %r11 */
	expect_register(false, 8, r11, 8);
	ok({0x66, 0x48, 0x8b, 0x18}, b64); /* REX.W wins over 66 */
	expect_register(false, 8, rbx, 8);
}

TEST_F(Decode, immediates)
{
	ok({0xc6, 0x00, 0x80}, b64);
	EXPECT_TRUE(store());
	EXPECT_EQ(i.source.kind, Operand::Kind::immediate);
	EXPECT_EQ(memory_operand().size, 1);
	EXPECT_EQ(i.source.immediate & 0xff, 0x80u);
	ok({0xc7, 0x00, 0x78, 0x56, 0x34, 0x12}, b64);
	EXPECT_EQ(memory_operand().size, 4);
	EXPECT_EQ(i.source.immediate, 0x12345678u);
	ok({0x66, 0xc7, 0x00, 0x34, 0x12}, b64);
	EXPECT_EQ(memory_operand().size, 2);
	EXPECT_EQ(i.source.immediate, 0x1234u);
	ok({0x48, 0xc7, 0x00, 0xff, 0xff, 0xff, 0xff}, b64);
	EXPECT_EQ(memory_operand().size, 8);
	EXPECT_EQ(i.source.immediate, ~u64{0}) << "sign-extended";
	ok({0xc7, 0x07, 0x34, 0x12}, b16); /* movw $0x1234, (%bx) */
	EXPECT_EQ(memory_operand().size, 2);
	unknown({0xc7, 0x08, 0, 0, 0, 0}, b64); /* not /0 */
	unknown({0xc6, 0xf8, 0}, b64);          /* XABORT */
}

TEST_F(Decode, extending_loads)
{
	ok({0x0f, 0xb6, 0x18}, b64); /* movzbl (%rax), %ebx */
	expect_register(false, 1, rbx, 4);
	EXPECT_EQ(i.operation, Operation::movzx);
	ok({0x48, 0x0f, 0xb7, 0x18}, b64); /* movzwq */
	expect_register(false, 2, rbx, 8);
	ok({0x66, 0x0f, 0xbe, 0x18}, b64); /* movsbw */
	expect_register(false, 1, rbx, 2);
	EXPECT_EQ(i.operation, Operation::movsx);
	ok({0x4c, 0x0f, 0xbf, 0x38}, b64); /* movswq (%rax), %r15 */
	expect_register(false, 2, r15, 8);
	EXPECT_EQ(i.operation, Operation::movsx);
	ok({0x48, 0x63, 0x18}, b64); /* movslq */
	expect_register(false, 4, rbx, 8);
	EXPECT_EQ(i.operation, Operation::movsx);
	ok({0x63, 0x18}, b64); /* MOVSXD without REX.W: a plain 32-bit load */
	expect_register(false, 4, rbx, 4);
	unknown({0x63, 0x18}, b32);       /* ARPL */
	unknown({0x0f, 0xb4, 0x18}, b64); /* LFS */
	unknown({0x0f, 0xbc, 0x18}, b64); /* BSF */
	unknown({0x0f, 0x10, 0x18}, b64); /* MOVUPS */
}

TEST_F(Decode, moffs)
{
	ok({0xa0, 1, 2, 3, 4, 5, 6, 7, 0x88}, b64);
	expect_register(false, 1, rax, 1);
	expect_memory(none, none, 1, static_cast<s64>(0x8807060504030201));
	ok({0x48, 0xa3, 1, 2, 3, 4, 5, 6, 7, 8}, b64);
	expect_register(true, 8, rax, 8);
	ok({0x67, 0xa1, 1, 2, 3, 4}, b64);
	expect_register(false, 4, rax, 4);
	expect_memory(none, none, 1, 0x04030201);
	ok({0xa2, 1, 2, 3, 4}, b32);
	expect_register(true, 1, rax, 1);
	ok({0xa3, 0x34, 0xf2}, b16);
	expect_register(true, 2, rax, 2);
	expect_memory(none, none, 1, 0xf234);
	ok({0x66, 0x67, 0xa1, 1, 2, 3, 4}, b16);
	expect_register(false, 4, rax, 4);
}

TEST_F(Decode, byte_registers)
{
	ok({0x88, 0x20}, b32); /* mov %ah, (%eax) */
	EXPECT_TRUE(other().high_byte);
	EXPECT_EQ(other().reg, rax);
	ok({0x8a, 0x38}, b64); /* mov (%rax), %bh */
	EXPECT_TRUE(other().high_byte);
	EXPECT_EQ(other().reg, rbx);
	ok({0x40, 0x88, 0x20}, b64); /* any REX: SPL */
	EXPECT_FALSE(other().high_byte);
	EXPECT_EQ(other().reg, rsp);
	ok({0x44, 0x88, 0x20}, b64); /* R12B */
	EXPECT_EQ(other().reg, r12);
	/* The register of an extending load is not a byte. */
	ok({0x0f, 0xb6, 0x20}, b32);
	EXPECT_FALSE(other().high_byte);
	EXPECT_EQ(other().reg, rsp);
}

TEST_F(Decode, registers_instead_of_memory)
{
	for (u8 opcode : {0x88, 0x89, 0x8a, 0x8b})
		unknown({opcode, 0xc0}, b64);
	unknown({0x0f, 0xb6, 0xc0}, b64);
	unknown({0xc7, 0xc0, 0, 0, 0, 0}, b64);
}

TEST_F(Decode, other_instructions)
{
	unknown({0x90}, b64);
	unknown({0x8c, 0x00}, b64); /* mov %es, (%rax) */
	unknown({0x8e, 0x00}, b64);
	unknown({0xf0, 0x89, 0x00}, b64);
	unknown({0x0f, 0x38, 0xf2, 0x00}, b64);
	unknown({0xc5, 0xf8, 0x10, 0x00}, b64); /* VMOVUPS */
}

TEST_F(Decode, addressing_64)
{
	ok({0x8b, 0x43, 0x80}, b64); /* -128(%rbx) */
	expect_memory(rbx, none, 1, -128);
	ok({0x8b, 0x83, 0, 0, 0, 0x80}, b64);
	expect_memory(rbx, none, 1, -(s64{1} << 31));
	ok({0x41, 0x8b, 0x07}, b64); /* (%r15) */
	expect_memory(r15, none, 1, 0);
	ok({0x8b, 0x04, 0x8b}, b64); /* (%rbx,%rcx,4) */
	expect_memory(rbx, rcx, 4, 0);
	ok({0x43, 0x8b, 0x44, 0xe5, 0x10}, b64); /* 16(%r13,%r12,8) */
	expect_memory(r13, r12, 8, 16);
	ok({0x8b, 0x04, 0x24}, b64); /* (%rsp): no index */
	expect_memory(rsp, none, 1, 0);
	ok({0x41, 0x8b, 0x04, 0x24}, b64); /* (%r12) */
	expect_memory(r12, none, 1, 0);
	ok({0x8b, 0x04, 0x25, 1, 2, 3, 0xf4}, b64); /* absolute, sign-extended */
	expect_memory(none, none, 1, static_cast<s32>(0xf4030201));
	ok({0x8b, 0x04, 0xcd, 1, 0, 0, 0}, b64); /* 1(,%rcx,8) */
	expect_memory(none, rcx, 8, 1);
	ok({0x41, 0x8b, 0x45, 0}, b64); /* 0(%r13): mod 1 */
	expect_memory(r13, none, 1, 0);
	ok({0x41, 0x8b, 0x04, 0x05, 1, 0, 0, 0}, b64); /* SIB base 5 with mod 0, REX.B or not */
	expect_memory(none, rax, 1, 1);
}

TEST_F(Decode, rip_relative)
{
	ok({0x8b, 0x05, 0xf0, 0xff, 0xff, 0xff}, b64);
	EXPECT_TRUE(m().rip_relative);
	expect_memory(none, none, 1, -16);
	ok({0x8b, 0x05, 0xf0, 0xff, 0xff, 0x0f}, b32);
	EXPECT_FALSE(m().rip_relative);
	/* With an immediate after the displacement it is the end of all that counts. */
	long_mode(0x2000);
	ok({0xc7, 0x05, 0x10, 0, 0, 0, 1, 2, 3, 4}, b64);
	EXPECT_EQ(address(), 0x2000u + 10 + 16);
	ok({0x67, 0x8b, 0x05, 0, 0xf0, 0xff, 0xff}, b64);
	s.rip = 0x800;
	EXPECT_EQ(address(), 0xfffff807u) << "cut to 32 bits";
}

TEST_F(Decode, addressing_16)
{
	const struct {
		u8 rm;
		s8 base, index;
		Seg segment;
	} forms[] = {
		{0, rbx, rsi, Seg::ds},  {1, rbx, rdi, Seg::ds},  {2, rbp, rsi, Seg::ss},
		{3, rbp, rdi, Seg::ss},  {4, rsi, none, Seg::ds}, {5, rdi, none, Seg::ds},
		{6, rbp, none, Seg::ss}, {7, rbx, none, Seg::ds},
	};

	for (auto form : forms) {
		SCOPED_TRACE(int(form.rm));
		ok({0x8b, static_cast<u8>(0x40 | form.rm), 0xfe}, b16);
		expect_memory(form.base, form.index, 1, -2);
		EXPECT_EQ(m().segment, form.segment);
		EXPECT_EQ(i.address_size, 2);
		EXPECT_EQ(memory_operand().size, 2);
		ok({0x8b, static_cast<u8>(0x80 | form.rm), 0x00, 0x80}, b16);
		expect_memory(form.base, form.index, 1, -0x8000);
		if (form.rm == 6)
			continue;
		ok({0x8b, form.rm}, b16);
		expect_memory(form.base, form.index, 1, 0);
		ok({0x67, 0x8b, form.rm}, b32);
		expect_memory(form.base, form.index, 1, 0);
		EXPECT_EQ(memory_operand().size, 4);
	}
	ok({0x8b, 0x06, 0x34, 0xf2}, b16);
	expect_memory(none, none, 1, 0xf234);
	EXPECT_EQ(m().segment, Seg::ds);
}

TEST_F(Decode, addressing_32_in_16_bit_code)
{
	ok({0x67, 0x66, 0x8b, 0x44, 0x8b, 0x04}, b16);
	expect_memory(rbx, rcx, 4, 4);
	EXPECT_EQ(i.address_size, 4);
	EXPECT_EQ(memory_operand().size, 4);
}

TEST_F(Decode, segments)
{
	const struct {
		u8 prefix;
		Seg segment;
	} prefixes[] = {{0x26, Seg::es}, {0x2e, Seg::cs}, {0x36, Seg::ss},
			{0x3e, Seg::ds}, {0x64, Seg::fs}, {0x65, Seg::gs}};

	for (auto p : prefixes) {
		SCOPED_TRACE(int(p.prefix));
		ok({p.prefix, 0x8b, 0x45, 0}, b32); /* 0(%ebp) */
		EXPECT_EQ(m().segment, p.segment);
		ok({p.prefix, 0xa1, 0, 0}, b16);
		EXPECT_EQ(m().segment, p.segment);
	}
	ok({0x8b, 0x45, 0}, b32);
	EXPECT_EQ(m().segment, Seg::ss);
	ok({0x8b, 0x04, 0x24}, b32);
	EXPECT_EQ(m().segment, Seg::ss);
	ok({0x8b, 0x44, 0x25, 0}, b32); /* 0(%ebp) by SIB */
	EXPECT_EQ(m().segment, Seg::ss);
	ok({0x8b, 0x04, 0x25, 0, 0, 0, 0}, b32);
	EXPECT_EQ(m().segment, Seg::ds);
	ok({0x64, 0x2e, 0x8b, 0}, b32); /* the last one counts */
	EXPECT_EQ(m().segment, Seg::cs);
	ok({0x65, 0x8b, 0}, b64);
	EXPECT_EQ(m().segment, Seg::gs);
}

TEST_F(Decode, prefixes_in_any_order_and_number)
{
	ok({0x67, 0x66, 0x65, 0x66, 0x67, 0x44, 0x89, 0x00}, b64);
	expect_register(true, 2, r8, 2);
	EXPECT_EQ(i.address_size, 4);
	EXPECT_EQ(m().segment, Seg::gs);
	/* 0x4x is INC or DEC outside 64-bit code. */
	unknown({0x40, 0x89, 0x00}, b32);
}

TEST_F(Decode, fifteen_bytes_are_the_most)
{
	Bytes bytes(13, 0x66);
	bytes.push_back(0x8b);
	bytes.push_back(0x00);
	ok(bytes, b64);
	bytes.insert(bytes.begin(), 0x66);
	unknown(bytes, b64);
	unknown(Bytes(20, 0x66), b64);
	EXPECT_EQ(decode(Bytes(14, 0x66), b64), DecodeOutcome::too_short);
}

TEST_F(Decode, effective_addresses)
{
	long_mode();
	s.gpr[rax] = 0xffff800000000000;
	s.gpr[rcx] = 0x10;
	ok({0x8b, 0x44, 0xc8, 0x08}, b64);
	EXPECT_EQ(address(), 0xffff800000000088u);
	s.gpr[rbx] = 0xfff0;
	s.gpr[rsi] = 0x20;
	ok({0x8b, 0x00}, b16);
	EXPECT_EQ(address(), 0x10u) << "wraps at 64 KiB";
}

/* An operation each of the families; the Zydis comparison has all the rows. */
TEST_F(Decode, families)
{
	ok({0x00, 0x18}, b64); /* add %bl, (%rax) */
	EXPECT_EQ(i.operation, Operation::add);
	expect_register(true, 1, rbx, 1);
	ok({0x3b, 0x18}, b64); /* cmp (%rax), %ebx */
	EXPECT_EQ(i.operation, Operation::cmp);
	expect_register(false, 4, rbx, 4);
	ok({0x48, 0x83, 0x28, 0xff}, b64); /* subq $-1, (%rax) */
	EXPECT_EQ(i.operation, Operation::sub);
	EXPECT_EQ(i.source.immediate, ~u64{0});
	EXPECT_EQ(i.destination.size, 8);
	ok({0xf7, 0x00, 1, 2, 3, 4}, b64); /* testl */
	EXPECT_EQ(i.operation, Operation::test);
	ok({0xf7, 0x10}, b64); /* notl */
	EXPECT_EQ(i.operation, Operation::not_);
	EXPECT_EQ(i.source.kind, Operand::Kind::none);
	unknown({0xf7, 0x20}, b64); /* mull */
	ok({0xff, 0x08}, b64);      /* decl */
	EXPECT_EQ(i.operation, Operation::dec);
	unknown({0xff, 0x10}, b64); /* call */
	ok({0x0f, 0xba, 0x28, 5}, b64);
	EXPECT_EQ(i.operation, Operation::bts);
	unknown({0x0f, 0xba, 0x18, 5}, b64);
	ok({0x0f, 0xc7, 0x08}, b64);
	EXPECT_EQ(i.operation, Operation::cmpxchg8b);
	EXPECT_EQ(i.destination.size, 8);
	unknown({0x48, 0x0f, 0xc7, 0x08}, b64); /* CMPXCHG16B */
	ok({0x0f, 0x38, 0xf0, 0x18}, b64);      /* movbe (%rax), %ebx */
	EXPECT_EQ(i.operation, Operation::movbe);
	unknown({0xf2, 0x0f, 0x38, 0xf0, 0x18}, b64); /* CRC32 */
}

TEST_F(Decode, strings)
{
	ok({0xf3, 0x48, 0xa5}, b64); /* rep movsq */
	EXPECT_TRUE(i.string);
	EXPECT_EQ(i.repeat, Instruction::Repeat::while_equal);
	EXPECT_EQ(i.operation, Operation::mov);
	EXPECT_EQ(i.destination.memory.base, rdi);
	EXPECT_EQ(i.destination.memory.segment, Seg::es);
	EXPECT_EQ(i.destination.size, 8);
	EXPECT_EQ(i.source.memory.base, rsi);
	EXPECT_EQ(i.source.memory.segment, Seg::ds);
	ok({0x64, 0x67, 0xa4}, b32); /* movsb %fs:(%si), %es:(%di) */
	EXPECT_EQ(i.repeat, Instruction::Repeat::none);
	EXPECT_EQ(i.destination.memory.segment, Seg::es);
	EXPECT_EQ(i.source.memory.segment, Seg::fs);
	EXPECT_EQ(i.address_size, 2);
	EXPECT_EQ(i.source.memory.address_size, 2);
	ok({0xaa}, b64); /* stosb */
	EXPECT_EQ(i.source.reg, rax);
	EXPECT_EQ(i.destination.memory.base, rdi);
	ok({0xf2, 0xae}, b64); /* repne scasb */
	EXPECT_EQ(i.operation, Operation::cmp);
	EXPECT_EQ(i.repeat, Instruction::Repeat::while_not_equal);
	EXPECT_EQ(i.destination.reg, rax);
	EXPECT_EQ(i.source.memory.base, rdi);
	ok({0x66, 0xa7}, b32); /* cmpsw */
	EXPECT_EQ(i.destination.memory.base, rsi);
	EXPECT_EQ(i.source.memory.base, rdi);
	/* Of other instructions it is no repetition. */
	ok({0xf3, 0x89, 0x00}, b64);
	EXPECT_EQ(i.repeat, Instruction::Repeat::none);
}

TEST_F(Decode, lock)
{
	for (u8 opcode : {0x01, 0x09, 0x11, 0x19, 0x21, 0x29, 0x31, 0x87})
		ok({0xf0, opcode, 0x18}, b64);
	ok({0xf0, 0x0f, 0xb1, 0x18}, b64);
	ok({0xf0, 0x0f, 0xab, 0x18}, b64);
	unknown({0xf0, 0x39, 0x18}, b64);       /* cmp */
	unknown({0xf0, 0x03, 0x18}, b64);       /* memory is the source */
	unknown({0xf0, 0x85, 0x18}, b64);       /* test */
	unknown({0xf0, 0x0f, 0xa3, 0x18}, b64); /* bt */
	unknown({0xf0, 0xa4}, b64);
}

/* Prefixes after REX make it void. */
TEST_F(Decode, rex_that_does_not_count)
{
	ok({0x48, 0x66, 0x89, 0x18}, b64);
	expect_register(true, 2, rbx, 2);
	ok({0x4c, 0x40, 0x88, 0x20}, b64);
	expect_register(true, 1, rsp, 1);
}

TEST_F(Decode, random_bytes_never_read_past_their_end)
{
	std::mt19937_64 random(1);
	unsigned decoded = 0;

	for (unsigned round = 0; round < 1000000; round++) {
		u8 bytes[16];
		u64 words[2] = {random(), random()};
		std::memcpy(bytes, words, sizeof(bytes));
		unsigned count = static_cast<unsigned>(random() % 17);
		CodeSize code = static_cast<CodeSize>(random() % 3);
		Instruction d;
		DecodeOutcome outcome =
			kvmpp::decode(guarded.place({bytes, count}), count, code, d);

		if (outcome != DecodeOutcome::ok)
			continue;
		decoded++;
		ASSERT_TRUE(d.length > 0 && d.length <= count && d.length <= 15);
		ASSERT_TRUE(d.destination.is_memory() || d.source.is_memory());
		for (const Operand *o : {&d.destination, &d.source}) {
			if (o->kind == Operand::Kind::none)
				continue;
			ASSERT_TRUE(o->size == 1 || o->size == 2 || o->size == 4 || o->size == 8);
			ASSERT_LT(o->reg, 16);
			ASSERT_TRUE(o->memory.base >= -1 && o->memory.base < 16);
			ASSERT_TRUE(o->memory.index >= -1 && o->memory.index < 16);
		}
	}
	EXPECT_GT(decoded, 10000u);
}
