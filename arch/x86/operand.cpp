// SPDX-License-Identifier: GPL-2.0
#include "operand.hpp"

#include "paging.hpp"

namespace kvmpp
{

namespace
{

/*
 * @visit has each page's part of [linear, linear + size): the address, how far from the start it is, and
 * the length. False from it: there is no RAM.
 */
template <class Visit>
Fault for_each_page(const VcpuState &s, const GuestMemory &memory, const TranslatedPage &known,
		    GuestLinear linear, unsigned size, bool write, Visit visit)
{
	for (unsigned done = 0; done < size;) {
		GuestLinear at = linear_address(s, linear.value + done);
		Translation t = known.covers(at, write)
					? Translation{.outcome = Translation::Outcome::ok,
						      .address = known.at(at)}
					: translate(s, memory, at, {.write = write});

		if (t.outcome == Translation::Outcome::page_fault)
			return {.kind = Fault::Kind::page,
				.error_code = t.error_code,
				.linear = at};
		if (t.outcome == Translation::Outcome::no_tables)
			return {.kind = Fault::Kind::failed};
		u64 rest_of_page = page_size - t.address.page_offset();
		unsigned rest = size - done;
		unsigned length = rest_of_page < rest ? static_cast<unsigned>(rest_of_page) : rest;
		if (!visit(t.address, done, length))
			return {.kind = Fault::Kind::failed};
		done += length;
	}
	return {};
}

} // namespace

void write_register(VcpuState &s, const Operand &reg, u64 value)
{
	u64 &r = s.gpr[reg.reg];

	if (reg.high_byte)
		r = (r & ~u64{0xff00}) | (value & 0xff) << 8;
	else
		write_register(s, reg.reg, reg.size, value);
}

void write_register(VcpuState &s, u8 reg, unsigned size, u64 value)
{
	u64 &r = s.gpr[reg];

	if (size == 8)
		r = value;
	else if (size == 4)
		r = static_cast<u32>(value);
	else
		r = (r & ~low_bits(8 * size)) | (value & low_bits(8 * size));
	if (reg == rsp)
		s.mark_dirty(Group::rsp);
}

bool limit_and_type_allow(const VcpuState &s, Seg segment, u64 offset, u64 last, bool write)
{
	constexpr u32 code = 1 << 3, expand_down = 1 << 2, accessible = 1 << 1;
	const Segment &g = s.seg(segment);

	if (g.access_rights & Segment::unusable)
		return false;
	/* Real mode and virtual-8086 mode check limits only. */
	bool protected_mode = (s.cr0 & cr0::pe) && !(s.rflags & rflags::vm);
	bool is_code = g.access_rights & code;
	if (protected_mode && write && (is_code || !(g.access_rights & accessible)))
		return false;
	if (protected_mode && !write && is_code && !(g.access_rights & accessible))
		return false;
	if (!is_code && (g.access_rights & expand_down))
		return offset > g.limit && last <= (g.is_big() ? 0xffffffff : 0xffff);
	/* Of the whole 4 GiB, what goes past the end begins anew at 0. */
	return last <= g.limit || g.limit == 0xffffffff;
}

Fault locate(const VcpuState &s, const GuestMemory &memory, const TranslatedPage &known,
	     const Operand &o, u32 length, u64 displacement, bool write, Place &place)
{
	const MemoryOperand &m = o.memory;
	u64 offset =
		(effective_address(s, m, length) + displacement) & low_bits(8 * m.address_size);
	u64 linear = offset + segment_base(s, m.segment);

	if (!segment_allows(s, m.segment, offset, o.size, write))
		return {.kind = Fault::Kind::protection, .segment = m.segment};
	return for_each_page(
		s, memory, known, linear_address(s, linear), o.size, write,
		[&](GuestPhys address, unsigned done, unsigned length) {
			bool device =
				!(write ? memory.takes_writes(address) : memory.is_ram(address));

			place.pieces[place.count++] = {.address = address,
						       .offset = static_cast<u8>(done),
						       .length = static_cast<u8>(length),
						       .device = device};
			place.has_device = place.has_device || device;
			return true;
		});
}

Fault copy_linear(const VcpuState &s, const GuestMemory &memory, GuestLinear linear, u8 *data,
		  unsigned size, bool write)
{
	return for_each_page(s, memory, {}, linear, size, write,
			     [&](GuestPhys address, unsigned done, unsigned length) {
				     return static_cast<bool>(
					     write ? memory.write(address, data + done, length)
						   : memory.read(address, data + done, length));
			     });
}

} // namespace kvmpp
