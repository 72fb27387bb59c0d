/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The extended page tables of one VM ("The Extended Page Table Mechanism"). The CPUs walk them at any
 * time, and set bits in them. Beside them there are three kinds of callers: many who add at a time, none
 * of whom takes anything away; one who takes away, alone; and many who only give back what an entry says
 * it may have, beside all others, inside RCU. The first two are kept apart by the owner's MMU lock.
 */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/types.hpp"

#include <atomic>

namespace kvmpp
{

/* The size of a page, by the level of the table that its entry is in. */
inline constexpr int level_4k = 1, level_2m = 2, level_1g = 3;

constexpr u64 frames_of_level(int level)
{
	return u64{1} << (9 * (level - 1));
}

struct EptLeaf {
	int level = level_4k;
	bool writable = false;
	/* The CPU need not note that it was written to. */
	bool dirty = true;
	/* It may be made so as long as it is there: Linux has it writable, and so does its slot. */
	bool host_writable = false;
	bool executable = true;
	/* Else an entry that is there stays as it is. */
	bool accessed = true;
};

/* What the guest was about to do. */
struct GuestAccess {
	bool write = false;
	bool fetch = false;
};

class Ept
{
public:
	/* Table pages for one map(), had before the lock is taken, because allocation may sleep. */
	class TablePages
	{
	public:
		/* Errno::nomem. May sleep. */
		Result<> fill() MAY_SLEEP;
		/* One that is there: fill() was before each map(). */
		Page &first();

	private:
		static constexpr unsigned wanted = 3; /* all levels below the root */
		Page pages_[wanted];
	};

	Ept() = default;
	Ept(const Ept &) = delete;
	Ept &operator=(const Ept &) = delete;
	/* No vCPU uses them any more. */
	~Ept();

	/*
	 * With @accessed_bits the CPU notes what it has accessed; without, pages are made to fault that are
	 * to be seen. With @pml as well it logs a page as it sets its dirty bit. Errno::nomem. May sleep.
	 */
	Result<> create(bool accessed_bits, bool pml = false) MAY_SLEEP;
	/* vCPUs have a page log. */
	bool has_pml() const { return pml_; }
	/* Writes are seen by page-modification logging, not by faults. Not beside give_up_accessed_bits(). */
	bool logs_writes() const { return pml_ && has_accessed_bits(); }
	/*
	 * As if created without accessed bits, from now on. CPUs that use the old pointer() may go on with it:
	 * what they set and log in addition does no harm. They have to drop what they have cached. Alone.
	 */
	void give_up_accessed_bits();
	/* Any context. */
	bool has_accessed_bits() const { return accessed_bits_.load(std::memory_order_relaxed); }
	/* For the VMCS: where the root is, its memory type and depth ("EPT Pointer"). */
	u64 pointer() const;

	/*
	 * Makes @guest reach @host, by an entry for all that is around them at @leaf's level. What an entry
	 * of the same page allows already stays. A larger page that is there is split. A table with something
	 * in it is not given up for a larger page: then the page becomes smaller. One of 4 KiB is always
	 * executable. False where something is in the way that has to be unmapped first: an empty table,
	 * another page. No CPU has to drop anything. Beside others who do the same.
	 */
	[[nodiscard]] bool map(GuestPhys guest, HostPhys host, EptLeaf leaf, TablePages &pages);

	/*
	 * The @count pages after @guest, each of 4 KiB, as map() would; and for each, whether. @guest has been
	 * mapped so, all entries are in its table, and nobody has taken anything away since. Beside the same.
	 */
	void map_after(GuestPhys guest, const u64 *host_frames, int count, EptLeaf leaf,
		       bool *mapped);

	enum class Fix {
		none,          /* the entry does not allow it */
		done,          /* the access works now, or has worked all the time */
		made_writable, /* and the page was not writable before */
	};
	/*
	 * Gives a page back what it lost as its writes or accesses were to be seen, if its entry says that
	 * @access may have it. Beside everybody.
	 */
	Fix fix(GuestPhys guest, GuestAccess access) REQUIRES_SHARED(rcu);

	/*
	 * Takes out every page that has a part in [first, last] frames, and the tables that are for
	 * nothing else. Whether there was one: then CPUs may have it cached. Linux is told which of them the
	 * guest has used. Alone.
	 */
	[[nodiscard]] bool unmap(u64 first_frame, u64 last_frame);
	/*
	 * The next write to each page of [first, last] frames is to be seen: by a fault, for which it becomes
	 * read-only, or by the CPU's log. A large one, which a write would make writable as a whole, is
	 * read-only until it is split. Whether CPUs may have something of it cached. Alone.
	 */
	[[nodiscard]] bool watch_writes(u64 first_frame, u64 last_frame);
	/*
	 * Whether something of [first, last] frames has been accessed since age(), which begins anew; what
	 * CPUs have cached of it they access unseen. Alone.
	 */
	bool is_young(u64 first_frame, u64 last_frame);
	[[nodiscard]] bool age(u64 first_frame, u64 last_frame);

	/*
	 * Frees the tables that were taken out, after a grace period. After all CPUs have dropped what they
	 * have cached: until then they may walk them. Alone.
	 */
	void free_retired();

	/* Drops what this CPU has cached of them, or of others that were in the same place. */
	void invalidate_here(const IrqOff &irq) const REQUIRES(irqs_off);

private:
	Page root_;
	/* The tables that were taken out: the entry 0 of each has where the next one is. */
	u64 retired_ = 0;
	std::atomic<bool> accessed_bits_{false};
	bool pml_ = false;

	void add_table(u64 &entry, u64 was, int level, TablePages &pages);
	void take_out(u64 &entry, int level);
	/* @table, which no entry has any more, and those below it. Somebody may still walk them. */
	void retire(u64 *table, int level);
	bool is_accessed(u64 entry) const;
};

} // namespace kvmpp
