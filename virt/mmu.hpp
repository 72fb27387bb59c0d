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

#include <atomic>

namespace kvmpp
{

enum class FaultOutcome {
	resume, /* mapped, or to be tried again */
	mmio,   /* no RAM there, or none that takes writes */
};

class Mmu
{
public:
	/* @vcpus are those that use the EPT. */
	explicit Mmu(const VcpuTable &vcpus) : vcpus_(vcpus) {}
	/*
	 * @largest_level: of the pages that the CPU can have. With @small_for_fetch those that are
	 * executed are of 4 KiB; @accessed_bits and @pml as Ept::create() has them. Errno::nomem. May sleep.
	 */
	Result<> create(int largest_level, bool small_for_fetch, bool accessed_bits,
			bool pml = false) MAY_SLEEP;
	Ept &ept() NO_THREAD_SAFETY_ANALYSIS { return ept_; }
	/* vCPUs have a page log: the same for its life. */
	bool has_pml() const NO_THREAD_SAFETY_ANALYSIS { return ept_.has_pml(); }

	/*
	 * An EPT violation at @address. The caller keeps @table in place, and has @pages for itself. Where the
	 * hardware has lost the page, the thread is sent SIGBUS. Errno::fault when the VMM has nothing there
	 * that may be accessed so; Errno::nomem. May sleep.
	 */
	Result<FaultOutcome> fault(const MemslotTable &table, GuestPhys address, GuestAccess access,
				   Ept::TablePages &pages) EXCLUDES(lock_) MAY_SLEEP;

	/*
	 * "Accessed and Dirty Flags for EPT": with them the CPU takes its walks of the guest's paging
	 * structures for writes. From now on it is done without. The pointer for VMCSs, of which each changes
	 * when its vCPU has to do without.
	 */
	u64 give_up_accessed_bits() EXCLUDES(lock_) WAITS_FOR_IPIS;

	/* Pages of [first, last] frames go out of the EPT, and out of every CPU's TLB. */
	void unmap(u64 first_frame, u64 last_frame) EXCLUDES(lock_) WAITS_FOR_IPIS;

	/*
	 * From now on every first write to a page of [first, last] frames is seen, by an EPT violation or
	 * page-modification logging. The table that has the slot's log is the current one already.
	 */
	void watch_writes(u64 first_frame, u64 last_frame) EXCLUDES(lock_) WAITS_FOR_IPIS;
	/* The guest has written to @frame, of which some slot's log is to know, or none. */
	static void log(const MemslotTable &table, u64 frame);
	/* Takes over what @slot's log has, and watches those pages again. */
	void take_log(const Memslot &slot) EXCLUDES(lock_) WAITS_FOR_IPIS;
	/*
	 * The same for those of @pages pages from @first on, a multiple of 64, that the caller has put where
	 * take_log() leaves them.
	 */
	void clear_log(const Memslot &slot, u64 first, u64 pages) EXCLUDES(lock_) WAITS_FOR_IPIS;

	/*
	 * The MMU notifier: all of [start, end) of the VMM's addresses goes out as in unmap(), and nothing of
	 * it is mapped until invalidate_end(). The same @table in both.
	 */
	void invalidate_begin(const MemslotTable &table, u64 start, u64 end)
		EXCLUDES(lock_) WAITS_FOR_IPIS;
	void invalidate_end(const MemslotTable &table, u64 start, u64 end) EXCLUDES(lock_);
	/*
	 * Whether guests have accessed something of [start, end) of the VMM's addresses since age_user(),
	 * which begins anew.
	 */
	bool is_user_young(const MemslotTable &table, u64 start, u64 end) EXCLUDES(lock_);
	bool age_user(const MemslotTable &table, u64 start, u64 end) EXCLUDES(lock_) WAITS_FOR_IPIS;

private:
	/* How many pages a fault at @address may map: what Linux has next to it, the guest often wants next. */
	unsigned pages_of_fault(const Memslot &slot, GuestPhys address) const;
	/* Without the lock: what the entry itself allows. Whether that was all. */
	bool fix(const Memslot &slot, GuestPhys address, GuestAccess access);
	/*
	 * No CPU uses an entry any more that was taken out before. Under the lock: whoever comes next
	 * and finds the page gone from the tables relies on its being gone from every TLB as well.
	 */
	void flush() REQUIRES(lock_) WAITS_FOR_IPIS;
	/* Whether an invalidation is under way that has to do with @size bytes at @start. */
	bool is_invalidated(u64 start, u64 size) const REQUIRES_SHARED(lock_);

	const VcpuTable &vcpus_;
	/* To read: faults, which add to the EPT. To write: all that takes something away. */
	RwLock lock_;
	Ept ept_ GUARDED_BY(lock_);
	CpuMask cpus_ GUARDED_BY(lock_);
	/*
	 * Invalidations under way, the least range that all of them are in since there was none, and
	 * how many have ended, which is read without the lock: see fault().
	 */
	unsigned in_progress_ GUARDED_BY(lock_) = 0;
	u64 invalid_start_ GUARDED_BY(lock_) = 0, invalid_end_ GUARDED_BY(lock_) = 0;
	std::atomic<u64> ended_{0};
	int largest_level_ = level_4k;
	bool small_for_fetch_ = false;
};

} // namespace kvmpp
