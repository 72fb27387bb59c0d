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

	/* One page, executable. An entry that is there is replaced: see Mmu::fault(). */
	void map(GuestPhys guest, HostPhys host, bool writable, TablePages &pages);
	/*
	 * Takes out every page of [first, last] frames. Whether there was one: then CPUs may have it
	 * cached.
	 */
	bool unmap(u64 first_frame, u64 last_frame);

	/* Drops what this CPU has cached of them, or of others that were in the same place. */
	void invalidate_here(const IrqOff &irq) const REQUIRES(irqs_off);

private:
	Page root_;
};

} // namespace kvmpp
