// SPDX-License-Identifier: GPL-2.0
/* INS and OUTS. With REP several data go in one exit, as many as the string has in its page. */
#include "emulate.hpp"
#include "paging.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

namespace
{

/* How many data of @size bytes are done at once: what lies in one page and in the segment. */
u32 batch_size(const VcpuState &s, GuestLinear linear, Seg segment, Gpr index, unsigned size,
	       unsigned address_size, bool write)
{
	u64 mask = low_bits(8 * address_size);
	u64 offset = s.gpr[index] & mask;
	u64 left = s.gpr[rcx] & mask;
	u64 count = (page_size - linear.page_offset()) / size;

	/* A trap is due after each; and down they go seldom. */
	if (s.rflags & (rflags::tf | rflags::df))
		return 1;
	count = left < count ? left : count;
	if (count < 2 || offset + count * size - 1 > mask ||
	    !segment_allows(s, segment, offset, count * size, write))
		return 1;
	return static_cast<u32>(count);
}

/* @count data are done: the index register, the count, and RIP where they were the last. */
void step_string(VcpuState &s, Gpr index, unsigned size, unsigned address_size, u32 count, bool rep,
		 u32 instruction_length)
{
	bool last = true;

	step_index(s, index, size, address_size, count);
	if (rep) {
		write_register(s, rcx, address_size, s.gpr[rcx] - count);
		last = !(s.gpr[rcx] & low_bits(8 * address_size));
	}
	s.skip_instruction(last ? instruction_length : 0);
}

} // namespace

Next handle_string_io(VcpuState &s, const Exit &exit, const GuestMemory &memory)
{
	IoAccess access(exit.qualification);
	/* "VM-Exit Instruction-Information Field as Used for INS and OUTS" */
	unsigned address_size = 2u << ((exit.instruction_info >> 7) & 3);
	Seg segment = access.in ? Seg::es : static_cast<Seg>((exit.instruction_info >> 15) & 7);
	GuestLinear linear = {exit.guest_linear};

	if (access.rep && (s.gpr[rcx] & low_bits(8 * address_size)) == 0) {
		s.skip_instruction(exit.instruction_length);
		return Next::resume;
	}
	/* The exit comes before the segment is looked at. */
	u64 offset = s.gpr[access.in ? rdi : rsi] & low_bits(8 * address_size);
	if (!segment_allows(s, segment, offset, access.size, access.in))
		return deliver(s, exit, {.kind = Fault::Kind::protection, .segment = segment});
	u32 count = access.rep ? batch_size(s, linear, segment, access.in ? rdi : rsi, access.size,
					    address_size, access.in)
			       : 1;
	s.user = {.reason = KVM_EXIT_IO,
		  .io = {.direction = static_cast<u8>(access.in ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT),
			 .size = access.size,
			 .port = access.port,
			 .string_count = count,
			 .data = {}}};
	if (!access.in) {
		if (Fault fault =
			    copy_linear(s, memory, linear, s.port_page, count * access.size, false))
			return deliver(s, exit, fault);
		step_string(s, rsi, access.size, address_size, count, access.rep,
			    exit.instruction_length);
		return Next::user;
	}
	/* A page that cannot be written is found before the device gives up its data. */
	for (u64 byte : {u64{0}, u64{access.size} - 1}) {
		GuestLinear at = linear_address(s, linear.value + byte);
		Translation t = translate(s, memory, at, {.write = true});

		if (t.outcome == Translation::Outcome::page_fault)
			return deliver(s, exit,
				       {.kind = Fault::Kind::page,
					.error_code = t.error_code,
					.linear = {byte ? at.value & page_mask : at.value}});
		if (t.outcome == Translation::Outcome::no_tables)
			return emulation_failed(s, exit);
	}
	s.pending = {};
	s.pending.kind = PendingAccess::Kind::string_in;
	s.pending.size = access.size;
	s.pending.rip = s.rip;
	s.pending.instruction_length = static_cast<u8>(exit.instruction_length);
	s.pending.string_address = linear;
	s.pending.count = count;
	s.pending.address_size = static_cast<u8>(address_size);
	s.pending.rep = access.rep;
	return Next::user;
}

Next finish_string_in(VcpuState &s, const GuestMemory &memory)
{
	const PendingAccess &p = s.pending;

	if (Fault fault =
		    copy_linear(s, memory, p.string_address, s.port_page, p.count * p.size, true))
		return deliver(s, Exit(), fault);
	step_string(s, rdi, p.size, p.address_size, p.count, p.rep, p.instruction_length);
	return Next::resume;
}

} // namespace kvmpp
