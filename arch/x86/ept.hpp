/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The extended page tables of one VM ("The Extended Page Table Mechanism"). The owner's MMU lock is
 * held around every change; the CPUs walk them at any time.
 */
#pragma once

#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/types.hpp"

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
	bool executable = true;
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
		u64 *take();

	private:
		static constexpr unsigned wanted = 3; /* all levels below the root */
		Page pages_[wanted];
	};

	Ept() = default;
	Ept(const Ept &) = delete;
	Ept &operator=(const Ept &) = delete;
	/* No vCPU uses them any more. */
	~Ept();

	/* Errno::nomem. May sleep. */
	Result<> create() MAY_SLEEP;
	/* For the VMCS: where the root is, its memory type and depth ("EPT Pointer"). */
	u64 pointer() const;

	/*
	 * Makes @guest reach @host, by an entry for all that is around them at @leaf's level; an
	 * entry that is there is replaced. What CPUs may have cached and has to go: see
	 * free_retired(). A table with something in it is not given up for a larger page: then the
	 * page becomes smaller. One of 4 KiB is always executable.
	 */
	[[nodiscard]] bool map(GuestPhys guest, HostPhys host, EptLeaf leaf, TablePages &pages);
	/*
	 * Takes out every page that has a part in [first, last] frames, and the tables that are for
	 * nothing else. Whether there was one: then CPUs may have it cached.
	 */
	[[nodiscard]] bool unmap(u64 first_frame, u64 last_frame);
	/*
	 * Makes the pages of [first, last] frames read-only; large ones, which a write would make
	 * writable as a whole, go out. Whether CPUs may have something of it cached.
	 */
	[[nodiscard]] bool write_protect(u64 first_frame, u64 last_frame);
	/* Whether a page is there that has a part in [first, last] frames. */
	bool maps(u64 first_frame, u64 last_frame) const;

	/*
	 * Frees the tables that were taken out. After all CPUs have dropped what they have cached:
	 * until then they may walk them.
	 */
	void free_retired();

	/* Drops what this CPU has cached of them, or of others that were in the same place. */
	void invalidate_here(const IrqOff &irq) const REQUIRES(irqs_off);

private:
	Page root_;
	/* The tables that were taken out: the entry 0 of each has where the next one is. */
	u64 *retired_ = nullptr;
};

} // namespace kvmpp
