// SPDX-License-Identifier: GPL-2.0
#include "mov.hpp"

namespace kvmpp
{

namespace
{

/* The bytes of an instruction, taken one after the other; `ok` turns false at the end of them. */
struct Stream {
	const u8 *bytes;
	unsigned count;
	unsigned position = 0;
	bool ok = true;

	u8 u8_()
	{
		if (position >= count) {
			ok = false;
			return 0;
		}
		return bytes[position++];
	}
	u64 number(unsigned size)
	{
		u64 value = 0;

		for (unsigned i = 0; i < size; i++)
			value |= u64{u8_()} << (8 * i);
		return value;
	}
	s64 signed_number(unsigned size)
	{
		unsigned shift = 64 - 8 * size;

		return static_cast<s64>(number(size) << shift) >> shift;
	}
};

struct Prefixes {
	bool operand_size = false;
	bool address_size = false;
	bool has_segment = false;
	Seg segment = Seg::ds;
	u8 rex = 0;

	bool w() const { return rex & 8; }
	u8 r() const { return rex & 4 ? 8 : 0; }
	u8 x() const { return rex & 2 ? 8 : 0; }
	u8 b() const { return rex & 1 ? 8 : 0; }
};

/* False for LOCK and REP, which MOV does not take. */
bool read_prefixes(Stream &in, CodeSize code, Prefixes &p, u8 &opcode)
{
	for (;;) {
		u8 byte = in.u8_();

		switch (byte) {
		case 0x66:
			p.operand_size = true;
			break;
		case 0x67:
			p.address_size = true;
			break;
		case 0x26:
		case 0x2e:
		case 0x36:
		case 0x3e:
			/* In 64-bit code these four have no effect. */
			if (code != CodeSize::bits64) {
				p.has_segment = true;
				p.segment = static_cast<Seg>((byte >> 3) & 3);
			}
			break;
		case 0x64:
		case 0x65:
			p.has_segment = true;
			p.segment = byte == 0x64 ? Seg::fs : Seg::gs;
			break;
		case 0xf0:
		case 0xf2:
		case 0xf3:
			return false;
		default:
			if (code == CodeSize::bits64 && (byte & 0xf0) == 0x40) {
				/* REX counts only right before the opcode. */
				p.rex = byte;
				opcode = in.u8_();
				return (opcode & 0xf0) != 0x40 && opcode != 0x66 && opcode != 0x67;
			}
			opcode = byte;
			return true;
		}
		if (!in.ok)
			return true;
	}
}

/* "16-Bit Addressing Forms with the ModR/M Byte" */
void read_operand16(Stream &in, u8 mod, u8 rm, MovInstruction &i)
{
	static constexpr s8 base[8] = {rbx, rbx, rbp, rbp, rsi, rdi, rbp, rbx};
	static constexpr s8 index[8] = {rsi,
					rdi,
					rsi,
					rdi,
					MovInstruction::no_register,
					MovInstruction::no_register,
					MovInstruction::no_register,
					MovInstruction::no_register};

	if (mod == 0 && rm == 6) {
		i.displacement = static_cast<s64>(in.number(2));
		return;
	}
	i.base = base[rm];
	i.index = index[rm];
	i.displacement = mod == 1 ? in.signed_number(1) : mod == 2 ? in.signed_number(2) : 0;
}

/* "32-Bit Addressing Forms with the ModR/M Byte" and the SIB byte; with REX also for 64 bits. */
void read_operand32(Stream &in, u8 mod, u8 rm, const Prefixes &p, CodeSize code, MovInstruction &i)
{
	if (rm == 4) {
		u8 sib = in.u8_();
		u8 index = static_cast<u8>(((sib >> 3) & 7) | p.x());

		if (index != rsp) {
			i.index = static_cast<s8>(index);
			i.scale = static_cast<u8>(1 << (sib >> 6));
		}
		if (mod == 0 && (sib & 7) == 5) {
			i.displacement = in.signed_number(4);
			return;
		}
		i.base = static_cast<s8>((sib & 7) | p.b());
	} else if (mod == 0 && rm == 5) {
		i.displacement = in.signed_number(4);
		i.rip_relative = code == CodeSize::bits64;
		return;
	} else {
		i.base = static_cast<s8>(rm | p.b());
	}
	i.displacement = mod == 1 ? in.signed_number(1) : mod == 2 ? in.signed_number(4) : 0;
}

/* False where ModR/M names a register instead of memory. */
bool read_modrm(Stream &in, CodeSize code, const Prefixes &p, MovInstruction &i)
{
	u8 modrm = in.u8_();
	u8 mod = modrm >> 6, rm = modrm & 7;

	if (mod == 3)
		return false;
	i.reg = static_cast<u8>(((modrm >> 3) & 7) | p.r());
	if (i.address_size == 2)
		read_operand16(in, mod, rm, i);
	else
		read_operand32(in, mod, rm, p, code, i);
	/* What is addressed by the stack pointer or the frame pointer is on the stack. */
	if (!p.has_segment && (i.base == rsp || i.base == rbp))
		i.segment = Seg::ss;
	return true;
}

/* Without REX, byte registers 4 to 7 are AH, CH, DH, BH. */
void use_byte_register(const Prefixes &p, MovInstruction &i)
{
	if (p.rex == 0 && i.reg >= 4) {
		i.reg -= 4;
		i.high_byte = true;
	}
}

} // namespace

DecodeOutcome decode_mov(const u8 *bytes, unsigned count, CodeSize code, MovInstruction &i)
{
	constexpr unsigned longest = 15;
	Stream in{bytes, count < longest ? count : longest};
	auto outcome = [&](DecodeOutcome o) {
		return in.ok             ? o
		       : count < longest ? DecodeOutcome::too_short
					 : DecodeOutcome::unknown;
	};
	Prefixes p;
	u8 opcode = 0;

	if (!read_prefixes(in, code, p, opcode))
		return outcome(DecodeOutcome::unknown);

	bool small = code == CodeSize::bits16;
	u8 operand = p.w() ? 8 : (p.operand_size != small) ? 2 : 4;
	i = MovInstruction();
	i.address_size = code == CodeSize::bits64    ? (p.address_size ? 4 : 8)
			 : (p.address_size != small) ? 2
						     : 4;
	if (p.has_segment)
		i.segment = p.segment;

	switch (opcode) {
	case 0x88: /* MOV r/m8, r8 */
	case 0x8a: /* MOV r8, r/m8 */
		i.store = opcode == 0x88;
		i.size = i.reg_size = 1;
		if (!read_modrm(in, code, p, i))
			return outcome(DecodeOutcome::unknown);
		use_byte_register(p, i);
		break;
	case 0x89: /* MOV r/m, r */
	case 0x8b: /* MOV r, r/m */
		i.store = opcode == 0x89;
		i.size = i.reg_size = operand;
		if (!read_modrm(in, code, p, i))
			return outcome(DecodeOutcome::unknown);
		break;
	case 0xa0: /* MOV AL, moffs8 */
	case 0xa1: /* MOV rAX, moffs */
	case 0xa2: /* MOV moffs8, AL */
	case 0xa3: /* MOV moffs, rAX */
		i.store = opcode >= 0xa2;
		i.size = i.reg_size = opcode & 1 ? operand : 1;
		i.reg = rax;
		i.displacement = static_cast<s64>(in.number(i.address_size));
		break;
	case 0xc6: /* MOV r/m8, imm8 */
	case 0xc7: /* MOV r/m, imm */
		i.store = i.has_immediate = true;
		i.size = opcode & 1 ? operand : 1;
		if (!read_modrm(in, code, p, i) || (i.reg & 7) != 0)
			return outcome(DecodeOutcome::unknown);
		i.immediate = static_cast<u64>(in.signed_number(i.size < 4 ? i.size : 4));
		break;
	case 0x63: /* MOVSXD r, r/m32; in other code it is ARPL */
		if (code != CodeSize::bits64)
			return outcome(DecodeOutcome::unknown);
		i.size = operand == 2 ? 2 : 4;
		i.reg_size = operand;
		i.sign_extend = true;
		if (!read_modrm(in, code, p, i))
			return outcome(DecodeOutcome::unknown);
		break;
	case 0x0f: {
		u8 second = in.u8_();

		/* MOVZX B6, B7; MOVSX BE, BF */
		if ((second & 0xf6) != 0xb6)
			return outcome(DecodeOutcome::unknown);
		i.size = second & 1 ? 2 : 1;
		i.reg_size = operand;
		i.sign_extend = second & 8;
		if (!read_modrm(in, code, p, i))
			return outcome(DecodeOutcome::unknown);
		break;
	}
	default:
		return outcome(DecodeOutcome::unknown);
	}
	i.length = static_cast<u8>(in.position);
	return outcome(DecodeOutcome::ok);
}

GuestLinear operand_address(const VcpuState &s, const MovInstruction &i)
{
	u64 address = static_cast<u64>(i.displacement);

	if (i.base != MovInstruction::no_register)
		address += s.gpr[i.base];
	if (i.index != MovInstruction::no_register)
		address += s.gpr[i.index] * i.scale;
	if (i.rip_relative)
		address += s.rip + i.length;
	address &= low_bits(8 * i.address_size);

	/* In 64-bit code only FS and GS have a base. */
	if (!s.code64())
		return {static_cast<u32>(address + s.seg(i.segment).base)};
	if (i.segment == Seg::fs || i.segment == Seg::gs)
		address += s.seg(i.segment).base;
	return {address};
}

} // namespace kvmpp
