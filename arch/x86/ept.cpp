// SPDX-License-Identifier: GPL-2.0
#include "ept.hpp"

#include "vmx_insn.hpp"
#include "x86.hpp"

#include <atomic>

namespace kvmpp
{

namespace
{

/* "EPT Page-Structure Entries" */
constexpr u64 readable = 1 << 0, writable_bit = 1 << 1, executable = 1 << 2, write_back = 6 << 3;
constexpr u64 table_rights = readable | writable_bit | executable;
constexpr u64 address_field = 0x000ffffffffff000;
constexpr int levels = 4;
constexpr unsigned index_bits = 9;
constexpr unsigned entries = 1 << index_bits;

/* The CPUs read entries while we write them: whole, and after what they point to is in place. */
u64 load(u64 &entry)
{
	return std::atomic_ref(entry).load(std::memory_order_relaxed);
}

void store(u64 &entry, u64 value)
{
	std::atomic_ref(entry).store(value, std::memory_order_release);
}

u64 *table_at(u64 entry)
{
	return static_cast<u64 *>(glue_phys_to_virt(entry & address_field));
}

/* Bits of the frame number that select an entry at @level and those below it. */
constexpr unsigned shift_of(int level)
{
	return (level - 1) * index_bits;
}

void free_tables(u64 *table, int level)
{
	for (unsigned i = 0; level > 1 && i < entries; i++)
		if (table[i] & readable)
			free_tables(table_at(table[i]), level - 1);
	glue_page_free(table);
}

bool unmap_in(u64 *table, int level, u64 table_first_frame, u64 first, u64 last)
{
	u64 frames = u64{1} << shift_of(level);
	bool found = false;

	for (unsigned i = 0; i < entries; i++) {
		u64 from = table_first_frame + i * frames;

		if (from > last)
			break;
		u64 entry = load(table[i]);
		if (!(entry & readable) || from + frames - 1 < first)
			continue;
		if (level == 1) {
			store(table[i], 0);
			found = true;
		} else {
			found |= unmap_in(table_at(entry), level - 1, from, first, last);
		}
	}
	return found;
}

} // namespace

Result<> Ept::TablePages::fill()
{
	for (Page &page : pages_) {
		if (page)
			continue;
		page = Page::create();
		if (!page)
			return Errno::nomem;
	}
	return {};
}

u64 *Ept::TablePages::take()
{
	for (Page &page : pages_)
		if (page)
			return static_cast<u64 *>(page.release());
	return nullptr;
}

Ept::~Ept()
{
	if (root_)
		free_tables(static_cast<u64 *>(root_.release()), levels);
}

Result<> Ept::create()
{
	root_ = Page::create();
	return root_ ? Result<>() : Errno::nomem;
}

u64 Ept::pointer() const
{
	constexpr u64 walk_write_back = 6, walk_length = (levels - 1) << 3;

	return root_.phys().value | walk_write_back | walk_length;
}

void Ept::map(GuestPhys guest, HostPhys host, bool writable, TablePages &pages)
{
	u64 frame = guest.frame();
	u64 *table = root_.as<u64>();

	for (int level = levels; level > 1; level--) {
		u64 &entry = table[(frame >> shift_of(level)) & low_bits(index_bits)];

		if (!(load(entry) & readable)) {
			u64 *below = pages.take();
			store(entry, glue_virt_to_phys(below) | table_rights);
		}
		table = table_at(load(entry));
	}
	u64 &leaf = table[frame & low_bits(index_bits)];
	store(leaf, (host.value & address_field) | readable | executable |
			    (writable ? writable_bit : 0) | write_back);
}

bool Ept::unmap(u64 first_frame, u64 last_frame)
{
	return unmap_in(root_.as<u64>(), levels, 0, first_frame, last_frame);
}

void Ept::invalidate_here(const IrqOff &irq) const
{
	(void)insn::invept(insn::Invalidate::single_context, pointer());
}

} // namespace kvmpp
