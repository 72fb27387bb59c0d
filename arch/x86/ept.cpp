// SPDX-License-Identifier: GPL-2.0
#include "ept.hpp"

#include "vmx_insn.hpp"
#include "x86.hpp"

#include <atomic>

namespace kvmpp
{

namespace
{

/*
 * "EPT Page-Structure Entries". Leaves are write-back whatever the guest's PAT says, since the host has the
 * same memory so: types that differ may be a machine check.
 */
constexpr u64 ignore_pat = 1 << 6;
constexpr u64 readable = 1 << 0, writable_bit = 1 << 1, executable = 1 << 2,
	      write_back = 6 << 3 | ignore_pat, large_page = 1 << 7;
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

constexpr bool is_table(u64 entry, int level)
{
	return level > 1 && (entry & readable) && !(entry & large_page);
}

void free_tables(u64 *table, int level)
{
	for (unsigned i = 0; i < entries; i++)
		if (is_table(table[i], level))
			free_tables(table_at(table[i]), level - 1);
	glue_page_free(table);
}

/* @table, which no entry has any more, and those below it. A CPU may still walk them. */
void retire(u64 *table, int level, u64 *&retired)
{
	for (unsigned i = 0; i < entries; i++)
		if (u64 entry = load(table[i]); is_table(entry, level))
			retire(table_at(entry), level - 1, retired);
	/* An entry without rights: where it leads is of no interest to a CPU. */
	store(table[0], reinterpret_cast<u64>(retired));
	retired = table;
}

void take_out(u64 &entry, int level, u64 *&retired)
{
	u64 was = load(entry);

	store(entry, 0);
	if (is_table(was, level))
		retire(table_at(was), level - 1, retired);
}

bool is_empty(u64 *table)
{
	for (unsigned i = 0; i < entries; i++)
		if (load(table[i]))
			return false;
	return true;
}

/*
 * Calls visit(entry, level) for each page with a part in [first, last] frames, and for each table
 * whose frames are all in there; if that returns false, it goes on into the table. Whether one
 * returned true.
 */
template <class Visit>
bool visit_range(u64 *table, int level, u64 table_first_frame, u64 first, u64 last, Visit visit)
{
	u64 frames = frames_of_level(level);
	bool found = false;

	u64 begin = first > table_first_frame ? (first - table_first_frame) / frames : 0;

	for (u64 i = begin; i < entries; i++) {
		u64 from = table_first_frame + i * frames;

		if (from > last)
			break;
		u64 entry = load(table[i]);
		if (!(entry & readable))
			continue;
		bool whole = from >= first && from + frames - 1 <= last;
		if ((whole || !is_table(entry, level)) && visit(table[i], level))
			found = true;
		else if (is_table(entry, level))
			found |= visit_range(table_at(entry), level - 1, from, first, last, visit);
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
	free_retired();
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

bool Ept::map(GuestPhys guest, HostPhys host, EptLeaf leaf, TablePages &pages)
{
	u64 frame = guest.frame();
	u64 *table = root_.as<u64>();
	bool replaced = false;
	int level = levels;

	for (;; level--) {
		u64 &entry = table[(frame >> shift_of(level)) & low_bits(index_bits)];
		u64 was = load(entry);

		if (level == leaf.level) {
			if (!is_table(was, level))
				break;
			if (is_empty(table_at(was))) {
				take_out(entry, level, retired_);
				replaced = true;
				break;
			}
			leaf.level--;
			leaf.executable |= leaf.level == level_4k;
		}
		if (!is_table(was, level)) {
			u64 *below = pages.take();
			/* Of a larger page the rest is mapped anew when it is touched. */
			replaced |= was & readable;
			store(entry, glue_virt_to_phys(below) | table_rights);
		}
		table = table_at(load(entry));
	}
	u64 &entry = table[(frame >> shift_of(level)) & low_bits(index_bits)];
	u64 host_frame = (host.value >> page_shift) & ~(frames_of_level(level) - 1);
	u64 place = host_frame << page_shift;
	u64 rights =
		readable | (leaf.writable ? writable_bit : 0) | (leaf.executable ? executable : 0);
	if (u64 was = load(entry); was & readable) {
		/* What another vCPU got of the same page meanwhile stays. */
		if ((was & address_field) == place)
			rights |= was & table_rights;
		else
			replaced = true;
	}
	store(entry, place | rights | write_back | (level > 1 ? large_page : 0));
	return replaced;
}

bool Ept::unmap(u64 first_frame, u64 last_frame)
{
	return visit_range(root_.as<u64>(), levels, 0, first_frame, last_frame,
			   [&](u64 &entry, int level) {
				   take_out(entry, level, retired_);
				   return true;
			   });
}

bool Ept::write_protect(u64 first_frame, u64 last_frame)
{
	return visit_range(root_.as<u64>(), levels, 0, first_frame, last_frame,
			   [](u64 &entry, int level) {
				   u64 was = load(entry);

				   if (is_table(was, level) || !(was & writable_bit))
					   return false;
				   store(entry, level == level_4k ? was & ~writable_bit : 0);
				   return true;
			   });
}

bool Ept::maps(u64 first_frame, u64 last_frame) const
{
	return visit_range(root_.as<u64>(), levels, 0, first_frame, last_frame,
			   [](u64 &entry, int level) { return !is_table(load(entry), level); });
}

void Ept::free_retired()
{
	while (retired_) {
		u64 *table = retired_;

		retired_ = reinterpret_cast<u64 *>(table[0]);
		glue_page_free(table);
	}
}

void Ept::invalidate_here(const IrqOff &irq) const
{
	(void)insn::invept(insn::Invalidate::single_context, pointer());
}

} // namespace kvmpp
