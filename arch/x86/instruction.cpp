// SPDX-License-Identifier: GPL-2.0
#include "instruction.hpp"

#include <array>

namespace kvmpp
{

namespace
{

/*
 * Operands, as "Opcode Map" abbreviates them. First letter: e is memory by ModR/M, g a register by
 * ModR/M, i an immediate, a is rAX, o an offset without ModR/M, x is DS:rSI, y is ES:rDI. Second
 * one, the size: b, w, d, q are 1, 2, 4, 8 bytes, v is the operand size, z that but at most 4 bytes
 * encoded, s is v but at most 4 bytes, which is the same for the operand.
 */
enum class Form : u8 { none, e, g, i, a, o, x, y };
enum class Size : u8 { b, w, q, v, z };

constexpr u8 part_of(Form form, Size size)
{
	return static_cast<u8>(static_cast<unsigned>(form) << 4 | static_cast<unsigned>(size));
}

enum class Part : u8 {
	none = 0,
	eb = part_of(Form::e, Size::b),
	ew = part_of(Form::e, Size::w),
	es = part_of(Form::e, Size::z),
	eq = part_of(Form::e, Size::q),
	ev = part_of(Form::e, Size::v),
	gb = part_of(Form::g, Size::b),
	gv = part_of(Form::g, Size::v),
	ib = part_of(Form::i, Size::b),
	iz = part_of(Form::i, Size::z),
	ab = part_of(Form::a, Size::b),
	av = part_of(Form::a, Size::v),
	ob = part_of(Form::o, Size::b),
	ov = part_of(Form::o, Size::v),
	xb = part_of(Form::x, Size::b),
	xv = part_of(Form::x, Size::v),
	yb = part_of(Form::y, Size::b),
	yv = part_of(Form::y, Size::v),
};

constexpr Form form_of(Part part)
{
	return static_cast<Form>(static_cast<u8>(part) >> 4);
}

constexpr Size size_of(Part part)
{
	return static_cast<Size>(static_cast<u8>(part) & 0xf);
}

constexpr u16 escape_0f = 0x100, escape_0f38 = 0x200;
constexpr s8 no_digit = -1;

struct Row {
	u16 opcode; /* after the escapes */
	Operation operation;
	Part destination, source = Part::none;
	/* In ModR/M's reg field, which tells instructions of one opcode apart. */
	s8 digit = no_digit;
};

using enum Operation;
using enum Part;

/* Rows of one opcode are next to each other. */
constexpr Row rows[] = {
	{0x00, add, eb, gb},
	{0x01, add, ev, gv},
	{0x02, add, gb, eb},
	{0x03, add, gv, ev},
	{0x08, or_, eb, gb},
	{0x09, or_, ev, gv},
	{0x0a, or_, gb, eb},
	{0x0b, or_, gv, ev},
	{0x10, adc, eb, gb},
	{0x11, adc, ev, gv},
	{0x12, adc, gb, eb},
	{0x13, adc, gv, ev},
	{0x18, sbb, eb, gb},
	{0x19, sbb, ev, gv},
	{0x1a, sbb, gb, eb},
	{0x1b, sbb, gv, ev},
	{0x20, and_, eb, gb},
	{0x21, and_, ev, gv},
	{0x22, and_, gb, eb},
	{0x23, and_, gv, ev},
	{0x28, sub, eb, gb},
	{0x29, sub, ev, gv},
	{0x2a, sub, gb, eb},
	{0x2b, sub, gv, ev},
	{0x30, xor_, eb, gb},
	{0x31, xor_, ev, gv},
	{0x32, xor_, gb, eb},
	{0x33, xor_, gv, ev},
	{0x38, cmp, eb, gb},
	{0x39, cmp, ev, gv},
	{0x3a, cmp, gb, eb},
	{0x3b, cmp, gv, ev},
	/* In other than 64-bit code it is ARPL. */
	{0x63, movsx, gv, es},
	{0x80, add, eb, ib, 0},
	{0x80, or_, eb, ib, 1},
	{0x80, adc, eb, ib, 2},
	{0x80, sbb, eb, ib, 3},
	{0x80, and_, eb, ib, 4},
	{0x80, sub, eb, ib, 5},
	{0x80, xor_, eb, ib, 6},
	{0x80, cmp, eb, ib, 7},
	{0x81, add, ev, iz, 0},
	{0x81, or_, ev, iz, 1},
	{0x81, adc, ev, iz, 2},
	{0x81, sbb, ev, iz, 3},
	{0x81, and_, ev, iz, 4},
	{0x81, sub, ev, iz, 5},
	{0x81, xor_, ev, iz, 6},
	{0x81, cmp, ev, iz, 7},
	{0x83, add, ev, ib, 0},
	{0x83, or_, ev, ib, 1},
	{0x83, adc, ev, ib, 2},
	{0x83, sbb, ev, ib, 3},
	{0x83, and_, ev, ib, 4},
	{0x83, sub, ev, ib, 5},
	{0x83, xor_, ev, ib, 6},
	{0x83, cmp, ev, ib, 7},
	{0x84, test, eb, gb},
	{0x85, test, ev, gv},
	{0x86, xchg, eb, gb},
	{0x87, xchg, ev, gv},
	{0x88, mov, eb, gb},
	{0x89, mov, ev, gv},
	{0x8a, mov, gb, eb},
	{0x8b, mov, gv, ev},
	{0xa0, mov, ab, ob},
	{0xa1, mov, av, ov},
	{0xa2, mov, ob, ab},
	{0xa3, mov, ov, av},
	{0xa4, mov, yb, xb}, /* MOVS */
	{0xa5, mov, yv, xv},
	{0xa6, cmp, xb, yb}, /* CMPS */
	{0xa7, cmp, xv, yv},
	{0xaa, mov, yb, ab}, /* STOS */
	{0xab, mov, yv, av},
	{0xac, mov, ab, xb}, /* LODS */
	{0xad, mov, av, xv},
	{0xae, cmp, ab, yb}, /* SCAS */
	{0xaf, cmp, av, yv},
	{0xc6, mov, eb, ib, 0},
	{0xc7, mov, ev, iz, 0},
	{0xf6, test, eb, ib, 0},
	{0xf6, test, eb, ib, 1}, /* not in the manual, but in every CPU */
	{0xf6, not_, eb, none, 2},
	{0xf6, neg, eb, none, 3},
	{0xf7, test, ev, iz, 0},
	{0xf7, test, ev, iz, 1},
	{0xf7, not_, ev, none, 2},
	{0xf7, neg, ev, none, 3},
	{0xfe, inc, eb, none, 0},
	{0xfe, dec, eb, none, 1},
	{0xff, inc, ev, none, 0},
	{0xff, dec, ev, none, 1},
	{escape_0f | 0xa3, bt, ev, gv},
	{escape_0f | 0xab, bts, ev, gv},
	{escape_0f | 0xb0, cmpxchg, eb, gb},
	{escape_0f | 0xb1, cmpxchg, ev, gv},
	{escape_0f | 0xb3, btr, ev, gv},
	{escape_0f | 0xb6, movzx, gv, eb},
	{escape_0f | 0xb7, movzx, gv, ew},
	{escape_0f | 0xba, bt, ev, ib, 4},
	{escape_0f | 0xba, bts, ev, ib, 5},
	{escape_0f | 0xba, btr, ev, ib, 6},
	{escape_0f | 0xba, btc, ev, ib, 7},
	{escape_0f | 0xbb, btc, ev, gv},
	{escape_0f | 0xbe, movsx, gv, eb},
	{escape_0f | 0xbf, movsx, gv, ew},
	{escape_0f | 0xc0, xadd, eb, gb},
	{escape_0f | 0xc1, xadd, ev, gv},
	{escape_0f | 0xc7, cmpxchg8b, eq, none, 1},
	{escape_0f38 | 0xf0, movbe, gv, ev},
	{escape_0f38 | 0xf1, movbe, ev, gv},
};

constexpr unsigned row_count = sizeof(rows) / sizeof(*rows);

/* Of each opcode the first row, counted from 1; 0: there is none. */
constexpr auto first_rows = [] {
	std::array<u8, 0x300> first = {};

	static_assert(row_count < 0xff);
	for (u8 i = 0; const Row &row : rows) {
		i++;
		if (first[row.opcode] == 0)
			first[row.opcode] = i;
	}
	return first;
}();

/* The bytes of an instruction, taken one after the other; `ok` turns false at the end of them. */
struct Stream {
	const u8 *bytes;
	unsigned count;
	unsigned position = 0;
	bool ok = true;

	u8 peek()
	{
		if (position >= count) {
			ok = false;
			return 0;
		}
		return bytes[position];
	}
	u8 byte()
	{
		u8 value = peek();

		position++;
		return value;
	}
	u64 number(unsigned size)
	{
		u64 value = 0;

		if (position + size > count) {
			ok = false;
			return 0;
		}
		/* By the size, as it would be a call else. */
		switch (size) {
		case 1:
			value = bytes[position];
			break;
		case 2:
			__builtin_memcpy(&value, bytes + position, 2);
			break;
		case 4:
			__builtin_memcpy(&value, bytes + position, 4);
			break;
		case 8:
			__builtin_memcpy(&value, bytes + position, 8);
			break;
		}
		position += size;
		return value;
	}
	s64 signed_number(unsigned size)
	{
		return static_cast<s64>(sign_extend(number(size), size));
	}
};

struct Prefixes {
	bool operand_size = false;
	bool address_size = false;
	bool lock = false;
	Instruction::Repeat repeat = Instruction::Repeat::none;
	bool has_segment = false;
	Seg segment = Seg::ds;
	u8 rex = 0;

	bool w() const { return rex & 8; }
	u8 r() const { return rex & 4 ? 8 : 0; }
	u8 x() const { return rex & 2 ? 8 : 0; }
	u8 b() const { return rex & 1 ? 8 : 0; }
};

/* Leaves the opcode as the next byte. */
Prefixes read_prefixes(Stream &in, CodeSize code)
{
	Prefixes p;

	for (; in.ok; in.position++) {
		u8 byte = in.peek();

		/* No prefix is an opcode. */
		if (first_rows[byte])
			break;
		if (code == CodeSize::bits64 && (byte & 0xf0) == 0x40) {
			p.rex = byte;
			continue;
		}
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
			p.lock = true;
			break;
		case 0xf2:
			p.repeat = Instruction::Repeat::while_not_equal;
			break;
		case 0xf3:
			p.repeat = Instruction::Repeat::while_equal;
			break;
		default:
			return p;
		}
		/* REX counts only right before the opcode. */
		p.rex = 0;
	}
	return p;
}

u16 read_opcode(Stream &in)
{
	u8 byte = in.byte();

	if (byte != 0x0f)
		return byte;
	byte = in.byte();
	if (byte != 0x38)
		return escape_0f | byte;
	return escape_0f38 | in.byte();
}

/* "16-Bit Addressing Forms with the ModR/M Byte" */
void read_operand16(Stream &in, u8 mod, u8 rm, MemoryOperand &m)
{
	static constexpr s8 none = MemoryOperand::no_register;
	static constexpr s8 base[8] = {rbx, rbx, rbp, rbp, rsi, rdi, rbp, rbx};
	static constexpr s8 index[8] = {rsi, rdi, rsi, rdi, none, none, none, none};

	if (mod == 0 && rm == 6) {
		m.displacement = static_cast<s64>(in.number(2));
		return;
	}
	m.base = base[rm];
	m.index = index[rm];
	m.displacement = mod == 1 ? in.signed_number(1) : mod == 2 ? in.signed_number(2) : 0;
}

/* "32-Bit Addressing Forms with the ModR/M Byte" and the SIB byte; with REX also for 64 bits. */
void read_operand32(Stream &in, u8 mod, u8 rm, const Prefixes &p, CodeSize code, MemoryOperand &m)
{
	if (rm == 4) {
		u8 sib = in.byte();
		u8 index = static_cast<u8>(((sib >> 3) & 7) | p.x());

		if (index != rsp) {
			m.index = static_cast<s8>(index);
			m.scale = static_cast<u8>(1 << (sib >> 6));
		}
		if (mod == 0 && (sib & 7) == 5) {
			m.displacement = in.signed_number(4);
			return;
		}
		m.base = static_cast<s8>((sib & 7) | p.b());
	} else if (mod == 0 && rm == 5) {
		m.displacement = in.signed_number(4);
		m.rip_relative = code == CodeSize::bits64;
		return;
	} else {
		m.base = static_cast<s8>(rm | p.b());
	}
	m.displacement = mod == 1 ? in.signed_number(1) : mod == 2 ? in.signed_number(4) : 0;
}

/* Of a part with @size: the most frequent first. */
u8 bytes_of(Size size, u8 operand_size)
{
	if (size == Size::v)
		return operand_size;
	if (size == Size::b)
		return 1;
	if (size == Size::z)
		return operand_size < 4 ? operand_size : 4;
	return size == Size::w ? 2 : 8;
}

/* What the parts of an instruction go by. */
struct Context {
	Stream &in;
	const Prefixes &prefixes;
	u8 operand_size;
	u8 address_size;
	u8 reg; /* of ModR/M */
};

/* Addressed by a register alone, as strings are. */
MemoryOperand pointed_to(const Context &c, Gpr base, Seg segment)
{
	return {.segment = segment, .address_size = c.address_size, .base = static_cast<s8>(base)};
}

/* One that is not memory by ModR/M. */
void read_part_alone(const Context &c, Part part, Operand &o)
{
	using Kind = Operand::Kind;

	switch (form_of(part)) {
	case Form::none:
	case Form::e:
		break;
	case Form::g:
		o.kind = Kind::reg;
		o.reg = c.reg;
		/* Without REX, byte registers 4 to 7 are AH, CH, DH, BH. */
		if (part == gb && c.prefixes.rex == 0 && o.reg >= 4) {
			o.reg -= 4;
			o.high_byte = true;
		}
		break;
	case Form::i:
		o.kind = Kind::immediate;
		o.immediate = static_cast<u64>(c.in.signed_number(o.size));
		break;
	case Form::a:
		o.kind = Kind::reg;
		o.reg = rax;
		break;
	case Form::o:
		o.kind = Kind::memory;
		o.memory = {.segment = c.prefixes.segment,
			    .address_size = c.address_size,
			    .displacement = static_cast<s64>(c.in.number(c.address_size))};
		break;
	case Form::x:
		o.kind = Kind::memory;
		o.memory = pointed_to(c, rsi, c.prefixes.segment);
		break;
	case Form::y:
		o.kind = Kind::memory;
		o.memory = pointed_to(c, rdi, Seg::es);
		break;
	}
}

/* Memory by ModR/M is there already. */
inline void read_part(const Context &c, Part part, Operand &o)
{
	if (part == none)
		return;
	o.size = bytes_of(size_of(part), c.operand_size);
	if (form_of(part) == Form::e)
		o.kind = Operand::Kind::memory;
	else
		read_part_alone(c, part, o);
}

constexpr bool has_modrm(const Row &row)
{
	return form_of(row.destination) == Form::e || form_of(row.destination) == Form::g;
}

constexpr bool is_string(const Row &row)
{
	return form_of(row.destination) >= Form::x || form_of(row.source) >= Form::x;
}

/* Whether memory by ModR/M is the destination, in all rows of an opcode. */
constexpr bool changes_memory(const Row &row)
{
	return form_of(row.destination) == Form::e;
}
static_assert([] {
	for (const Row &row : rows)
		if (changes_memory(row) != changes_memory(rows[first_rows[row.opcode] - 1]))
			return false;
	return true;
}());

/* "LOCK" in the instruction set's reference: what may have it. */
bool lockable(const Instruction &i)
{
	return !i.string && i.destination.is_memory() && i.reads_destination() &&
	       i.writes_destination();
}

/* False where ModR/M, @modrm, names a register instead of memory. */
bool read_memory(Stream &in, u8 modrm, const Prefixes &p, CodeSize code, u8 address_size,
		 MemoryOperand &m)
{
	u8 mod = modrm >> 6, rm = modrm & 7;

	if (mod == 3)
		return false;
	m.address_size = address_size;
	if (address_size == 2)
		read_operand16(in, mod, rm, m);
	else
		read_operand32(in, mod, rm, p, code, m);
	/* What is addressed by the stack pointer or the frame pointer is on the stack. */
	if (p.has_segment)
		m.segment = p.segment;
	else if (m.base == rsp || m.base == rbp)
		m.segment = Seg::ss;
	return true;
}

/* From @row on, the first of its opcode. Null where there is none. */
const Row *find_row(const Row *row, u8 digit)
{
	for (u16 opcode = row->opcode; row->digit != digit; row++) {
		if (row->digit == no_digit)
			break;
		if (row + 1 == rows + row_count || row[1].opcode != opcode)
			return nullptr;
	}
	return row;
}

bool decode(Stream &in, CodeSize code, Instruction &i)
{
	Prefixes p = read_prefixes(in, code);
	u16 opcode = read_opcode(in);
	u8 first = first_rows[opcode], modrm = 0;

	if (!first)
		return false;
	const Row *row = &rows[first - 1];
	bool small = code == CodeSize::bits16;
	u8 operand_size = p.w() ? 8 : (p.operand_size != small) ? 2 : 4;
	u8 address_size = code == CodeSize::bits64    ? (p.address_size ? 4 : 8)
			  : (p.address_size != small) ? 2
						      : 4;
	if (has_modrm(*row)) {
		Operand &o = changes_memory(*row) ? i.destination : i.source;

		modrm = in.byte();
		if (!read_memory(in, modrm, p, code, address_size, o.memory))
			return false;
	}
	u8 digit = (modrm >> 3) & 7;
	row = find_row(row, digit);
	if (!row)
		return false;

	Context c{.in = in,
		  .prefixes = p,
		  .operand_size = operand_size,
		  .address_size = address_size,
		  .reg = static_cast<u8>(digit | p.r())};
	i.operation = row->operation;
	i.address_size = address_size;
	read_part(c, row->destination, i.destination);
	read_part(c, row->source, i.source);
	i.length = static_cast<u8>(in.position);
	i.string = is_string(*row);
	if (i.string)
		i.repeat = p.repeat;
	if (p.lock && !lockable(i))
		return false;
	switch (opcode) {
	case 0x63:
		return code == CodeSize::bits64;
	case escape_0f | 0xc7:
		return !p.w(); /* else CMPXCHG16B */
	case escape_0f38 | 0xf0:
	case escape_0f38 | 0xf1:
		return p.repeat == Instruction::Repeat::none; /* else CRC32, or nothing */
	}
	return true;
}

} // namespace

DecodeOutcome decode(const u8 *bytes, unsigned count, CodeSize code, Instruction &instruction)
{
	constexpr unsigned longest = 15;
	Stream in{bytes, count < longest ? count : longest};
	bool known = decode(in, code, instruction);

	if (!in.ok)
		return count < longest ? DecodeOutcome::too_short : DecodeOutcome::unknown;
	return known ? DecodeOutcome::ok : DecodeOutcome::unknown;
}

} // namespace kvmpp
