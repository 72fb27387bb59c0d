// SPDX-License-Identifier: GPL-2.0
#include "mmu.hpp"

#include <linux_glue/memory.h>

namespace kvmpp
{

/* Nobody else has it yet. */
Result<> Mmu::create() NO_THREAD_SAFETY_ANALYSIS
{
	lock_.init(GLUE_LOCK_MMU);
	if (Result<> r = cpus_.create(); !r)
		return r;
	return ept_.create();
}

Result<FaultOutcome> Mmu::fault(const MemslotTable &table, GuestPhys address, bool write)
{
	const Memslot *slot = table.find_frame(address.frame());
	if (!slot)
		return FaultOutcome::mmio;
	if (slot->invalid)
		return FaultOutcome::resume;

	Ept::TablePages pages;
	if (Result<> r = pages.fill(); !r)
		return r.error();

	u64 ended;
	{
		Locked locked(lock_);
		ended = ended_;
	}
	u64 frame;
	int writable;
	if (Result<> r = from_errno(glue_user_page_get(slot->user_address(address.frame()).value,
						       write, &frame, &writable));
	    !r)
		return r.error();
	bool mapped = false;
	{
		Locked locked(lock_);

		/*
		 * An invalidation that began or ended since `ended` was read may have been for this
		 * very page, after it was looked up: then the guest faults again and finds what is
		 * there now.
		 */
		if (in_progress_ == 0 && ended == ended_) {
			ept_.map(address, {frame << page_shift}, writable, pages);
			mapped = true;
		}
	}
	glue_user_page_put(frame, mapped && writable);
	return FaultOutcome::resume;
}

void Mmu::unmap(u64 first_frame, u64 last_frame)
{
	Locked locked(lock_);

	if (ept_.unmap(first_frame, last_frame))
		flush();
}

void Mmu::unmap_user(const MemslotTable &table, u64 start, u64 end)
{
	Locked locked(lock_);
	bool found = false;

	/* Clang does not take a lock into a lambda. */
	table.for_each_in(start, end, [&](u64 first, u64 last) NO_THREAD_SAFETY_ANALYSIS {
		found |= ept_.unmap(first, last);
	});
	/*
	 * Under the lock: whoever comes next and finds the page gone from the tables relies on its
	 * being gone from every TLB as well.
	 */
	if (found)
		flush();
}

void Mmu::invalidate_begin()
{
	Locked locked(lock_);

	in_progress_++;
}

void Mmu::invalidate_end()
{
	Locked locked(lock_);

	ended_++;
	in_progress_--;
}

} // namespace kvmpp
