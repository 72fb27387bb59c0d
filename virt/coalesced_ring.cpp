// SPDX-License-Identifier: GPL-2.0
#include "coalesced_ring.hpp"

#include <atomic>
#include <cstring>

namespace kvmpp
{

Result<> CoalescedRing::create()
{
	lock_.init(GLUE_LOCK_RING);
	page_ = Page::create();
	return page_ ? Result<>() : Errno::nomem;
}

bool CoalescedRing::put(const IoWrite &write)
{
	Layout &ring = *page_.as<Layout>();
	Locked locked(lock_);
	std::atomic_ref<u32> first(ring.first), last(ring.last);
	u32 at = last.load(std::memory_order_relaxed);

	if (at >= entries)
		return false;
	u32 next = (at + 1) % entries;
	/* Pairs with user space, which moves it when it has read. */
	if (next == first.load(std::memory_order_acquire))
		return false;
	kvm_coalesced_mmio &entry = ring.entry[at];
	entry.phys_addr = write.address;
	entry.len = write.length;
	entry.pio = static_cast<u32>(write.space);
	std::memcpy(entry.data, write.data, sizeof(entry.data));
	last.store(next, std::memory_order_release);
	return true;
}

} // namespace kvmpp
