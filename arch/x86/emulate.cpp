// SPDX-License-Identifier: GPL-2.0
/*
 * Instructions on device memory, which the host carries out and user space completes.
 *
 * An instruction is one straight function, execute(). Where it reads a device it returns to user
 * space with KVM_EXIT_MMIO; when the datum is there it begins again from the top, and finds what
 * has been read in PendingAccess. Only when all is read do registers, flags and memory change, and
 * last come the writes to devices, an exit each. So nothing is half done at any exit but these.
 * Of a REP it does one iteration; the guest then meets the device again at the next one.
 */
#include "emulate.hpp"

#include "alu.hpp"
#include "paging.hpp"

#include <linux/kvm.h>

#include <utility>

namespace kvmpp
{

namespace
{

CodeSize code_size(const VcpuState &s)
{
	if (s.code64())
		return CodeSize::bits64;
	/* In real mode CS's D bit is as clear as it was after reset. */
	return s.seg(Seg::cs).is_big() ? CodeSize::bits32 : CodeSize::bits16;
}

/* Puts the instruction at RIP into VcpuState::decoded, fetching no page that it does not reach into. */
Fault fetch(VcpuState &s, const GuestMemory &memory)
{
	constexpr unsigned longest = 15;
	DecodedInstruction &d = s.decoded;
	union {
		u64 at_once[2];
		u8 bytes[sizeof(at_once)];
	};
	unsigned have = 0;
	CodeSize code = code_size(s);
	u64 base = code == CodeSize::bits64 ? 0 : s.seg(Seg::cs).base;

	while (have < longest) {
		GuestLinear linear = linear_address(s, base + s.rip + have);
		Translation t = translate(s, memory, linear, {.fetch = true});

		if (t.outcome == Translation::Outcome::page_fault)
			return {.kind = Fault::Kind::page,
				.error_code = t.error_code,
				.linear = linear};
		if (t.outcome == Translation::Outcome::no_tables)
			break;
		u64 rest_of_page = page_size - t.address.page_offset();
		bool all = have == 0 && rest_of_page >= sizeof(bytes);
		if (all) {
			if (!memory.read_16(t.address, at_once))
				break;
			if (d.is_of(at_once, code))
				return {};
			have = longest;
		} else {
			unsigned length = rest_of_page < longest - have
						  ? static_cast<unsigned>(rest_of_page)
						  : longest - have;
			if (!memory.read(t.address, bytes + have, length))
				break;
			have += length;
		}
		d = {};
		DecodeOutcome outcome = decode(bytes, have, code, d.instruction);
		if (outcome == DecodeOutcome::ok) {
			if (all) {
				d.code = code;
				d.bytes[0] = at_once[0];
				d.bytes[1] = at_once[1];
				d.has_bytes = true;
			}
			return {};
		}
		if (outcome == DecodeOutcome::unknown)
			break;
	}
	return {.kind = Fault::Kind::failed};
}

/*
 * "Exit Qualification for EPT Violations": the access that met it had come by the guest's own tables. (One in
 * these tables is not emulated.)
 */
TranslatedPage translated(const Exit &exit)
{
	EptViolation violation(exit.qualification);

	return {.linear = {exit.guest_linear},
		.phys = exit.guest_phys,
		.valid = violation.linear_valid && !violation.fetch,
		.for_write = violation.write};
}

/* Tells user space of the next fragment. */
Next show_fragment(VcpuState &s)
{
	PendingAccess &p = s.pending;
	const PendingAccess::Fragment &f = p.fragments[p.fragment_next];

	bool is_write = p.kind == PendingAccess::Kind::mmio_write;
	u64 data = 0;

	if (is_write) {
		__builtin_memcpy(&data, p.data + f.offset, sizeof(data));
		data &= low_bits(8 * f.length);
	}

	s.user.reason = KVM_EXIT_MMIO;
	s.user.mmio.phys_addr = f.address.value;
	__builtin_memcpy(s.user.mmio.data, &data, sizeof(data));
	s.user.mmio.len = f.length;
	s.user.mmio.is_write = is_write;
	return Next::user;
}

/* One run through the instruction that has been decoded. */
class Execution
{
public:
	Execution(VcpuState &s, const Exit &exit, const GuestMemory &memory)
		: s_(s), exit_(exit), memory_(memory), i_(s.decoded.instruction),
		  known_(translated(exit))
	{
	}
	Next execute();

private:
	enum class Reading { done, asked, failed };

	Fault locate_operand(const Operand &o, bool write, Place &place) const;
	Reading read(const Operand &o, const Place &place, u64 &value);
	Reading read_memory(const Operand &o, const Place &place, u64 &value);
	bool write(const Place &place, u64 value);
	void compute();
	void compare_and_exchange();
	void compare_and_exchange_8_bytes();
	void finish();
	void set_flags(u64 rflags)
	{
		s_.rflags = rflags;
		s_.mark_dirty(Group::rflags);
	}
	Next failed() { return emulation_failed(s_, exit_); }

	VcpuState &s_;
	const Exit &exit_;
	const GuestMemory &memory_;
	const Instruction &i_;
	const TranslatedPage known_;
	/* Of the fragments in PendingAccess, those that this run has come by. */
	unsigned fragments_ = 0;
	unsigned fragment_bytes_ = 0;
	/* The operands' values; compute() makes the new ones of the old. */
	u64 destination_ = 0, source_ = 0;
};

Fault Execution::locate_operand(const Operand &o, bool write, Place &place) const
{
	u64 displacement = 0;
	bool bit_string = i_.operation >= Operation::bt && i_.operation <= Operation::btc;

	/* "Bit(BitBase, BitOffset)": the register's number may lead anywhere. */
	if (bit_string && i_.source.kind == Operand::Kind::reg) {
		u64 bit = sign_extend(read_register(s_, i_.source), i_.source.size);

		displacement = static_cast<u64>(static_cast<s64>(bit) >> 3) & ~u64(o.size - 1);
	}
	return locate(s_, memory_, known_, o, i_.length, displacement, write, place);
}

/* The operand's value, unless a device has to be asked first. */
inline Execution::Reading Execution::read(const Operand &o, const Place &place, u64 &value)
{
	switch (o.kind) {
	case Operand::Kind::none:
		break;
	case Operand::Kind::reg:
		value = read_register(s_, o);
		break;
	case Operand::Kind::immediate:
		value = o.immediate;
		break;
	case Operand::Kind::memory:
		return read_memory(o, place, value);
	}
	return Reading::done;
}

Execution::Reading Execution::read_memory(const Operand &o, const Place &place, u64 &value)
{
	PendingAccess &p = s_.pending;
	u8 data[8];

	for (unsigned n = 0; n < place.count; n++) {
		const Place::Piece &piece = place.pieces[n];

		/* Read-only memory is a device to writes alone. */
		if (!piece.device || memory_.is_ram(piece.address)) {
			if (!memory_.read(piece.address, data + piece.offset, piece.length))
				return Reading::failed;
			continue;
		}
		PendingAccess::Fragment &f = p.fragments[fragments_];
		if (fragments_ == p.fragment_next || f.address != piece.address ||
		    f.length != piece.length) {
			p.kind = PendingAccess::Kind::mmio_read;
			p.rip = s_.rip;
			f = {piece.address, static_cast<u8>(fragment_bytes_), piece.length};
			p.fragment_next = static_cast<u8>(fragments_);
			return Reading::asked;
		}
		for (unsigned b = 0; b < piece.length; b++)
			data[piece.offset + b] = p.data[f.offset + b];
		fragments_++;
		fragment_bytes_ += piece.length;
	}
	value = load_bytes(data, o.size);
	return Reading::done;
}

/* To memory now, to devices when show_fragment() is called. False: the VMM took the memory away. */
bool Execution::write(const Place &place, u64 value)
{
	PendingAccess &p = s_.pending;

	p.kind = PendingAccess::Kind::none;
	p.fragment_count = p.fragment_next = 0;
	__builtin_memcpy(p.data, &value, sizeof(value));
	for (unsigned n = 0; n < place.count; n++) {
		const Place::Piece &piece = place.pieces[n];

		if (piece.device) {
			p.fragments[p.fragment_count++] = {piece.address, piece.offset,
							   piece.length};
			p.kind = PendingAccess::Kind::mmio_write;
		} else if (!memory_.write(piece.address, p.data + piece.offset, piece.length)) {
			p.kind = PendingAccess::Kind::none;
			return false;
		}
	}
	return true;
}

void Execution::compare_and_exchange()
{
	const Operand &d = i_.destination;
	u64 accumulator = s_.gpr[rax] & low_bits(8 * d.size);

	set_flags(alu(Operation::cmp, d.size, accumulator, destination_, s_.rflags).rflags);
	/* Memory is written in either case. */
	if (accumulator == destination_)
		destination_ = source_;
	else
		write_register(s_, rax, d.size, destination_);
}

void Execution::compare_and_exchange_8_bytes()
{
	u64 wanted = s_.gpr[rdx] << 32 | static_cast<u32>(s_.gpr[rax]);

	if (wanted == destination_) {
		set_flags(s_.rflags | rflags::zf);
		destination_ = s_.gpr[rcx] << 32 | static_cast<u32>(s_.gpr[rbx]);
	} else {
		set_flags(s_.rflags & ~rflags::zf);
		write_register(s_, rax, 4, destination_);
		write_register(s_, rdx, 4, destination_ >> 32);
	}
}

/* What the instruction does with its operands' values, its flags and its other registers. */
void Execution::compute()
{
	const Operand &d = i_.destination, &source = i_.source;

	switch (i_.operation) {
	case Operation::mov:
	case Operation::movzx:
		destination_ = source_;
		break;
	case Operation::movsx:
		destination_ = sign_extend(source_, source.size);
		break;
	case Operation::movbe:
		destination_ = __builtin_bswap64(source_) >> (64 - 8 * d.size);
		break;
	case Operation::xchg:
		write_register(s_, source, destination_);
		destination_ = source_;
		break;
	case Operation::xadd: {
		AluResult r = alu(Operation::add, d.size, destination_, source_, s_.rflags);

		write_register(s_, source, destination_);
		destination_ = r.value;
		set_flags(r.rflags);
		break;
	}
	case Operation::cmpxchg:
		compare_and_exchange();
		break;
	case Operation::cmpxchg8b:
		compare_and_exchange_8_bytes();
		break;
	default: {
		AluResult r = alu(i_.operation, d.size, destination_, source_, s_.rflags);

		destination_ = r.value;
		set_flags(r.rflags);
	}
	}
}

/* RIP goes to the next instruction, or stays at a REP that has more to do. */
void Execution::finish()
{
	using Repeat = Instruction::Repeat;
	bool last = true;

	if (i_.string) {
		for (const Operand *o : {&i_.destination, &i_.source})
			if (o->is_memory())
				step_index(s_, static_cast<u8>(o->memory.base), o->size,
					   i_.address_size);
		if (i_.repeat != Repeat::none) {
			write_register(s_, rcx, i_.address_size, s_.gpr[rcx] - 1);
			last = !(s_.gpr[rcx] & low_bits(8 * i_.address_size));
			if (i_.operation == Operation::cmp)
				last = last || !!(s_.rflags & rflags::zf) !=
						       (i_.repeat == Repeat::while_equal);
		}
	}
	if (last && (s_.rflags & rflags::rf))
		set_flags(s_.rflags & ~rflags::rf);
	s_.skip_instruction(last ? i_.length : 0);
}

Next Execution::execute()
{
	bool writes = i_.writes_destination();
	Place destination, source;

	if (i_.string && i_.repeat != Instruction::Repeat::none &&
	    !(s_.gpr[rcx] & low_bits(8 * i_.address_size))) {
		s_.skip_instruction(i_.length);
		s_.pending.kind = PendingAccess::Kind::none;
		return Next::resume;
	}
	/* All faults come before the first access: a device is not asked twice. */
	Fault fault;
	if (i_.source.is_memory())
		fault = locate_operand(i_.source, false, source);
	if (!fault && i_.destination.is_memory())
		fault = locate_operand(i_.destination, writes, destination);
	if (fault) {
		s_.pending.kind = PendingAccess::Kind::none;
		return deliver(s_, exit_, fault);
	}
	/* It became RAM since the exit: the CPU does it, atomically if it has to be. */
	if (!source.has_device && !destination.has_device) {
		s_.pending.kind = PendingAccess::Kind::none;
		return Next::resume;
	}
	Reading reading = read(i_.source, source, source_);
	if (reading == Reading::done && i_.reads_destination())
		reading = read(i_.destination, destination, destination_);
	switch (reading) {
	case Reading::asked:
		return show_fragment(s_);
	case Reading::failed:
		s_.pending.kind = PendingAccess::Kind::none;
		return failed();
	case Reading::done:
		break;
	}
	compute();
	if (writes && !i_.destination.is_memory())
		write_register(s_, i_.destination, destination_);
	finish();
	s_.pending.kind = PendingAccess::Kind::none;
	if (!writes || !i_.destination.is_memory())
		return Next::resume;
	if (!write(destination, destination_))
		return failed();
	return s_.pending.kind == PendingAccess::Kind::mmio_write ? show_fragment(s_)
								  : Next::resume;
}

/* What was asked for in the last fragment of a read is there. */
Next continue_read(VcpuState &s, const GuestMemory &memory, const u8 (&data)[8])
{
	PendingAccess &p = s.pending;
	const PendingAccess::Fragment &f = p.fragments[p.fragment_next++];

	for (unsigned i = 0; i < f.length; i++)
		p.data[f.offset + i] = data[i];
	return Execution(s, Exit(), memory).execute();
}

} // namespace

Next emulation_failed(VcpuState &s, const Exit &exit)
{
	if (s.cpl() > 0)
		return after_injection(s, s.inject(Vector::invalid_opcode));
	return internal_error(s, KVM_INTERNAL_ERROR_EMULATION, exit.raw_reason,
			      exit.guest_phys.value);
}

Next deliver(VcpuState &s, const Exit &exit, const Fault &fault)
{
	switch (fault.kind) {
	case Fault::Kind::none:
		return Next::resume;
	case Fault::Kind::protection:
		return after_injection(s, s.inject(fault.segment == Seg::ss
							   ? Vector::stack_fault
							   : Vector::general_protection,
						   0));
	case Fault::Kind::page:
		return after_injection(s,
				       s.inject_page_fault(fault.linear.value, fault.error_code));
	case Fault::Kind::failed:
		break;
	}
	return emulation_failed(s, exit);
}

void step_index(VcpuState &s, u8 reg, unsigned size, unsigned address_size, u64 count)
{
	u64 step = count * size;

	write_register(s, reg, address_size,
		       s.rflags & rflags::df ? s.gpr[reg] - step : s.gpr[reg] + step);
}

Next emulate_mmio(VcpuState &s, const Exit &exit, const GuestMemory &memory)
{
	/* The guest's stack or a table of its is no RAM: there is no instruction to emulate. */
	if (exit.vectoring.valid())
		return internal_error(s, KVM_INTERNAL_ERROR_DELIVERY_EV, exit.vectoring.raw,
				      exit.raw_reason);
	/*
	 * Its page tables are none, or the flags that the CPU is to set in them cannot be: it comes no further,
	 * whatever the instruction is, and would try for ever.
	 */
	if (EptViolation(exit.qualification).page_walk)
		return internal_error(s, KVM_INTERNAL_ERROR_EMULATION, exit.raw_reason,
				      exit.guest_phys.value);
	if (Fault fault = fetch(s, memory))
		return deliver(s, exit, fault);
	s.pending.fragment_next = 0;
	return Execution(s, exit, memory).execute();
}

Next complete_in_registers(VcpuState &s, const u8 (&data)[8])
{
	using Kind = PendingAccess::Kind;
	PendingAccess &p = s.pending;

	/* Past its instruction already. */
	if (p.kind == Kind::mmio_write && ++p.fragment_next < p.fragment_count)
		return show_fragment(s);
	Kind kind = std::exchange(p.kind, Kind::none);
	/* User space sent the vCPU elsewhere: the instruction is no longer its next. */
	if (s.rip != p.rip)
		return Next::resume;
	switch (kind) {
	case Kind::port_in:
		write_register(s, rax, p.size, load_bytes(data, p.size));
		[[fallthrough]];
	case Kind::port_out:
		s.skip_instruction(p.instruction_length);
		break;
	case Kind::msr_read:
	case Kind::msr_write:
		if (p.refused)
			return after_injection(s, s.inject(Vector::general_protection, 0));
		if (kind == Kind::msr_read) {
			s.gpr[rax] = static_cast<u32>(load_bytes(data, 4));
			s.gpr[rdx] = static_cast<u32>(load_bytes(data, 8) >> 32);
		}
		s.skip_instruction(p.instruction_length);
		break;
	default:
		break;
	}
	return Next::resume;
}

Next complete_in_memory(VcpuState &s, const GuestMemory &memory, const u8 (&data)[8])
{
	using Kind = PendingAccess::Kind;
	PendingAccess &p = s.pending;

	if (s.rip != p.rip) {
		p.kind = Kind::none;
		return Next::resume;
	}
	if (p.kind == Kind::mmio_read)
		return continue_read(s, memory, data);
	p.kind = Kind::none;
	return finish_string_in(s, memory);
}

} // namespace kvmpp
