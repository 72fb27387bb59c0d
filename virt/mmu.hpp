/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guest's memory as the CPU sees it: EPT entries made on first touch from the VMM's pages, and
 * taken out before Linux takes a page away. No page is pinned; the MMU notifier keeps the two in
 * step.
 */
#pragma once

#include "arch/x86/ept.hpp"
#include "include/kvmpp/guards.hpp"
#include "memslots.hpp"
#include "vcpu_table.hpp"

namespace kvmpp
{

enum class FaultOutcome {
	resume, /* mapped, or to be tried again */
	mmio,   /* no RAM there */
};

class Mmu
{
public:
	/* @vcpus are those that use the EPT. */
	explicit Mmu(const VcpuTable &vcpus) : vcpus_(vcpus) {}
	/* Errno::nomem. May sleep. */
	Result<> create() MAY_SLEEP;
	Ept &ept() NO_THREAD_SAFETY_ANALYSIS { return ept_; }

	/*
	 * An EPT violation at @address. The caller keeps @table in place. Errno::fault when the VMM
	 * has nothing there that may be accessed so; Errno::nomem. May sleep.
	 */
	Result<FaultOutcome> fault(const MemslotTable &table, GuestPhys address, bool write)
		EXCLUDES(lock_) MAY_SLEEP;

	/* Pages of [first, last] frames go out of the EPT, and out of every CPU's TLB. */
	void unmap(u64 first_frame, u64 last_frame) EXCLUDES(lock_) WAITS_FOR_IPIS;

	/*
	 * The MMU notifier: nothing is mapped between the two, whichever page it is. Only then does
	 * the caller look up the table for unmap_user(): whatever was mapped before was mapped by it
	 * or by an older one.
	 */
	void invalidate_begin() EXCLUDES(lock_) WAITS_FOR_IPIS;
	void invalidate_end() EXCLUDES(lock_) WAITS_FOR_IPIS;
	/* What lies in [start, end) of the VMM's addresses goes out as in unmap(). */
	void unmap_user(const MemslotTable &table, u64 start, u64 end)
		EXCLUDES(lock_) WAITS_FOR_IPIS;

private:
	/* No CPU uses an entry any more that was taken out before. */
	void flush() REQUIRES(lock_) WAITS_FOR_IPIS { vcpus_.ask_all(Request::flush_ept, cpus_); }

	const VcpuTable &vcpus_;
	SpinLock lock_;
	Ept ept_ GUARDED_BY(lock_);
	CpuMask cpus_ GUARDED_BY(lock_);
	/* Invalidations under way, and how many have ended: see fault(). */
	unsigned in_progress_ GUARDED_BY(lock_) = 0;
	u64 ended_ GUARDED_BY(lock_) = 0;
};

} // namespace kvmpp
