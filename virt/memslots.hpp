/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory slots: which guest-physical memory is which part of the VMM's address space. A table never
 * changes once it is published; a change publishes another one. Rules and errnos as
 * KVM_SET_USER_MEMORY_REGION has them.
 */
#pragma once

#include "include/kvmpp/guest_memory.hpp"
#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"

namespace kvmpp
{

class MemslotTable
{
public:
	static constexpr u32 max_slots = 32764; /* KVM_CAP_NR_MEMSLOTS of KVM */

	MemslotTable() = default;
	MemslotTable(const MemslotTable &) = delete;
	MemslotTable &operator=(const MemslotTable &) = delete;
	~MemslotTable();

	const Memslot *find_id(u32 id) const;
	const Memslot *find_frame(u64 frame) const;
	/*
	 * Visits each slot with memory in [start, end) of the VMM's addresses, as (first, last)
	 * frames.
	 */
	template <class Visit> void for_each_in(u64 start, u64 end, Visit visit) const
	{
		for (u32 i = 0; i < count_; i++) {
			const Memslot &s = slots_[i];
			u64 from = s.user.value, to = from + (s.frames << page_shift);

			if (from >= end || to <= start)
				continue;
			u64 first = start > from ? (start - from) >> page_shift : 0;
			u64 last = end < to ? (end - 1 - from) >> page_shift : s.frames - 1;
			visit(s.first_frame + first, s.first_frame + last);
		}
	}
	/* Whether there is one. */
	bool has_any_in(u64 start, u64 end) const
	{
		bool any = false;

		for_each_in(start, end, [&](u64, u64) { any = true; });
		return any;
	}
	/* Whether @slot overlaps one of another id. */
	bool overlaps(const Memslot &slot) const;

	template <class Visit> void for_each(Visit visit) const
	{
		for (u32 i = 0; i < count_; i++)
			visit(slots_[i]);
	}
	/* A copy without the slot of @removed_id, and with @added if not null. Empty: no memory. */
	Owned<MemslotTable> with_change(u32 removed_id, const Memslot *added) const MAY_SLEEP;

private:
	Memslot *slots_ = nullptr; /* in the order of first_frame */
	u32 count_ = 0;
};

/* What KVM_SET_USER_MEMORY_REGION asks for, checked as far as it needs no look at other slots. */
struct SlotRequest {
	Memslot slot;
	bool remove = false;
	bool log = false;
};
Result<SlotRequest> check_slot_request(u32 slot, u32 flags, u64 guest_phys, u64 size,
				       u64 user_address, unsigned physical_address_bits);

enum class SlotChange { none, create, move, remove, log };
/* Which change @request is of @table; Errno::inval or Errno::exist where it is none that can be. */
Result<SlotChange> classify_slot_change(const MemslotTable &table, const SlotRequest &request);

} // namespace kvmpp
