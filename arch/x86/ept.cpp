// SPDX-License-Identifier: GPL-2.0
#include "ept.hpp"

#include "vmx_insn.hpp"
#include "x86.hpp"

#include <linux_glue/memory.h>

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
constexpr u64 readable = 1 << 0, writable = 1 << 1, executable = 1 << 2,
	      write_back = 6 << 3 | ignore_pat, large_page = 1 << 7, accessed = 1 << 8,
	      dirty = 1 << 9;
constexpr u64 all_rights = readable | writable | executable;
/* Set here, since the CPU would, one locked access for each. */
constexpr u64 table_bits = all_rights | accessed;
constexpr u64 address_field = 0x000ffffffffff000;

/*
 * Bits 56:52 of a leaf are ours. A page may be written to if Linux and its slot have it writable, and if
 * there is nothing that wants to see it as a whole read-only: both, or map() has to look again.
 */
constexpr u64 host_writable = u64{1} << 52, mmu_writable = u64{1} << 53,
	      may_be_written = host_writable | mmu_writable;
/* The rights of a page that has none, so that its next access is seen; W is not kept. */
constexpr unsigned kept_shift = 54;
constexpr u64 kept_rights = (readable | executable) << kept_shift;

constexpr int levels = 4;
constexpr unsigned index_bits = 9;
constexpr unsigned entries = 1 << index_bits;

/*
 * Others change an entry at any time, and CPUs set bits in it: what was there is known only of an
 * access that reads and writes at once.
 */
u64 load(u64 &entry)
{
	return std::atomic_ref(entry).load(std::memory_order_acquire);
}

u64 exchange(u64 &entry, u64 value)
{
	return std::atomic_ref(entry).exchange(value, std::memory_order_acq_rel);
}

u64 clear(u64 &entry, u64 bits)
{
	return std::atomic_ref(entry).fetch_and(~bits, std::memory_order_acq_rel);
}

bool replace(u64 &entry, u64 was, u64 value)
{
	return std::atomic_ref(entry).compare_exchange_strong(was, value, std::memory_order_release,
							      std::memory_order_relaxed);
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

u64 &entry_for(u64 *table, int level, u64 frame)
{
	return table[(frame >> shift_of(level)) & low_bits(index_bits)];
}

constexpr bool is_table(u64 entry, int level)
{
	return level > 1 && (entry & readable) && !(entry & large_page);
}

constexpr bool is_tracked(u64 entry)
{
	return entry & kept_rights;
}

constexpr bool is_there(u64 entry)
{
	return entry & (readable | kept_rights);
}

constexpr u64 tracked(u64 entry)
{
	return (entry & ~all_rights) | (entry & (readable | executable)) << kept_shift;
}

constexpr u64 restored(u64 entry)
{
	return (entry & ~kept_rights) | (entry & kept_rights) >> kept_shift;
}

constexpr bool allows(u64 entry, GuestAccess access)
{
	return entry & (access.write ? writable : access.fetch ? executable : readable);
}

/*
 * Of the entry @large, the part at @index, a page of the next lower @level. With @pml, if writes to @large
 * were to be seen, those to it are by the CPU's log.
 */
u64 part_of(u64 large, int level, unsigned index, bool pml)
{
	u64 part = large + (u64{index} << (shift_of(level) + page_shift));

	if (level > level_4k)
		return part;
	part &= ~large_page;
	part |= is_tracked(part) ? executable << kept_shift : executable;
	if (!(part & host_writable))
		return part;
	if (pml && !(part & mmu_writable))
		part = (part | writable) & ~dirty;
	return part | mmu_writable;
}

/* The page @host as @leaf has it. */
constexpr u64 leaf_entry(HostPhys host, EptLeaf leaf)
{
	u64 host_frame = host.frame() & ~(frames_of_level(leaf.level) - 1);

	return host_frame << page_shift | write_back | readable | (leaf.accessed ? accessed : 0) |
	       (leaf.writable ? writable : 0) | (leaf.writable && leaf.dirty ? dirty : 0) |
	       (leaf.executable ? executable : 0) | (leaf.host_writable ? may_be_written : 0) |
	       (leaf.level > level_4k ? large_page : 0);
}

enum class Put { done, in_the_way, changed };

/* @value, a leaf, in place of @was. */
Put put(u64 &entry, u64 was, u64 value, EptLeaf leaf)
{
	if (is_there(was)) {
		/* What another vCPU got of the same page meanwhile stays. */
		if ((was ^ value) & address_field)
			return Put::in_the_way;
		if (!leaf.accessed)
			return Put::done;
		value |= restored(was);
	}
	return replace(entry, was, value) ? Put::done : Put::changed;
}

void free_tables(u64 *table, int level)
{
	for (unsigned i = 0; i < entries; i++)
		if (is_table(table[i], level))
			free_tables(table_at(table[i]), level - 1);
	glue_page_free(table);
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
		if (!is_there(entry))
			continue;
		bool whole = from >= first && from + frames - 1 <= last;
		if ((whole || !is_table(entry, level)) && visit(table[i], level))
			found = true;
		else if (is_table(entry, level))
			found |= visit_range(table_at(entry), level - 1, from, first, last, visit);
	}
	return found;
}

/* The same for pages only. */
template <class Visit> bool visit_pages(u64 *root, u64 first, u64 last, Visit visit)
{
	return visit_range(root, levels, 0, first, last, [&](u64 &entry, int level) {
		return !is_table(load(entry), level) && visit(entry, level);
	});
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

Page &Ept::TablePages::first()
{
	Page *page = pages_;

	while (!*page)
		page++;
	return *page;
}

Ept::~Ept()
{
	free_retired();
	if (root_)
		free_tables(static_cast<u64 *>(root_.release()), levels);
}

Result<> Ept::create(bool accessed_bits, bool pml)
{
	accessed_bits_.store(accessed_bits, std::memory_order_relaxed);
	pml_ = accessed_bits && pml;
	root_ = Page::create();
	return root_ ? Result<>() : Errno::nomem;
}

void Ept::give_up_accessed_bits()
{
	constexpr u64 last_frame = low_bits(levels * index_bits);

	/* With a log, some are writable whose first write is still to be seen. */
	if (pml_)
		visit_pages(root_.as<u64>(), 0, last_frame, [](u64 &entry, int) {
			return (load(entry) & (writable | dirty)) == writable &&
			       (clear(entry, writable) & writable) != 0;
		});
	accessed_bits_.store(false, std::memory_order_relaxed);
}

u64 Ept::pointer() const
{
	constexpr u64 walk_write_back = 6, walk_length = (levels - 1) << 3,
		      accessed_and_dirty = 1 << 6;

	return root_.phys().value | walk_write_back | walk_length |
	       (has_accessed_bits() ? accessed_and_dirty : 0);
}

/* Below @entry, which was @was: nothing, or a larger page. Not where another was first. */
void Ept::add_table(u64 &entry, u64 was, int level, TablePages &pages)
{
	Page &page = pages.first();
	u64 *table = page.as<u64>();

	if (is_there(was))
		for (unsigned i = 0; i < entries; i++)
			table[i] = part_of(was, level - 1, i, logs_writes());
	if (replace(entry, was, page.phys().value | table_bits)) {
		(void)page.release();
		return;
	}
	if (is_there(was))
		for (unsigned i = 0; i < entries; i++)
			table[i] = 0;
}

bool Ept::map(GuestPhys guest, HostPhys host, EptLeaf leaf, TablePages &pages)
{
	u64 frame = guest.frame();
	u64 *table = root_.as<u64>();

	for (int level = levels;;) {
		u64 &entry = entry_for(table, level, frame);
		u64 was = load(entry);

		if (is_table(was, level)) {
			if (level == leaf.level) {
				if (is_empty(table_at(was)))
					return false;
				leaf.level--;
				leaf.executable |= leaf.level == level_4k;
			}
			table = table_at(was);
			level--;
			continue;
		}
		if (level > leaf.level) {
			add_table(entry, was, level, pages);
			continue;
		}
		Put outcome = put(entry, was, leaf_entry(host, leaf), leaf);
		if (outcome != Put::changed)
			return outcome == Put::done;
	}
}

void Ept::map_after(GuestPhys guest, const u64 *host_frames, int count, EptLeaf leaf, bool *mapped)
{
	u64 *table = root_.as<u64>();

	if (count == 0)
		return;
	for (int level = levels; level > level_4k; level--)
		table = table_at(load(entry_for(table, level, guest.frame())));
	u64 *entry = &entry_for(table, level_4k, guest.frame());
	for (int i = 0; i < count; i++) {
		u64 value = leaf_entry({host_frames[i] << page_shift}, leaf);
		Put outcome;

		entry++;
		do
			outcome = put(*entry, load(*entry), value, leaf);
		while (outcome == Put::changed);
		mapped[i] = outcome == Put::done;
	}
}

Ept::Fix Ept::fix(GuestPhys guest, GuestAccess access)
{
	u64 frame = guest.frame();
	u64 *table = root_.as<u64>();
	int level = levels;

	while (u64 entry = load(entry_for(table, level, frame))) {
		if (is_table(entry, level)) {
			table = table_at(entry);
			level--;
			continue;
		}
		if (!is_there(entry))
			break;
		u64 value = restored(entry);
		/* One that is writable by now gets its dirty bit from the CPU, which logs it. */
		if (access.write && !(value & writable) &&
		    (entry & may_be_written) == may_be_written)
			value |= writable | dirty;
		if (!allows(value, access))
			break;
		if (value == entry)
			return Fix::done;
		if (replace(entry_for(table, level, frame), entry, value | accessed))
			return value & ~entry & writable ? Fix::made_writable : Fix::done;
	}
	return Fix::none;
}

bool Ept::is_accessed(u64 entry) const
{
	return has_accessed_bits() ? entry & accessed : !is_tracked(entry);
}

void Ept::take_out(u64 &entry, int level)
{
	u64 was = exchange(entry, 0);

	if (is_table(was, level))
		retire(table_at(was), level - 1);
	else if (is_there(was) && is_accessed(was))
		glue_user_page_accessed((was & address_field) >> page_shift);
}

void Ept::retire(u64 *table, int level)
{
	for (unsigned i = 0; i < entries; i++)
		if (load(table[i]))
			take_out(table[i], level);
	/* An address alone has no rights, kept or not: it leads nobody on. */
	exchange(table[0], retired_);
	retired_ = glue_virt_to_phys(table);
}

bool Ept::unmap(u64 first_frame, u64 last_frame)
{
	return visit_range(root_.as<u64>(), levels, 0, first_frame, last_frame,
			   [&](u64 &entry, int level) {
				   take_out(entry, level);
				   return true;
			   });
}

bool Ept::watch_writes(u64 first_frame, u64 last_frame)
{
	return visit_pages(root_.as<u64>(), first_frame, last_frame, [this](u64 &entry, int level) {
		if (level > level_4k)
			return (clear(entry, writable | mmu_writable) & writable) != 0;
		u64 seen_by = logs_writes() ? dirty : writable;
		return (clear(entry, seen_by) & seen_by) != 0;
	});
}

bool Ept::is_young(u64 first_frame, u64 last_frame)
{
	return visit_pages(root_.as<u64>(), first_frame, last_frame,
			   [this](u64 &entry, int) { return is_accessed(load(entry)); });
}

bool Ept::age(u64 first_frame, u64 last_frame)
{
	return visit_pages(root_.as<u64>(), first_frame, last_frame, [this](u64 &entry, int) {
		if (has_accessed_bits())
			return (clear(entry, accessed) & accessed) != 0;
		for (;;) {
			u64 was = load(entry);

			if (is_tracked(was))
				return false;
			if (replace(entry, was, tracked(was)))
				return true;
		}
	});
}

void Ept::free_retired()
{
	while (retired_) {
		u64 *table = static_cast<u64 *>(glue_phys_to_virt(retired_));

		retired_ = load(table[0]);
		glue_page_free_rcu(table);
	}
}

void Ept::invalidate_here(const IrqOff &irq) const
{
	(void)insn::invept(insn::Invalidate::single_context, pointer());
}

} // namespace kvmpp
