// SPDX-License-Identifier: GPL-2.0
#include "guest.hpp"

#include "arch/x86/paging.hpp"
#include "virt/dirty_log.hpp"

#include <set>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

using Outcome = Translation::Outcome;

/* "Page-Fault Exception": bits of the error code. */
constexpr u32 error_p = 1, error_w = 2, error_u = 4, error_i = 16;
/* Bits of a paging-structure entry. */
constexpr u64 p = 1, w = 2, u = 4, a = 0x20, d = 0x40, ps = 0x80, nx = u64{1} << 63;
constexpr u64 rflags_ac = 1 << 18;

class Paging : public GuestTest
{
protected:
	static constexpr u64 tables = 0x10000; /* from here on, a page each */

	Translation walk(u64 linear, PageAccess access = {})
	{
		return translate(s, memory, {linear}, access);
	}
	void expect_at(u64 address, const Translation &t)
	{
		EXPECT_EQ(t.outcome, Outcome::ok);
		EXPECT_EQ(t.address.value, address);
	}
	void expect_fault(u32 error, const Translation &t)
	{
		EXPECT_EQ(t.outcome, Outcome::page_fault);
		EXPECT_EQ(t.error_code, error);
	}
	void user_mode() { s.seg(Seg::ss).access_rights |= 3 << 5; }

	/* 32-bit paging: a directory and one table for the 4 MiB at @linear. */
	void paging32(u64 linear = 0)
	{
		protected_mode();
		s.cr0 |= cr0::pg;
		s.cr3 = tables | 0x18; /* PCD and PWT say nothing about the address */
		ram.put<u32>(tables + 4 * (linear >> 22), (tables + 0x1000) | p | w | u);
	}
	void map32(u64 linear, u32 entry)
	{
		ram.put<u32>(tables + 0x1000 + 4 * ((linear >> 12) & 0x3ff), entry);
	}

	void paging_pae()
	{
		protected_mode();
		s.cr0 |= cr0::pg | cr0::wp;
		s.cr4 |= cr4::pae;
		s.efer |= efer::nx;
		s.cr3 = tables;
		for (u64 i = 0; i < 4; i++)
			s.pdpte[i] = i == 2 ? 0 : (tables + 0x1000 * (i + 1)) | p;
	}
	/* 4-level: all levels grant all, one table each, at page 0x1000 * level. */
	void paging4(u64 linear, u64 leaf, u64 upper = p | w | u)
	{
		long_mode();
		s.cr0 |= cr0::wp;
		s.cr3 = tables | 0x123; /* a PCID */
		ram.put<u64>(tables + 8 * ((linear >> 39) & 0x1ff), (tables + 0x1000) | upper);
		ram.put<u64>(tables + 0x1000 + 8 * ((linear >> 30) & 0x1ff),
			     (tables + 0x2000) | upper);
		ram.put<u64>(tables + 0x2000 + 8 * ((linear >> 21) & 0x1ff),
			     (tables + 0x3000) | upper);
		ram.put<u64>(tables + 0x3000 + 8 * ((linear >> 12) & 0x1ff), leaf);
	}
};

} // namespace

TEST_F(Paging, off)
{
	protected_mode();
	expect_at(0x12345678, walk(0x12345678));
	expect_at(0x345, walk(0x100000345));
	expect_at(0x12345678, walk(0x12345678, {.write = true, .fetch = true}));
}

TEST_F(Paging, two_levels)
{
	paging32(0xc0000000);
	map32(0xc0123000, 0x7f123000 | p | w);
	expect_at(0x7f123abc, walk(0xc0123abc));
	expect_at(0x7f123abc, walk(0x1c0123abc)); /* linear addresses are 32 bits wide */
	expect_fault(0, walk(0xc0124000));
	expect_fault(0, walk(0x00000000)); /* no table */
	expect_fault(error_w, walk(0xc0124000, {.write = true}));
}

TEST_F(Paging, large_pages_of_32_bit_paging)
{
	paging32();
	ram.put<u32>(tables + 4 * 3, 0x40c00000 | ps | p | w);
	s.cr4 |= cr4::pse;
	expect_at(0x40c12345, walk(0x00c12345));
	/* PSE-36: bits 20:13 are bits 39:32 of the address. */
	ram.put<u32>(tables + 4 * 3, 0x40c00000 | 0x5a << 13 | ps | p | w);
	expect_at(0x5a40c12345, walk(0x00c12345));
	/* Without CR4.PSE the bit is ignored: this is a table. */
	ram.put<u32>(tables + 4 * 3, (tables + 0x1000) | ps | p | w);
	s.cr4 &= ~cr4::pse;
	map32(0x12000, 0x9000 | p);
	expect_at(0x9345, walk(0x00c12345));
}

TEST_F(Paging, bit_7_of_a_leaf_is_pat)
{
	paging32();
	s.cr4 |= cr4::pse;
	map32(0x12000, 0x9000 | ps | p);
	expect_at(0x9345, walk(0x12345));
}

TEST_F(Paging, pae)
{
	paging_pae();
	ram.put<u64>(tables + 0x2000 + 8 * 1, (tables + 0x8000) | p | w);
	ram.put<u64>(tables + 0x8000 + 8 * 5, u64{0x7} << 32 | 0x42000 | p | w);
	expect_at(0x700042abc, walk(0x40205abc));
	expect_fault(0, walk(0x80000000)); /* no PDPTE */
	expect_fault(0, walk(0x40206000));
	ram.put<u64>(tables + 0x4000 + 8 * 0x1ff, 0x3fe00000 | ps | p); /* 2 MiB */
	expect_at(0x3fffffff, walk(0xffffffff));
}

TEST_F(Paging, pae_uses_the_loaded_pdptes)
{
	paging_pae();
	ram.put<u64>(tables + 0x1000, 0x5000 | ps | p);
	s.cr3 = device; /* where nothing is: it does not matter any more */
	EXPECT_EQ(walk(0).outcome, Outcome::ok);
}

TEST_F(Paging, four_levels)
{
	u64 linear = 0xffff8123456789ab;

	paging4(linear, u64{0xabcde} << 12 | p | w);
	expect_at(0xabcde9ab, walk(linear));
	expect_fault(0, walk(linear + 0x1000));
	expect_fault(0, walk(linear + 0x200000));
	expect_fault(0, walk(linear + 0x40000000));
	expect_fault(0, walk(linear + (u64{1} << 39)));
}

TEST_F(Paging, large_pages_of_four_levels)
{
	u64 linear = 0x7f12345678;

	paging4(linear, 0);
	ram.put<u64>(tables + 0x2000 + 8 * ((linear >> 21) & 0x1ff),
		     0x3fe00000 | 1 << 12 | ps | p | w);
	expect_at(0x3fe00000 | (linear & 0x1fffff), walk(linear)); /* bit 12 is PAT */
	ram.put<u64>(tables + 0x1000 + 8 * ((linear >> 30) & 0x1ff), 0x1c0000000 | ps | p | w);
	expect_at(0x1c0000000 | (linear & 0x3fffffff), walk(linear));
}

TEST_F(Paging, tables_that_are_not_ram)
{
	paging4(0x5000, p);
	ram.put<u64>(tables + 0x2000, device | p);
	EXPECT_EQ(walk(0x5000).outcome, Outcome::no_tables);
	s.cr3 = device;
	EXPECT_EQ(walk(0x5000).outcome, Outcome::no_tables);
}

TEST_F(Paging, tables_that_the_vmm_took_away)
{
	paging4(0x5000, p);
	ram.unmap();
	EXPECT_EQ(walk(0x5000).outcome, Outcome::no_tables);
}

/* Rights, "Determination of Access Rights" */

TEST_F(Paging, user_needs_u_at_every_level)
{
	paging4(0x5000, 0x9000 | p | w | u);
	user_mode();
	expect_at(0x9000, walk(0x5000, {.write = true}));
	paging4(0x5000, 0x9000 | p | w);
	user_mode();
	expect_fault(error_p | error_u, walk(0x5000));
	expect_fault(error_p | error_u | error_w, walk(0x5000, {.write = true}));
	paging4(0x5000, 0x9000 | p | w | u);
	user_mode();
	ram.put<u64>(tables + 0x1000, (tables + 0x2000) | p | w);
	expect_fault(error_p | error_u, walk(0x5000));
	paging4(0x5000, 0);
	user_mode();
	expect_fault(error_u, walk(0x5000));
}

TEST_F(Paging, supervisor_writes_read_only_pages_without_wp)
{
	paging4(0x5000, 0x9000 | p);
	expect_at(0x9000, walk(0x5000));
	expect_fault(error_p | error_w, walk(0x5000, {.write = true}));
	s.cr0 &= ~cr0::wp;
	expect_at(0x9000, walk(0x5000, {.write = true}));
	/* A user never does. */
	paging4(0x5000, 0x9000 | p | u);
	user_mode();
	s.cr0 &= ~cr0::wp;
	expect_fault(error_p | error_w | error_u, walk(0x5000, {.write = true}));
}

TEST_F(Paging, write_needs_w_at_every_level)
{
	paging4(0x5000, 0x9000 | p | w);
	ram.put<u64>(tables + 0x2000, (tables + 0x3000) | p);
	expect_at(0x9000, walk(0x5000));
	expect_fault(error_p | error_w, walk(0x5000, {.write = true}));
}

TEST_F(Paging, nx_at_any_level_when_it_is_on)
{
	paging4(0x5000, 0x9000 | p | nx);
	expect_at(0x9000, walk(0x5000));
	expect_fault(error_p | error_i, walk(0x5000, {.fetch = true}));
	paging4(0x5000, 0x9000 | p);
	ram.put<u64>(tables, (tables + 0x1000) | p | nx);
	expect_fault(error_p | error_i, walk(0x5000, {.fetch = true}));
}

TEST_F(Paging, error_code_tells_of_fetches_only_with_nx_or_smep)
{
	paging4(0x5000, 0);
	expect_fault(error_i, walk(0x5000, {.fetch = true}));
	s.efer &= ~efer::nx;
	expect_fault(0, walk(0x5000, {.fetch = true}));
	s.cr4 |= cr4::smep;
	expect_fault(error_i, walk(0x5000, {.fetch = true}));
}

TEST_F(Paging, smep)
{
	paging4(0x5000, 0x9000 | p | w | u);
	expect_at(0x9000, walk(0x5000, {.fetch = true}));
	s.cr4 |= cr4::smep;
	expect_fault(error_p | error_i, walk(0x5000, {.fetch = true}));
	expect_at(0x9000, walk(0x5000));
	user_mode();
	expect_at(0x9000, walk(0x5000, {.fetch = true}));
	/* A page is the supervisor's as soon as one level says so. */
	paging4(0x5000, 0x9000 | p | w);
	s.cr4 |= cr4::smep;
	expect_at(0x9000, walk(0x5000, {.fetch = true}));
}

TEST_F(Paging, smap)
{
	paging4(0x5000, 0x9000 | p | w | u);
	s.cr4 |= cr4::smap;
	expect_fault(error_p, walk(0x5000));
	expect_fault(error_p | error_w, walk(0x5000, {.write = true}));
	expect_at(0x9000, walk(0x5000, {.fetch = true}));
	s.rflags |= rflags_ac;
	expect_at(0x9000, walk(0x5000, {.write = true}));
	s.rflags &= ~rflags_ac;
	user_mode();
	expect_at(0x9000, walk(0x5000));
}

TEST_F(Paging, rights_of_32_bit_paging)
{
	paging32();
	map32(0x5000, 0x9000 | p | u);
	s.efer |= efer::nx; /* means nothing here */
	expect_fault(0, walk(0x6000, {.fetch = true}));
	expect_at(0x9000, walk(0x5000, {.fetch = true}));
	expect_at(0x9000, walk(0x5000, {.write = true})); /* no WP */
	user_mode();
	expect_fault(error_p | error_w | error_u, walk(0x5000, {.write = true}));
}

TEST_F(Paging, pae_rights_do_not_come_from_the_pdpte)
{
	paging_pae();
	user_mode();
	ram.put<u64>(tables + 0x1000, 0x200000 | ps | p | w | u);
	expect_at(0x200000, walk(0, {.write = true}));
}

/* "Accessed and Dirty Flags" */

TEST_F(Paging, accessed_at_each_level_and_dirty_in_the_leaf)
{
	constexpr u64 leaf = tables + 0x3000 + 8 * 5;

	paging4(0x5000, 0x9000 | p | w);
	walk(0x5000);
	for (u64 level = 0; level < 3; level++)
		EXPECT_EQ(ram.get<u64>(tables + 0x1000 * level),
			  (tables + 0x1000 * (level + 1)) | p | w | u | a);
	EXPECT_EQ(ram.get<u64>(leaf), 0x9000u | p | w | a);
	walk(0x5000, {.fetch = true});
	EXPECT_EQ(ram.get<u64>(leaf), 0x9000u | p | w | a);
	walk(0x5000, {.write = true});
	EXPECT_EQ(ram.get<u64>(leaf), 0x9000u | p | w | a | d);
	EXPECT_EQ(ram.get<u64>(tables + 0x2000), (tables + 0x3000) | p | w | u | a);
}

TEST_F(Paging, flags_of_32_bit_and_pae_paging)
{
	paging32();
	map32(0x12000, 0x9000 | p | w);
	map32(0x13000, 0xfffff000 | p);
	expect_at(0x9000, walk(0x12000, {.write = true}));
	EXPECT_EQ(ram.get<u32>(tables), (tables + 0x1000) | p | w | u | a);
	EXPECT_EQ(ram.get<u32>(tables + 0x1000 + 4 * 0x12), 0x9000u | p | w | a | d);
	EXPECT_EQ(ram.get<u32>(tables + 0x1000 + 4 * 0x13), 0xfffff000 | p) << "its neighbour";
	s.cr4 |= cr4::pse;
	ram.put<u32>(tables + 4, 0x400000 | ps | p | w);
	expect_at(0x412000, walk(0x412000, {.write = true}));
	EXPECT_EQ(ram.get<u32>(tables + 4), 0x400000u | ps | p | w | a | d);

	paging_pae();
	ram.put<u64>(tables + 0x1000, 0x200000 | ps | p | w);
	expect_at(0x212000, walk(0x12000, {.write = true}));
	EXPECT_EQ(ram.get<u64>(tables + 0x1000), 0x200000u | ps | p | w | a | d);
	EXPECT_EQ(s.pdpte[0], (tables + 0x1000) | p) << "PDPTEs have none";
}

TEST_F(Paging, no_flags_where_there_is_a_fault)
{
	paging4(0x5000, 0x9000 | p);
	expect_fault(error_p | error_w, walk(0x5000, {.write = true}));
	EXPECT_EQ(ram.get<u64>(tables), (tables + 0x1000) | p | w | u);
	EXPECT_EQ(ram.get<u64>(tables + 0x3000 + 8 * 5), 0x9000u | p);
}

TEST_F(Paging, entry_that_changes_under_the_walk)
{
	paging4(0x5000, 0x9000 | p | w | a);
	for (u64 level = 0; level < 3; level++)
		ram.put<u64>(tables + 0x1000 * level,
			     (tables + 0x1000 * (level + 1)) | p | w | u | a);
	on_compare_exchange([&] { ram.put<u64>(tables + 0x3000 + 8 * 5, 0xa000 | p | w | a); });
	expect_at(0xa000, walk(0x5000, {.write = true}));
	EXPECT_EQ(ram.get<u64>(tables + 0x3000 + 8 * 5), 0xa000u | p | w | a | d);
	ram.put<u64>(tables + 0x3000 + 8 * 5, 0xa000 | p | w | a);
	on_compare_exchange([&] { ram.put<u64>(tables + 0x3000 + 8 * 5, 0); });
	expect_fault(error_w, walk(0x5000, {.write = true}));
	EXPECT_EQ(ram.get<u64>(tables + 0x3000 + 8 * 5), 0u);
}

/* Nothing is written, not even what would be the same, where all is set. */
TEST_F(Paging, flags_that_are_set)
{
	paging4(0x5000, 0x9000 | p | w | a | d);
	for (u64 level = 0; level < 3; level++)
		ram.put<u64>(tables + 0x1000 * level,
			     (tables + 0x1000 * (level + 1)) | p | w | u | a);
	bool written = false;
	on_compare_exchange([&] { written = true; });
	expect_at(0x9000, walk(0x5000, {.write = true}));
	EXPECT_FALSE(written);
	on_compare_exchange(nullptr);
}

TEST_F(Paging, tables_that_cannot_be_written)
{
	paging4(0x5000, 0x9000 | p | w);
	Owned<MemslotTable> table = ram.read_only_table();
	expect_at(0x9000, translate(s, GuestMemory(*table), {0x5000}, {.write = true}));
	EXPECT_EQ(ram.get<u64>(tables), (tables + 0x1000) | p | w | u) << "as it is";
	/* The VMM's own mapping does not let it: KVM has that fail, too. */
	add_user_memory(ram.address(), ram_bytes, false);
	EXPECT_EQ(walk(0x5000).outcome, Outcome::no_tables);
}

TEST_F(Paging, written_tables_are_in_the_log)
{
	paging4(0x5000, 0x9000 | p | w);
	Owned<DirtyLog> log = DirtyLog::create(ram_bytes >> page_shift);
	Memslot slot{.id = 0,
		     .invalid = false,
		     .first_frame = 0,
		     .frames = ram_bytes >> page_shift,
		     .user = {ram.address()},
		     .log = log.get()};
	Owned<MemslotTable> table = MemslotTable().with_change(0, &slot);
	expect_at(0x9000, translate(s, GuestMemory(*table), {0x5000}, {.write = true}));
	std::set<u64> logged;
	log->take([&](u64 page) { logged.insert(page); });
	EXPECT_EQ(logged, (std::set<u64>{0x10, 0x11, 0x12, 0x13}));
}
