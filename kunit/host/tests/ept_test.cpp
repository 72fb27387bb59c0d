// SPDX-License-Identifier: GPL-2.0
#include "ept_walk.hpp"
#include "fixture.hpp"

#include "arch/x86/ept.hpp"
#include "arch/x86/x86.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

/* And the guest's PAT is ignored. */
constexpr u64 write_back = 6 << 3 | 1 << 6;

class EptTest : public MachineTest
{
protected:
	EptTest() { EXPECT_TRUE(ept.create(true)); }

	void map(u64 guest, u64 host, bool writable = true)
	{
		ASSERT_TRUE(pages.fill());
		EXPECT_TRUE(ept.map({guest}, {host},
				    {.writable = writable, .host_writable = writable}, pages));
	}
	bool map_large(u64 guest, u64 host, int level, bool writable = true, bool executable = true)
	{
		EXPECT_TRUE(pages.fill());
		return ept.map({guest}, {host},
			       {.level = level,
				.writable = writable,
				.host_writable = writable,
				.executable = executable},
			       pages);
	}
	u64 walk(u64 guest) const { return ept_entry(ept.pointer(), guest); }
	u64 whole(u64 guest) const { return ept_whole_entry(ept.pointer(), guest); }
	Ept::Fix fix(Ept &of, u64 guest, GuestAccess access = {})
	{
		RcuRead read;
		return of.fix({guest}, access);
	}

	Ept ept;
	Ept::TablePages pages;
};

} // namespace

TEST_F(EptTest, pointer_says_4_levels_write_back_and_accessed_bits)
{
	EXPECT_EQ(ept.pointer() & 0xfff, 0x5eu);
	Ept without;
	EXPECT_TRUE(without.create(false));
	EXPECT_EQ(without.pointer() & 0xfff, 0x1eu) << "without accessed and dirty bits";
	EXPECT_NE(ept.pointer() >> 12, 0u);
}

TEST_F(EptTest, entries_are_as_the_manual_has_them)
{
	map(0x1000, 0x123456789000);
	EXPECT_EQ(walk(0x1000), 0x123456789000u | write_back | 7);
	map(0x2000, 0x5000, false);
	EXPECT_EQ(walk(0x2000), 0x5000u | write_back | 5) << "read-only, executable";
	EXPECT_EQ(whole(0x1000) & ~walk(0x1000),
		  ept_accessed | ept_dirty | ept_host_writable | ept_mmu_writable);
	EXPECT_EQ(whole(0x2000) & ~walk(0x2000), ept_accessed);
	EXPECT_EQ(walk(0x3000), 0u);
}

TEST_F(EptTest, entry_is_replaced)
{
	map(0x1000, 0x5000, false);
	map(0x1000, 0x5000);
	EXPECT_EQ(walk(0x1000), 0x5000u | write_back | 7);
	EXPECT_FALSE(map_large(0x1000, 0x6000, level_4k)) << "CPUs have the other page";
	EXPECT_EQ(walk(0x1000), 0x5000u | write_back | 7);
}

TEST_F(EptTest, table_pages_are_taken_only_where_needed)
{
	int before = live_allocations();

	map(0, 0x5000);
	EXPECT_EQ(live_allocations() - before, 3) << "three levels";
	map(0x1000, 0x6000); /* same table: the three that fill() got are still there */
	EXPECT_EQ(live_allocations() - before, 6);
	map(0x200000, 0x7000); /* one more table */
	map(0x201000, 0x7000);
	EXPECT_EQ(live_allocations() - before, 7);
	EXPECT_EQ(walk(0), 0x5000u | write_back | 7);
	EXPECT_EQ(walk(0x200000), 0x7000u | write_back | 7);
}

TEST_F(EptTest, far_apart)
{
	const u64 places[] = {0,          0x1ff000,     0x200000,     0x3ffff000,
			      0x40000000, 0x7ffffff000, 0x8000000000, 0xfffffffff000};

	for (u64 place : places)
		map(place, place + 0x1000000);
	for (u64 place : places)
		EXPECT_EQ(walk(place), (place + 0x1000000) | write_back | 7) << std::hex << place;
	for (u64 place : places) {
		EXPECT_TRUE(ept.unmap(place >> 12, place >> 12));
		EXPECT_EQ(walk(place), 0u);
	}
}

TEST_F(EptTest, unmap_ranges)
{
	for (u64 frame = 0x1f8; frame < 0x208; frame++)
		map(frame << 12, frame << 12);
	EXPECT_FALSE(ept.unmap(0, 0x1f7));
	EXPECT_FALSE(ept.unmap(0x208, ~u64{0} >> 12));
	EXPECT_TRUE(ept.unmap(0x1fe, 0x201)); /* over the border of a table */
	for (u64 frame = 0x1f8; frame < 0x208; frame++)
		EXPECT_EQ(walk(frame << 12) != 0, frame < 0x1fe || frame > 0x201) << frame;
	EXPECT_FALSE(ept.unmap(0x1fe, 0x201)) << "a second time there is nothing";
	EXPECT_TRUE(ept.unmap(0, ~u64{0} >> 12));
	EXPECT_FALSE(ept.unmap(0, ~u64{0} >> 12));
}

TEST_F(EptTest, remapping_after_unmapping)
{
	map(0x1000, 0x5000);
	EXPECT_TRUE(ept.unmap(1, 1));
	map(0x1000, 0x6000);
	EXPECT_EQ(walk(0x1000), 0x6000u | write_back | 7);
}

TEST_F(EptTest, out_of_memory)
{
	for (unsigned n = 0; n < 3; n++) {
		Ept::TablePages some;
		fail_allocation_after(n);
		Result<> r = some.fill();
		ASSERT_FALSE(r);
		EXPECT_EQ(r.error(), Errno::nomem);
		EXPECT_TRUE(some.fill()) << "what is there is kept";
	}
	Ept other;
	fail_allocation_after(0);
	EXPECT_FALSE(other.create(true));
}

TEST_F(EptTest, large_entries_are_as_the_manual_has_them)
{
	EXPECT_TRUE(map_large(0x40212000, 0x1234412000, level_2m));
	EXPECT_EQ(walk(0x40200000), 0x1234400000u | 0x80 | write_back | 7);
	EXPECT_EQ(walk(0x403ff000), 0x1234400000u | 0x80 | write_back | 7);
	EXPECT_EQ(walk(0x401ff000), 0u);
	EXPECT_EQ(walk(0x40400000), 0u);
	EXPECT_TRUE(map_large(0xbfff5000, 0x4fffff5000, level_1g, false, false));
	EXPECT_EQ(walk(0x80000000), 0x4fc0000000u | 0x80 | write_back | 1);
	EXPECT_EQ(walk(0xc0000000), 0u);
}

TEST_F(EptTest, part_of_a_large_page_goes_as_a_whole)
{
	map_large(0x200000, 0x600000, level_2m);
	map_large(0x40000000, 0x40000000, level_1g);
	map(0x1ff000, 0x5000);
	EXPECT_TRUE(ept.unmap(0x3ff, 0x3ff));
	EXPECT_EQ(walk(0x200000), 0u);
	EXPECT_NE(walk(0x1ff000), 0u);
	EXPECT_TRUE(ept.unmap(0x40000, 0x40000));
	EXPECT_EQ(walk(0x7ffff000), 0u);
}

TEST_F(EptTest, large_page_is_split_for_a_small_one)
{
	map_large(0x200000, 0x600000, level_2m);
	EXPECT_TRUE(map_large(0x201000, 0x601000, level_4k));
	for (u64 at = 0; at < 0x200000; at += 0x1000)
		ASSERT_EQ(walk(0x200000 + at), (0x600000 + at) | write_back | 7) << at;
	map_large(0x40000000, 0x80000000, level_1g, false, false);
	EXPECT_TRUE(map_large(0x40201000, 0x80201000, level_4k, false));
	EXPECT_EQ(walk(0x40201000), 0x80201000u | write_back | 5);
	EXPECT_EQ(walk(0x40200000), 0x80200000u | write_back | 5) << "small ones are executable";
	EXPECT_EQ(walk(0x40400000), 0x80400000u | 0x80 | write_back | 1);
}

TEST_F(EptTest, large_page_where_a_table_is)
{
	map(0x201000, 0x601000);
	EXPECT_TRUE(map_large(0x202000, 0x602000, level_2m, true, false));
	EXPECT_EQ(walk(0x202000), 0x602000u | write_back | 7)
		<< "what is there stays; 4 KiB, executable";
	EXPECT_EQ(walk(0x201000), 0x601000u | write_back | 7);
	/* The table is empty, and goes when no CPU walks it any more. */
	EXPECT_TRUE(ept.unmap(0x201, 0x202));
	EXPECT_FALSE(map_large(0x202000, 0x602000, level_2m)) << "it is in the way";
	EXPECT_TRUE(ept.unmap(0x200, 0x3ff));
	int before = live_allocations();
	EXPECT_TRUE(map_large(0x202000, 0x602000, level_2m));
	EXPECT_EQ(walk(0x201000), 0x600000u | 0x80 | write_back | 7);
	EXPECT_EQ(live_allocations(), before);
	ept.free_retired();
	EXPECT_EQ(live_allocations(), before - 1);
	/* 1 GiB where 2 MiB are: 2 MiB beside it, not executable. */
	EXPECT_TRUE(map_large(0x401000, 0x801000, level_1g, true, false));
	EXPECT_EQ(walk(0x400000), 0x800000u | 0x80 | write_back | 3);
}

TEST_F(EptTest, tables_that_are_taken_out_are_freed_later)
{
	map(0x200000, 0x5000);
	map(0x40000000, 0x6000);
	map(0x40201000, 0x7000);
	pages = {};
	int before = live_allocations();
	EXPECT_TRUE(ept.unmap(0x40000, 0x7ffff));
	EXPECT_EQ(walk(0x40000000), 0u);
	EXPECT_EQ(live_allocations(), before) << "CPUs may walk them";
	{
		RcuRead read;
		ept.free_retired();
		EXPECT_EQ(live_allocations(), before) << "somebody may walk them without a lock";
	}
	EXPECT_EQ(live_allocations(), before - 3);
	EXPECT_NE(walk(0x200000), 0u);
	map(0x40201000, 0x8000);
	EXPECT_EQ(walk(0x40201000), 0x8000u | write_back | 7);
}

TEST_F(EptTest, rights_of_the_same_page_only_grow)
{
	map(0x1000, 0x5000);
	map(0x1000, 0x5000, false);
	EXPECT_EQ(walk(0x1000), 0x5000u | write_back | 7);
}

TEST_F(EptTest, write_protection)
{
	for (u64 frame = 0x1f8; frame < 0x200; frame++)
		map(frame << 12, frame << 12);
	map_large(0x200000, 0x600000, level_2m);
	map_large(0x400000, 0x800000, level_2m, false);
	EXPECT_TRUE(ept.watch_writes(0x1fa, 0x5ff));
	for (u64 frame = 0x1f8; frame < 0x200; frame++)
		EXPECT_EQ(walk(frame << 12) & 7, frame < 0x1fa ? 7u : 5u) << frame;
	EXPECT_EQ(walk(0x200000), 0x600000u | 0x80 | write_back | 5);
	EXPECT_EQ(walk(0x400000), 0x800000u | 0x80 | write_back | 5) << "it was";
	EXPECT_FALSE(ept.watch_writes(0x1fa, 0x5ff));
}

TEST_F(EptTest, writable_page_is_given_its_right_back)
{
	map(0x1000, 0x5000);
	EXPECT_EQ(fix(ept, 0x1000, {.write = true}), Ept::Fix::done) << "it had it";
	EXPECT_TRUE(ept.watch_writes(1, 1));
	EXPECT_EQ(fix(ept, 0x1000), Ept::Fix::done);
	EXPECT_EQ(walk(0x1000), 0x5000u | write_back | 5) << "not for a read";
	EXPECT_EQ(fix(ept, 0x1000, {.write = true}), Ept::Fix::made_writable);
	EXPECT_EQ(walk(0x1000), 0x5000u | write_back | 7);
	EXPECT_EQ(fix(ept, 0x1000, {.write = true}), Ept::Fix::done);
	map(0x2000, 0x6000, false);
	EXPECT_EQ(fix(ept, 0x2000, {.write = true}), Ept::Fix::none) << "Linux has it read-only";
	EXPECT_EQ(fix(ept, 0x2000, {.fetch = true}), Ept::Fix::done);
	EXPECT_EQ(fix(ept, 0x3000), Ept::Fix::none) << "nothing is there";
	EXPECT_EQ(fix(ept, 0x400000000), Ept::Fix::none) << "no table either";
}

TEST_F(EptTest, large_page_is_not_made_writable_as_a_whole)
{
	map_large(0x200000, 0x600000, level_2m);
	EXPECT_TRUE(ept.watch_writes(0x207, 0x207));
	EXPECT_EQ(fix(ept, 0x208000), Ept::Fix::done);
	EXPECT_EQ(fix(ept, 0x208000, {.write = true}), Ept::Fix::none);
	map(0x207000, 0x607000);
	EXPECT_EQ(walk(0x207000), 0x607000u | write_back | 7);
	EXPECT_EQ(walk(0x208000), 0x608000u | write_back | 5);
	EXPECT_EQ(fix(ept, 0x208000, {.write = true}), Ept::Fix::made_writable);
	map_large(0x400000, 0x800000, level_2m, true, false);
	EXPECT_EQ(fix(ept, 0x400000, {.fetch = true}), Ept::Fix::none);
}

TEST_F(EptTest, dirty_bit_is_cleared_for_the_cpus_log)
{
	constexpr u64 clean = ept_accessed | ept_host_writable | ept_mmu_writable;
	Ept logged;
	auto bits = [&](u64 at) {
		u64 pointer = logged.pointer();
		return ept_whole_entry(pointer, at) & ~ept_entry(pointer, at);
	};
	auto rights = [&](u64 at) { return ept_entry(logged.pointer(), at) & 7; };
	const EptLeaf leaf{.writable = true, .dirty = false, .host_writable = true};

	EXPECT_TRUE(logged.create(true, true));
	ASSERT_TRUE(pages.fill());
	EXPECT_TRUE(logged.map({0x1000}, {0x5000}, leaf, pages));
	EXPECT_EQ(bits(0x1000), clean);
	EXPECT_EQ(rights(0x1000), 7u);
	EXPECT_EQ(fix(logged, 0x1000, {.write = true}), Ept::Fix::done);
	EXPECT_EQ(bits(0x1000), clean) << "the CPU has to set it, else it does not log the page";
	EXPECT_FALSE(logged.watch_writes(1, 1));
	EXPECT_TRUE(
		logged.map({0x1000}, {0x5000}, {.writable = true, .host_writable = true}, pages));
	EXPECT_EQ(bits(0x1000), clean | ept_dirty);
	EXPECT_TRUE(logged.map({0x1000}, {0x5000}, leaf, pages));
	EXPECT_EQ(bits(0x1000), clean | ept_dirty) << "it was written to";
	EXPECT_TRUE(logged.watch_writes(1, 1)) << "a CPU may know of the dirty bit";
	EXPECT_EQ(bits(0x1000), clean);
	EXPECT_EQ(rights(0x1000), 7u);
}

TEST_F(EptTest, pages_after_one_that_has_been_mapped)
{
	constexpr u64 frames[] = {0x91, 0x92, 0x93};
	EptLeaf leaf{.writable = true, .host_writable = true, .accessed = false};
	bool mapped[3];

	map_large(0x200000, 0x600000, level_2m);
	map(0x9000, 0x92000, false);
	map(0xa000, 0x70000);
	map(0x7000, 0x90000);
	ept.map_after({0x7000}, frames, 0, leaf, mapped);
	EXPECT_EQ(walk(0x8000), 0u);
	u64 before = whole(0x9000);
	ept.map_after({0x7000}, frames, 3, leaf, mapped);
	EXPECT_TRUE(mapped[0]);
	EXPECT_EQ(whole(0x8000) & ~u64{0xfff} & low_bits(52), 0x91000u);
	EXPECT_EQ(whole(0x8000) & (7 | ept_accessed), 7u) << "not used yet";
	EXPECT_TRUE(mapped[1]) << "by another vCPU";
	EXPECT_EQ(whole(0x9000), before);
	EXPECT_FALSE(mapped[2]) << "another page is there";
	EXPECT_EQ(walk(0xa000) & ~u64{0xfff}, 0x70000u);
	EXPECT_EQ(walk(0xb000), 0u);
	/* In the table that a large page has been split into. */
	map(0x203000, 0x603000);
	constexpr u64 after = 0x604;
	ept.map_after({0x203000}, &after, 1, leaf, mapped);
	EXPECT_TRUE(mapped[0]);
	EXPECT_EQ(walk(0x204000) & ~u64{0xfff}, 0x604000u);
}

TEST_F(EptTest, parts_of_a_large_page_are_for_the_cpus_log)
{
	Ept logged;
	auto map = [&](u64 at, int level) {
		EXPECT_TRUE(pages.fill());
		EXPECT_TRUE(logged.map({at}, {at},
				       {.level = level, .writable = true, .host_writable = true},
				       pages));
	};
	auto whole = [&](u64 at) { return ept_whole_entry(logged.pointer(), at); };

	EXPECT_TRUE(logged.create(true, true));
	map(0x200000, level_2m);
	map(0x400000, level_2m);
	EXPECT_TRUE(logged.watch_writes(0x207, 0x207));
	EXPECT_EQ(whole(0x200000) & 7, 5u) << "until it is split";
	EXPECT_FALSE(logged.watch_writes(0x207, 0x207));
	EXPECT_EQ(fix(logged, 0x207000, {.write = true}), Ept::Fix::none);
	map(0x207000, level_4k);
	map(0x407000, level_4k);
	EXPECT_NE(whole(0x207000) & ept_dirty, 0u);
	EXPECT_EQ(whole(0x208000) & 7, 7u);
	EXPECT_EQ(whole(0x208000) & ept_dirty, 0u);
	EXPECT_NE(whole(0x408000) & ept_dirty, 0u) << "whose writes nobody wants to see";
}

TEST_F(EptTest, age_by_accessed_bits)
{
	(void)user_pages_accessed();
	map(0x1000, 0x5000);
	map_large(0x200000, 0x600000, level_2m);
	EXPECT_TRUE(ept.is_young(1, 1));
	EXPECT_FALSE(ept.is_young(2, 0x1ff));
	EXPECT_TRUE(ept.is_young(0x201, 0x201));
	u64 before = whole(0x1000);
	EXPECT_TRUE(ept.age(0, 0x3ff));
	EXPECT_EQ(whole(0x1000), before & ~ept_accessed);
	EXPECT_FALSE(ept.is_young(0, 0x3ff));
	EXPECT_FALSE(ept.age(0, 0x3ff));
	EXPECT_TRUE(ept.unmap(0, 0x3ff));
	EXPECT_EQ(user_pages_accessed(), 0u);
	map(0x1000, 0x5000);
	EXPECT_TRUE(ept.unmap(1, 1));
	EXPECT_EQ(user_pages_accessed(), 1u) << "Linux is told";
}

TEST_F(EptTest, age_without_accessed_bits)
{
	(void)user_pages_accessed();
	Ept tracking;
	auto entry = [&](u64 at) { return ept_entry(tracking.pointer(), at); };

	EXPECT_TRUE(tracking.create(false));
	ASSERT_TRUE(pages.fill());
	EXPECT_TRUE(
		tracking.map({0x1000}, {0x5000}, {.writable = true, .host_writable = true}, pages));
	EXPECT_TRUE(tracking.map({0x2000}, {0x6000}, {}, pages));
	EXPECT_TRUE(tracking.is_young(1, 1));
	EXPECT_TRUE(tracking.age(1, 2));
	EXPECT_EQ(entry(0x1000), 0x5000u | write_back) << "no rights";
	EXPECT_EQ(entry(0x2000), 0x6000u | write_back);
	EXPECT_FALSE(tracking.is_young(1, 2));
	EXPECT_FALSE(tracking.age(1, 2));
	EXPECT_EQ(fix(tracking, 0x1000), Ept::Fix::done);
	EXPECT_EQ(entry(0x1000), 0x5000u | write_back | 5) << "W comes back with a write only";
	EXPECT_TRUE(tracking.is_young(1, 2));
	EXPECT_EQ(fix(tracking, 0x1000, {.write = true}), Ept::Fix::made_writable);
	EXPECT_TRUE(tracking.age(1, 1));
	EXPECT_EQ(fix(tracking, 0x1000, {.write = true}), Ept::Fix::made_writable);
	EXPECT_EQ(entry(0x1000), 0x5000u | write_back | 7);
	EXPECT_EQ(fix(tracking, 0x2000, {.write = true}), Ept::Fix::none);
	EXPECT_EQ(entry(0x2000), 0x6000u | write_back);
	/* What has no rights is there, and goes as all else does. */
	EXPECT_TRUE(tracking.age(1, 1));
	EXPECT_FALSE(tracking.watch_writes(1, 2)) << "it is so already, and CPUs know";
	EXPECT_TRUE(tracking.unmap(1, 2));
	EXPECT_EQ(entry(0x1000), 0u);
	EXPECT_EQ(user_pages_accessed(), 0u);
}

TEST_F(EptTest, fault_on_a_page_without_rights)
{
	Ept tracking;

	EXPECT_TRUE(tracking.create(false));
	ASSERT_TRUE(pages.fill());
	EXPECT_TRUE(tracking.map({0x200000}, {0x600000},
				 {.level = level_2m, .writable = true, .host_writable = true},
				 pages));
	EXPECT_TRUE(tracking.age(0x200, 0x200));
	EXPECT_TRUE(tracking.map({0x201000}, {0x601000}, {}, pages)) << "split, still without";
	EXPECT_EQ(ept_entry(tracking.pointer(), 0x200000), 0x600000u | write_back);
	EXPECT_EQ(ept_entry(tracking.pointer(), 0x201000), 0x601000u | write_back | 5);
	EXPECT_EQ(fix(tracking, 0x200000, {.fetch = true}), Ept::Fix::done);
	EXPECT_EQ(ept_entry(tracking.pointer(), 0x200000), 0x600000u | write_back | 5);
}
