// SPDX-License-Identifier: GPL-2.0
#include "mmu.hpp"

#include "dedicated_cpus.hpp"

#include "dirty_log.hpp"

#include <linux_glue/memory.h>

namespace kvmpp
{

namespace
{

/*
 * The level of the page that @frame, behind guest @address, can be mapped by: no more of the VMM's
 * memory than Linux has in one entry, hence takes away at once, and nothing beyond the slot.
 */
int level_for(const Memslot &slot, GuestPhys address, u64 frame, int largest)
{
	u64 user = slot.user_address(address.frame()).value;
	int level = largest;

	for (; level > level_4k; level--) {
		u64 frames = frames_of_level(level), first = address.frame() & ~(frames - 1);

		if (((slot.first_frame ^ (slot.user.value >> page_shift)) & (frames - 1)) == 0 &&
		    first >= slot.first_frame && first + frames - 1 <= slot.last_frame())
			break;
	}
	while (level > level_4k && glue_user_mapping_frames(user, frame) < frames_of_level(level))
		level--;
	return level;
}

} // namespace

/* Nobody else has it yet. */
Result<> Mmu::create(int largest_level, bool small_for_fetch, bool accessed_bits,
		     bool pml) NO_THREAD_SAFETY_ANALYSIS
{
	lock_.init(GLUE_LOCK_MMU);
	largest_level_ = largest_level;
	small_for_fetch_ = small_for_fetch;
	if (Result<> r = cpus_.create(); !r)
		return r;
	return ept_.create(accessed_bits, pml);
}

/*
 * Until the next multiple. With a log, each is to be seen when it is written to; without accessed bits, all
 * would have been used.
 */
unsigned Mmu::pages_of_fault(const Memslot &slot, GuestPhys address) const NO_THREAD_SAFETY_ANALYSIS
{
	u64 frame = address.frame(), last = frame | (GLUE_USER_PAGES - 1);

	if (slot.log || !ept_.has_accessed_bits())
		return 1;
	return static_cast<unsigned>((last < slot.last_frame() ? last : slot.last_frame()) - frame +
				     1);
}

/*
 * Who takes the page away takes its entry out in one access, and flushes: this one comes before it, or finds
 * nothing. The table that the entry is in stays until RCU's readers are out, so that it is this page's.
 */
bool Mmu::fix(const Memslot &slot, GuestPhys address, GuestAccess access) NO_THREAD_SAFETY_ANALYSIS
{
	RcuRead read;
	Ept::Fix fixed = ept_.fix(address, access);

	/* After it: whoever takes the bit makes the page read-only again. */
	if (fixed == Ept::Fix::made_writable && slot.log)
		slot.log->add(address.frame() - slot.first_frame);
	return fixed != Ept::Fix::none;
}

Result<FaultOutcome> Mmu::fault(const MemslotTable &table, GuestPhys address, GuestAccess access,
				Ept::TablePages &pages)
{
	const Memslot *slot = table.find_frame(address.frame());
	if (!slot || (access.write && slot->read_only))
		return FaultOutcome::mmio;
	if (slot->invalid)
		return FaultOutcome::resume;
	if (fix(*slot, address, access))
		return FaultOutcome::resume;

	if (Result<> r = pages.fill(); !r)
		return r.error();

	u64 ended = ended_.load(std::memory_order_acquire);
	u64 user = slot->user_address(address.frame()).value;
	u64 frames[GLUE_USER_PAGES];
	int writable;
	int got = glue_user_pages_get(user, static_cast<int>(pages_of_fault(*slot, address)),
				      access.write, frames, &writable);
	if (Result<> r = from_errno(got); !r) {
		if (r.error() == Errno::hwpoison)
			glue_user_page_lost(user);
		/* A signal is there now, and seen before the next entry. */
		if (r.error() == Errno::hwpoison || r.error() == Errno::again)
			return FaultOutcome::resume;
		return r.error();
	}
	EptLeaf leaf{.host_writable = writable && !slot->read_only};
	/* With a log, the first write is to be seen. */
	leaf.dirty = access.write || !slot->log;
	bool mapped[GLUE_USER_PAGES] = {}, in_the_way = false;
	{
		ReadLocked locked(lock_);

		leaf.writable = leaf.host_writable && (leaf.dirty || ept_.logs_writes());
		if (!slot->log && !(access.fetch && small_for_fetch_))
			leaf.level = level_for(*slot, address, frames[0], largest_level_);
		leaf.executable = leaf.level == level_4k || !small_for_fetch_;
		u64 size = frames_of_level(leaf.level) << page_shift;
		/*
		 * An invalidation that began or ended since `ended` was read may have been for this
		 * very page, after it was looked up: then the guest faults again and finds what is
		 * there now.
		 */
		if (!is_invalidated(user & ~(size - 1), size) &&
		    ended == ended_.load(std::memory_order_relaxed)) {
			mapped[0] = ept_.map(address, {frames[0] << page_shift}, leaf, pages);
			in_the_way = !mapped[0];
			if (mapped[0] && access.write && slot->log)
				slot->log->add(address.frame() - slot->first_frame);
			/* Those after it are in the same table, which is there now. */
			if (mapped[0] && leaf.level == level_4k &&
			    !is_invalidated(user, static_cast<u64>(got) << page_shift)) {
				leaf.accessed = false;
				ept_.map_after(address, frames + 1, got - 1, leaf, mapped + 1);
			}
		}
	}
	/* Dirty where it may become so: that, Linux is not told. */
	for (int i = 0; i < got; i++)
		glue_user_page_put(frames[i], mapped[i] && leaf.host_writable);
	if (in_the_way) {
		u64 first = address.frame() & ~(frames_of_level(leaf.level) - 1);

		unmap(first, first + frames_of_level(leaf.level) - 1);
	}
	return FaultOutcome::resume;
}

void Mmu::flush()
{
	vcpus_.ask_all(Request::flush_ept, cpus_);
	/* A CPU that is lost may come back and walk them: then they stay, for good. */
	if (!dedicated_any_lost())
		ept_.free_retired();
}

u64 Mmu::give_up_accessed_bits()
{
	Locked locked(lock_);

	if (ept_.has_accessed_bits()) {
		ept_.give_up_accessed_bits();
		flush();
	}
	return ept_.pointer();
}

bool Mmu::is_invalidated(u64 start, u64 size) const
{
	return in_progress_ && start < invalid_end_ && start + size > invalid_start_;
}

void Mmu::unmap(u64 first_frame, u64 last_frame)
{
	Locked locked(lock_);

	if (ept_.unmap(first_frame, last_frame))
		flush();
}

void Mmu::watch_writes(u64 first_frame, u64 last_frame)
{
	Locked locked(lock_);

	if (ept_.watch_writes(first_frame, last_frame))
		flush();
}

void Mmu::log(const MemslotTable &table, u64 frame)
{
	const Memslot *slot = table.find_frame(frame);

	if (slot && slot->log)
		slot->log->add(frame - slot->first_frame);
}

void Mmu::take_log(const Memslot &slot)
{
	Locked locked(lock_);
	bool found = false;

	/* Clang does not take a lock into a lambda. */
	slot.log->take([&](u64 page) NO_THREAD_SAFETY_ANALYSIS {
		u64 frame = slot.first_frame + page;

		found |= ept_.watch_writes(frame, frame);
	});
	if (found)
		flush();
}

void Mmu::clear_log(const Memslot &slot, u64 first, u64 pages)
{
	Locked locked(lock_);
	bool found = false;

	slot.log->clear(first, pages, [&](u64 page) NO_THREAD_SAFETY_ANALYSIS {
		u64 frame = slot.first_frame + page;

		found |= ept_.watch_writes(frame, frame);
	});
	if (found)
		flush();
}

/* Most of what Linux tells of is none of the guest's. */
void Mmu::invalidate_begin(const MemslotTable &table, u64 start, u64 end)
{
	if (!table.has_any_in(start, end))
		return;

	Locked locked(lock_);

	if (in_progress_++ == 0) {
		invalid_start_ = start;
		invalid_end_ = end;
	} else {
		if (start < invalid_start_)
			invalid_start_ = start;
		if (end > invalid_end_)
			invalid_end_ = end;
	}
	bool found = false;
	table.for_each_in(start, end, [&](u64 first, u64 last) NO_THREAD_SAFETY_ANALYSIS {
		found |= ept_.unmap(first, last);
	});
	if (found)
		flush();
}

void Mmu::invalidate_end(const MemslotTable &table, u64 start, u64 end)
{
	if (!table.has_any_in(start, end))
		return;

	Locked locked(lock_);

	/* What Linux did to its page tables meanwhile is seen by who sees this. */
	ended_.store(ended_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
	in_progress_--;
}

bool Mmu::is_user_young(const MemslotTable &table, u64 start, u64 end)
{
	ReadLocked locked(lock_);
	bool found = false;

	table.for_each_in(start, end, [&](u64 first, u64 last) NO_THREAD_SAFETY_ANALYSIS {
		found |= ept_.is_young(first, last);
	});
	return found;
}

bool Mmu::age_user(const MemslotTable &table, u64 start, u64 end)
{
	if (!table.has_any_in(start, end))
		return false;

	Locked locked(lock_);
	bool found = false;

	table.for_each_in(start, end, [&](u64 first, u64 last) NO_THREAD_SAFETY_ANALYSIS {
		found |= ept_.age(first, last);
	});
	/* Without accessed bits, pages that were writable are no longer, and found so by a log. */
	if (found)
		flush();
	return found;
}

} // namespace kvmpp
