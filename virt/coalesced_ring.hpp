/* SPDX-License-Identifier: GPL-2.0 */
/*
 * struct kvm_coalesced_mmio_ring: writes of the guest that user space need not see at once. A page that it
 * has mapped and may change at any time, in all its parts.
 */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/owned.hpp"
#include "io_table.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

class CoalescedRing
{
public:
	/*
	 * The array begins where C has it: to C++ the header's flexible array comes after an empty
	 * structure, which takes room.
	 */
	static constexpr u32 entries = (page_size - 2 * sizeof(u32)) / sizeof(kvm_coalesced_mmio);

	/* Errno::nomem. */
	Result<> create() MAY_SLEEP;
	void *page() const { return page_.as<void>(); }
	/* False: it is full, or user space has spoilt it. */
	bool put(const IoWrite &write) EXCLUDES(lock_);

private:
	struct Layout {
		u32 first, last;
		kvm_coalesced_mmio entry[entries];
	};
	static_assert(sizeof(Layout) <= page_size);

	SpinLock lock_;
	Page page_;
};

} // namespace kvmpp
