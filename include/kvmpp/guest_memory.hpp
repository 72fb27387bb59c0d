/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guest's physical memory as seen by the layer below virt/: what is RAM, and its contents. A
 * view, valid while its owner keeps the memory slots in place; virt/memslots.cpp implements it.
 */
#pragma once

#include "include/kvmpp/memslot.hpp"
#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"

#include <linux_glue/memory.h>

namespace kvmpp
{

class MemslotTable;

class GuestMemory
{
public:
	explicit GuestMemory(const MemslotTable &table) : table_(table), last_(&nothing) {}

	bool is_ram(GuestPhys address) const;
	/* It is RAM, and not read-only: there a write is one to a device. */
	bool takes_writes(GuestPhys address) const;
	/*
	 * [address, address + length) lies within one page. Errno::noent where there is no RAM, or
	 * none that takes writes, Errno::fault where the VMM's memory is gone. May sleep.
	 */
	Result<> read(GuestPhys address, void *to, u32 length) const;
	Result<> write(GuestPhys address, const void *from, u32 length) const;
	/* As read(), of the naturally aligned @length bytes, 4 or 8, in one access: nobody's half of a change. */
	Result<> read_entry(GuestPhys address, u64 &entry, u32 length) const
	{
		const Memslot *slot = slot_of(address);

		if (!slot) [[unlikely]]
			return Errno::noent;
		return from_errno(glue_user_read(user_address(*slot, address), &entry, length));
	}
	/* As read(), of 16 bytes, and with less ado. */
	Result<> read_16(GuestPhys address, u64 (&to)[2]) const;
	/* As write(), but Errno::fault where Linux would first have to find the page. Any context. */
	Result<> write_if_there(GuestPhys address, const void *from, u32 length) const;
	/*
	 * The naturally aligned @length bytes, 4 or 8, become @desired where they are @expected, as one
	 * locked access. False: they were something else. Errors are those of write(). May sleep.
	 */
	Result<bool> compare_exchange(GuestPhys address, u64 expected, u64 desired,
				      u32 length) const;

private:
	const Memslot *slot_of(GuestPhys address) const
	{
		return last_->contains(address.frame()) ? last_ : find_slot(address);
	}
	static u64 user_address(const Memslot &slot, GuestPhys address)
	{
		return slot.user_address(address.frame()).value + address.page_offset();
	}
	const Memslot *find_slot(GuestPhys address) const;

	const MemslotTable &table_;
	/* What was found last: most accesses are neighbours of another. */
	mutable const Memslot *last_;
	/* It contains no page. */
	static const Memslot nothing;
};

} // namespace kvmpp
