/* SPDX-License-Identifier: GPL-2.0 */
/* One memory slot: which guest-physical memory is which part of the VMM's address space. */
#pragma once

#include "include/kvmpp/nospec.hpp"
#include "include/kvmpp/types.hpp"

namespace kvmpp
{

class DirtyLog;

struct Memslot {
	u32 id = 0;
	/*
	 * Being deleted or moved: nothing of it is mapped any more, what is mapped still goes by
	 * it.
	 */
	bool invalid = false;
	u64 first_frame = 0;
	u64 frames = 0;
	UserAddress user;
	bool read_only = false;
	/* Null where writes are not logged. The VM's: all tables with the slot share it. */
	DirtyLog *log = nullptr;

	u64 last_frame() const { return first_frame + frames - 1; }
	bool contains(u64 frame) const { return frame - first_frame < frames; }
	UserAddress user_address(u64 frame) const
	{
		return user + (array_index_nospec(frame - first_frame, frames) << page_shift);
	}
};

} // namespace kvmpp
