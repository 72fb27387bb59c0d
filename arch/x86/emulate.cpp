// SPDX-License-Identifier: GPL-2.0
/* Instructions that user space completes: MOV on device memory, and string I/O. */
#include "handlers.hpp"
#include "mov.hpp"
#include "paging.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

namespace
{

void store_bytes(u8 (&data)[8], u64 value)
{
	for (int i = 0; i < 8; i++)
		data[i] = static_cast<u8>(value >> (8 * i));
}

u64 load_bytes(const u8 *data, unsigned size)
{
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= u64{data[i]} << (8 * i);
	return value;
}

u64 sign_extend(u64 value, unsigned size)
{
	unsigned shift = 64 - 8 * size;

	return static_cast<u64>(static_cast<s64>(value << shift) >> shift);
}

/* Writes the low @size bytes of a register as instructions do: 4 bytes clear the upper half. */
void write_register(VcpuState &s, u8 reg, unsigned size, bool high_byte, u64 value)
{
	u64 &r = s.gpr[reg];

	if (high_byte)
		r = (r & ~u64{0xff00}) | (value & 0xff) << 8;
	else if (size == 8)
		r = value;
	else if (size == 4)
		r = static_cast<u32>(value);
	else
		r = (r & ~low_bits(8 * size)) | (value & low_bits(8 * size));
	if (reg == rsp)
		s.mark_dirty(Group::rsp);
}

Next emulation_failed(VcpuState &s, const Exit &exit)
{
	return internal_error(s, KVM_INTERNAL_ERROR_EMULATION, exit.raw_reason,
			      exit.guest_phys.value);
}

/* The outcome of a translation that is no address: a fault for the guest, or the end. */
Next translation_failed(VcpuState &s, const Exit &exit, GuestLinear linear, const Translation &t)
{
	if (t.outcome == Translation::Outcome::page_fault)
		return after_injection(s, s.inject_page_fault(linear.value, t.error_code));
	return emulation_failed(s, exit);
}

CodeSize code_size(const VcpuState &s)
{
	if (s.code64())
		return CodeSize::bits64;
	/* In real mode CS's D bit is as clear as it was after reset. */
	return s.seg(Seg::cs).is_big() ? CodeSize::bits32 : CodeSize::bits16;
}

/* Linear addresses have 32 bits but in 64-bit code: what goes past 4 GiB begins anew at 0. */
GuestLinear linear_address(const VcpuState &s, u64 value)
{
	return {s.code64() ? value : static_cast<u32>(value)};
}

/* Fetches and decodes the instruction at RIP. What is not `ok` is done already, with @next. */
bool fetch_mov(VcpuState &s, const Exit &exit, const GuestMemory &memory, MovInstruction &mov,
	       Next &next)
{
	constexpr unsigned longest = 15;
	u8 bytes[longest];
	unsigned have = 0;
	CodeSize code = code_size(s);

	while (have < longest) {
		u64 base = code == CodeSize::bits64 ? 0 : s.seg(Seg::cs).base;
		GuestLinear linear = linear_address(s, base + s.rip + have);
		Translation t = translate(s, memory, linear, {.fetch = true});

		if (t.outcome != Translation::Outcome::ok) {
			next = translation_failed(s, exit, linear, t);
			return false;
		}
		u64 rest_of_page = page_size - t.address.page_offset();
		unsigned length = rest_of_page < longest - have
					  ? static_cast<unsigned>(rest_of_page)
					  : longest - have;
		if (!memory.read(t.address, bytes + have, length)) {
			next = emulation_failed(s, exit);
			return false;
		}
		have += length;
		switch (decode_mov(bytes, have, code, mov)) {
		case DecodeOutcome::ok:
			return true;
		case DecodeOutcome::too_short:
			continue;
		case DecodeOutcome::unknown:
			next = emulation_failed(s, exit);
			return false;
		}
	}
	next = emulation_failed(s, exit);
	return false;
}

/* Tells user space of the next fragment. */
Next show_fragment(VcpuState &s)
{
	PendingAccess &p = s.pending;
	const PendingAccess::Fragment &f = p.fragments[p.fragment_next];

	s.user = {.reason = KVM_EXIT_MMIO,
		  .mmio = {.phys_addr = f.address.value,
			   .data = {},
			   .len = f.length,
			   .is_write = p.kind == PendingAccess::Kind::mmio_write}};
	for (unsigned i = 0; s.user.mmio.is_write && i < f.length; i++)
		s.user.mmio.data[i] = p.data[f.offset + i];
	return Next::user;
}

Next finish_mmio(VcpuState &s)
{
	PendingAccess &p = s.pending;

	if (p.kind == PendingAccess::Kind::mmio_read) {
		u64 value = load_bytes(p.data, p.size);

		write_register(s, p.reg, p.reg_size, p.high_byte,
			       p.sign_extend ? sign_extend(value, p.size) : value);
		s.skip_instruction(p.instruction_length);
	}
	p.kind = PendingAccess::Kind::none;
	return Next::resume;
}

/* Copies between guest memory at @linear and @data, page by page. Else @next says what now. */
bool copy_linear(VcpuState &s, const Exit &exit, const GuestMemory &memory, GuestLinear linear,
		 u8 *data, unsigned size, bool write, Next &next)
{
	while (size) {
		Translation t = translate(s, memory, linear, {.write = write});

		if (t.outcome != Translation::Outcome::ok) {
			next = translation_failed(s, exit, linear, t);
			return false;
		}
		u64 rest_of_page = page_size - t.address.page_offset();
		unsigned length = rest_of_page < size ? static_cast<unsigned>(rest_of_page) : size;
		if (!(write ? memory.write(t.address, data, length)
			    : memory.read(t.address, data, length))) {
			next = emulation_failed(s, exit);
			return false;
		}
		linear = linear_address(s, linear.value + length);
		data += length;
		size -= length;
	}
	return true;
}

/* Steps a string instruction on: the index register, the count, and RIP where it was the last. */
void step_string(VcpuState &s, Gpr index, unsigned size, unsigned address_size, bool rep,
		 u32 instruction_length)
{
	u64 step = s.rflags & rflags::df ? -u64{size} : size;

	write_register(s, index, address_size, false, s.gpr[index] + step);
	if (rep) {
		write_register(s, rcx, address_size, false, s.gpr[rcx] - 1);
		if (s.gpr[rcx] & low_bits(8 * address_size))
			return;
	}
	s.skip_instruction(instruction_length);
}

} // namespace

Next emulate_mmio(VcpuState &s, const Exit &exit, const GuestMemory &memory)
{
	MovInstruction mov;
	Next next;

	/* The guest's stack or a table of its is no RAM: there is no instruction to emulate. */
	if (exit.vectoring.valid())
		return internal_error(s, KVM_INTERNAL_ERROR_DELIVERY_EV, exit.vectoring.raw,
				      exit.raw_reason);
	if (!fetch_mov(s, exit, memory, mov, next))
		return next;

	PendingAccess p;
	p.kind = mov.store ? PendingAccess::Kind::mmio_write : PendingAccess::Kind::mmio_read;
	p.size = mov.size;
	p.reg = mov.reg;
	p.reg_size = mov.reg_size;
	p.high_byte = mov.high_byte;
	p.sign_extend = mov.sign_extend;
	p.instruction_length = mov.length;
	p.rip = s.rip;
	if (mov.store)
		store_bytes(p.data, mov.has_immediate ? mov.immediate
				    : mov.high_byte   ? s.gpr[mov.reg] >> 8
						      : s.gpr[mov.reg]);

	/* An operand may lie in two pages, and each of them may be RAM or not. */
	struct Part {
		GuestPhys address;
		u8 offset, length;
	} parts[2];
	unsigned part_count = 0;
	GuestLinear linear = operand_address(s, mov);
	for (u8 done = 0; done < mov.size;) {
		GuestLinear at = linear_address(s, linear.value + done);
		Translation t = translate(s, memory, at, {.write = mov.store});

		if (t.outcome != Translation::Outcome::ok)
			return translation_failed(s, exit, at, t);
		u64 rest_of_page = page_size - t.address.page_offset();
		u8 length = static_cast<u8>(rest_of_page < u64(mov.size - done) ? rest_of_page
										: mov.size - done);
		parts[part_count++] = {t.address, done, length};
		done = static_cast<u8>(done + length);
	}
	for (unsigned i = 0; i < part_count; i++) {
		const Part &part = parts[i];

		if (!(mov.store ? memory.takes_writes(part.address)
				: memory.is_ram(part.address))) {
			p.fragments[p.fragment_count++] = {part.address, part.offset, part.length};
			continue;
		}
		u8 *data = p.data + part.offset;
		if (!(mov.store ? memory.write(part.address, data, part.length)
				: memory.read(part.address, data, part.length)))
			return emulation_failed(s, exit);
	}
	s.pending = p;
	if (mov.store)
		s.skip_instruction(mov.length);
	if (p.fragment_count == 0) /* it became RAM since the exit */
		return finish_mmio(s);
	return show_fragment(s);
}

Next handle_string_io(VcpuState &s, const Exit &exit, const GuestMemory &memory)
{
	IoAccess access(exit.qualification);
	/* "VM-Exit Instruction-Information Field as Used for INS and OUTS": bits 9:7. */
	unsigned address_size = 2u << ((exit.instruction_info >> 7) & 3);
	Next next;

	if (access.rep && (s.gpr[rcx] & low_bits(8 * address_size)) == 0) {
		s.skip_instruction(exit.instruction_length);
		return Next::resume;
	}
	s.user = {.reason = KVM_EXIT_IO,
		  .io = {.direction = static_cast<u8>(access.in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT),
			 .size = access.size,
			 .port = access.port,
			 .data = {}}};
	if (!access.in) {
		if (!copy_linear(s, exit, memory, {exit.guest_linear}, s.user.io.data, access.size,
				 false, next))
			return next;
		step_string(s, rsi, access.size, address_size, access.rep, exit.instruction_length);
		return Next::user;
	}
	/* A page that cannot be written is found before the device gives up its datum. */
	Translation t = translate(s, memory, {exit.guest_linear}, {.write = true});
	if (t.outcome != Translation::Outcome::ok)
		return translation_failed(s, exit, {exit.guest_linear}, t);
	s.pending = {};
	s.pending.kind = PendingAccess::Kind::string_in;
	s.pending.size = access.size;
	s.pending.rip = s.rip;
	s.pending.instruction_length = static_cast<u8>(exit.instruction_length);
	s.pending.string_address = {exit.guest_linear};
	s.pending.address_size = static_cast<u8>(address_size);
	s.pending.rep = access.rep;
	return Next::user;
}

Next complete_access(VcpuState &s, const GuestMemory &memory, const u8 (&data)[8])
{
	using Kind = PendingAccess::Kind;
	PendingAccess &p = s.pending;
	Kind kind = p.kind;

	/* User space sent the vCPU elsewhere: the instruction is no longer its next. */
	bool still_there = s.rip == p.rip || kind == Kind::mmio_write;
	if (!still_there) {
		p.kind = Kind::none;
		return Next::resume;
	}
	switch (kind) {
	case Kind::none:
		break;
	case Kind::port_in:
		write_register(s, rax, p.size, false, load_bytes(data, p.size));
		[[fallthrough]];
	case Kind::port_out:
		s.skip_instruction(p.instruction_length);
		break;
	case Kind::string_in: {
		u8 datum[8];
		Next next;

		p.kind = Kind::none;
		for (int i = 0; i < 8; i++)
			datum[i] = data[i];
		if (!copy_linear(s, Exit(), memory, p.string_address, datum, p.size, true, next))
			return next;
		step_string(s, rdi, p.size, p.address_size, p.rep, p.instruction_length);
		break;
	}
	case Kind::msr_read:
	case Kind::msr_write:
		p.kind = Kind::none;
		if (p.refused)
			return after_injection(s, s.inject(Vector::general_protection, 0));
		if (kind == Kind::msr_read) {
			s.gpr[rax] = static_cast<u32>(load_bytes(data, 4));
			s.gpr[rdx] = static_cast<u32>(load_bytes(data, 8) >> 32);
		}
		s.skip_instruction(p.instruction_length);
		break;
	case Kind::mmio_read:
	case Kind::mmio_write: {
		const PendingAccess::Fragment &f = p.fragments[p.fragment_next];

		for (unsigned i = 0; kind == Kind::mmio_read && i < f.length; i++)
			p.data[f.offset + i] = data[i];
		if (++p.fragment_next < p.fragment_count)
			return show_fragment(s);
		return finish_mmio(s);
	}
	}
	p.kind = Kind::none;
	return Next::resume;
}

} // namespace kvmpp
