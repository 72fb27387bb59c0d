// SPDX-License-Identifier: GPL-2.0
#include "ept_walk.hpp"
#include "fixture.hpp"
#include "model/thread.hpp"

#include "virt/dirty_log.hpp"
#include "virt/mmu.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

constexpr u64 entry_flags = 6 << 3 | 1 << 6 | 7, read_only_flags = 6 << 3 | 1 << 6 | 5;

class MmuTest : public MachineTest
{
protected:
	static constexpr u64 user = 0x7f0000000000; /* never read: only looked up */

	MmuTest()
	{
		EXPECT_TRUE(mmu.create(level_1g, false, true));
		set_slot(slot_with(nullptr));
		add_user_memory(user, 8 * page_size);
		add_user_memory(user + 8 * page_size, 4 * page_size, false);
		/* The last four pages are gone. */
	}
	~MmuTest() override
	{
		remove_user_memory(user);
		remove_user_memory(user + 8 * page_size);
	}
	static Memslot slot_with(DirtyLog *log)
	{
		return {.id = 1,
			.invalid = false,
			.first_frame = 0x100,
			.frames = 16,
			.user = {user},
			.read_only = false,
			.log = log};
	}
	void set_slot(const Memslot &slot) { table = MemslotTable().with_change(slot.id, &slot); }
	u64 entry(u64 frame) { return ept_entry(mmu.ept().pointer(), frame << 12); }
	FaultOutcome fault(u64 frame, bool write = false)
	{
		Result<FaultOutcome> r = mmu.fault(*table, {frame << 12}, {.write = write}, pages);

		EXPECT_TRUE(r);
		return r ? *r : FaultOutcome::mmio;
	}
	void begin(u64 first_page, u64 pages)
	{
		mmu.invalidate_begin(*table, user + first_page * page_size,
				     user + (first_page + pages) * page_size);
	}

	void end(u64 first_page, u64 pages)
	{
		mmu.invalidate_end(*table, user + first_page * page_size,
				   user + (first_page + pages) * page_size);
	}

	VcpuTable vcpus;
	Mmu mmu{vcpus};
	Ept::TablePages pages;
	Owned<MemslotTable> table;
};

/* 4 GiB and a bit, where Linux has large pages. */
class LargeMmuTest : public MmuTest
{
protected:
	static constexpr u64 large_user = 0x600000000000, size = (u64{1} << 32) + (u64{3} << 21);
	static constexpr u64 first = 0x40000000 >> 12;

	LargeMmuTest()
	{
		add_user_memory(large_user, size);
		set_slot(large_slot());
	}
	~LargeMmuTest() override
	{
		set_user_mapping_frames(1);
		remove_user_memory(large_user);
	}
	static Memslot large_slot(u64 place = first, u64 offset = 0)
	{
		return {.id = 1,
			.invalid = false,
			.first_frame = place,
			.frames = (size - offset) >> 12,
			.user = {large_user + offset}};
	}
	/* The size of the page there, by the bits that do not differ. */
	u64 size_of(u64 frame)
	{
		u64 e = entry(frame);

		if (!e)
			return 0;
		EXPECT_EQ(e & 7, 7u);
		if (!(e & 0x80))
			return 1;
		return entry(frame ^ 512) == e ? 0x40000 : 512;
	}
	u64 mapped_by(u64 frame)
	{
		EXPECT_EQ(fault(frame), FaultOutcome::resume);
		return size_of(frame);
	}
};

} // namespace

TEST_F(MmuTest, first_touch_maps_the_vmms_page)
{
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(entry(0x103), (user + 0x3000) | entry_flags);
	EXPECT_EQ(entry(0x104), 0u);
	EXPECT_EQ(user_pages_held(), 0) << "no page is pinned";
	EXPECT_EQ(user_pages_dirtied(), 1u);
}

TEST_F(MmuTest, no_slot_is_mmio)
{
	EXPECT_EQ(fault(0xff), FaultOutcome::mmio);
	EXPECT_EQ(fault(0x110), FaultOutcome::mmio);
}

TEST_F(MmuTest, read_only_pages_are_mapped_so)
{
	EXPECT_EQ(fault(0x108), FaultOutcome::resume);
	EXPECT_EQ(entry(0x108), (user + 0x8000) | read_only_flags);
	EXPECT_EQ(user_pages_dirtied(), 0u);
	Result<FaultOutcome> write = mmu.fault(*table, {u64{0x108} << 12}, {.write = true}, pages);
	ASSERT_FALSE(write);
	EXPECT_EQ(write.error(), Errno::fault);
}

TEST_F(MmuTest, memory_that_is_gone)
{
	Result<FaultOutcome> r = mmu.fault(*table, {u64{0x10c} << 12}, {}, pages);

	ASSERT_FALSE(r);
	EXPECT_EQ(r.error(), Errno::fault);
}

TEST_F(MmuTest, page_that_the_hardware_has_lost_is_a_signal)
{
	fail_next_user_page_get(-EHWPOISON);
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(user_page_lost(), user + 3 * page_size);
	EXPECT_EQ(entry(0x103), 0u);
	set_signal_pending(false);
}

TEST_F(MmuTest, fatal_signal_is_for_the_next_entry_to_see)
{
	fail_next_user_page_get(-EAGAIN);
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(user_page_lost(), 0u);
	EXPECT_EQ(entry(0x103), 0u);
}

TEST_F(MmuTest, slot_on_its_way_out_maps_nothing)
{
	set_slot({.id = 1, .invalid = true, .first_frame = 0x100, .frames = 16, .user = {user}});
	EXPECT_EQ(fault(0x100), FaultOutcome::resume);
	EXPECT_EQ(entry(0x100), 0u);
}

TEST_F(MmuTest, out_of_memory)
{
	for (unsigned n = 0; n < 3; n++) {
		Ept::TablePages none;
		fail_allocation_after(n);
		Result<FaultOutcome> r = mmu.fault(*table, {0x100000}, {}, none);
		ASSERT_FALSE(r);
		EXPECT_EQ(r.error(), Errno::nomem);
	}
	EXPECT_EQ(fault(0x100), FaultOutcome::resume);
	EXPECT_NE(entry(0x100), 0u);
}

TEST_F(MmuTest, unmap)
{
	for (u64 frame = 0x100; frame < 0x108; frame++)
		fault(frame);
	mmu.unmap(0x102, 0x105);
	for (u64 frame = 0x100; frame < 0x108; frame++)
		EXPECT_EQ(entry(frame) != 0, frame < 0x102 || frame > 0x105) << frame;
}

TEST_F(MmuTest, notifier_takes_out_its_range)
{
	for (u64 frame = 0x100; frame < 0x108; frame++)
		fault(frame);
	begin(2, 3);
	end(2, 3);
	for (u64 frame = 0x100; frame < 0x108; frame++)
		EXPECT_EQ(entry(frame) != 0, frame < 0x102 || frame > 0x104) << frame;
}

TEST_F(MmuTest, nothing_is_mapped_during_its_invalidation)
{
	begin(2, 2);
	for (u64 frame : {0x102, 0x103}) {
		EXPECT_EQ(fault(frame), FaultOutcome::resume);
		EXPECT_EQ(entry(frame), 0u) << frame;
	}
	for (u64 frame : {0x101, 0x104}) {
		EXPECT_EQ(fault(frame), FaultOutcome::resume);
		EXPECT_NE(entry(frame), 0u) << frame << " is none of it";
	}
	begin(5, 1); /* two at once, and what is between */
	for (u64 frame : {0x103, 0x104, 0x105}) {
		EXPECT_EQ(fault(frame), FaultOutcome::resume);
		EXPECT_EQ(entry(frame) != 0, frame == 0x104) << "what is there stays";
	}
	end(2, 2);
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(entry(0x103), 0u);
	end(5, 1);
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_NE(entry(0x103), 0u);
	begin(6, 1); /* the range of those before is forgotten */
	EXPECT_EQ(fault(0x102), FaultOutcome::resume);
	EXPECT_NE(entry(0x102), 0u);
	end(6, 1);
}

TEST_F(MmuTest, invalidation_that_began_while_the_page_was_looked_up)
{
	on_user_page_get([&] {
		on_user_page_get(nullptr);
		begin(3, 1);
	});
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(entry(0x103), 0u);
	EXPECT_EQ(user_pages_held(), 0);
	EXPECT_EQ(user_pages_dirtied(), 0u) << "it was not mapped";
	end(3, 1);
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_NE(entry(0x103), 0u);
}

TEST_F(MmuTest, invalidation_that_came_and_went_while_the_page_was_looked_up)
{
	on_user_page_get([&] {
		on_user_page_get(nullptr);
		begin(3, 1);
		end(3, 1);
	});
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(entry(0x103), 0u) << "the frame may be another one by now";
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_NE(entry(0x103), 0u);
}

TEST_F(MmuTest, invalidation_that_ended_while_the_page_was_looked_up)
{
	begin(3, 1);
	on_user_page_get([&] {
		on_user_page_get(nullptr);
		end(3, 1);
	});
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(entry(0x103), 0u);
}

TEST_F(MmuTest, read_only_slot)
{
	Memslot rom = slot_with(nullptr);
	rom.read_only = true;
	set_slot(rom);
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(entry(0x103), (user + 0x3000) | read_only_flags);
	EXPECT_EQ(user_pages_dirtied(), 0u);
	EXPECT_EQ(fault(0x103, true), FaultOutcome::mmio);
	EXPECT_EQ(entry(0x103), (user + 0x3000) | read_only_flags);
	rom.invalid = true;
	set_slot(rom);
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
}

TEST_F(MmuTest, log_has_each_page_that_was_written)
{
	auto log = DirtyLog::create(16);
	Memslot slot = slot_with(nullptr);

	fault(0x101);
	fault(0x102);
	slot.log = log.get();
	set_slot(slot);
	mmu.watch_writes(0x100, 0x10f);
	EXPECT_EQ(entry(0x101), (user + 0x1000) | read_only_flags);
	fault(0x103);
	EXPECT_EQ(entry(0x103), (user + 0x3000) | read_only_flags)
		<< "the first write is to be seen";
	mmu.take_log(slot);
	EXPECT_EQ(log->taken()[0], 0u) << "reads leave no trace";
	fault(0x101, true);
	fault(0x104, true);
	EXPECT_EQ(entry(0x101), (user + 0x1000) | entry_flags);
	fault(0x101); /* another vCPU's read, late */
	EXPECT_EQ(entry(0x101), (user + 0x1000) | entry_flags);
	mmu.take_log(slot);
	EXPECT_EQ(log->taken()[0], 0x12u);
	EXPECT_EQ(entry(0x101), (user + 0x1000) | read_only_flags);
	EXPECT_EQ(entry(0x104), (user + 0x4000) | read_only_flags);
	mmu.take_log(slot);
	EXPECT_EQ(log->taken()[0], 0u);
	fault(0x104, true);
	begin(4, 1); /* gone from the EPT, and still written to */
	end(4, 1);
	mmu.take_log(slot);
	EXPECT_EQ(log->taken()[0], 0x10u);
	/* A fault that comes to nothing is no write. */
	on_user_page_get([&] {
		on_user_page_get(nullptr);
		begin(5, 1);
		end(5, 1);
	});
	fault(0x105, true);
	mmu.take_log(slot);
	EXPECT_EQ(log->taken()[0], 0u);
}

TEST_F(MmuTest, pages_are_writable_where_the_cpu_logs_them)
{
	Mmu logging{vcpus};
	auto log = DirtyLog::create(16);
	Memslot slot = slot_with(log.get());
	auto fault = [&](u64 frame, bool write) {
		EXPECT_TRUE(logging.fault(*table, {frame << 12}, {.write = write}, pages));
	};
	auto is_dirty = [&](u64 frame) {
		return (ept_whole_entry(logging.ept().pointer(), frame << 12) & ept_dirty) != 0;
	};

	EXPECT_TRUE(logging.create(level_1g, false, true, true));
	set_slot(slot);
	(void)user_pages_dirtied();
	fault(0x101, false);
	EXPECT_EQ(ept_entry(logging.ept().pointer(), 0x101000), (user + 0x1000) | entry_flags);
	EXPECT_FALSE(is_dirty(0x101));
	EXPECT_EQ(user_pages_dirtied(), 1u) << "since it may become so unseen";
	fault(0x102, true);
	EXPECT_TRUE(is_dirty(0x102));
	fault(0x108, false);
	EXPECT_EQ(ept_entry(logging.ept().pointer(), 0x108000), (user + 0x8000) | read_only_flags);
	logging.take_log(slot);
	EXPECT_EQ(log->taken()[0], 4u);
	EXPECT_FALSE(is_dirty(0x102));
	Mmu::log(*table, 0x102);
	Mmu::log(*table, 0x10f);
	Mmu::log(*table, 0x110); /* no memory any more */
	logging.take_log(slot);
	EXPECT_EQ(log->taken()[0], 0x8004u);
}

TEST_F(MmuTest, age)
{
	fault(0x103);
	EXPECT_TRUE(mmu.is_user_young(*table, user + 0x3000, user + 0x4000));
	EXPECT_FALSE(mmu.is_user_young(*table, user, user + 0x3000));
	EXPECT_TRUE(mmu.age_user(*table, user + 0x3000, user + 0x4000));
	EXPECT_FALSE(mmu.age_user(*table, user + 0x3000, user + 0x4000));
	EXPECT_FALSE(mmu.is_user_young(*table, user + 0x3000, user + 0x4000));
	EXPECT_EQ(entry(0x103), (user + 0x3000) | entry_flags) << "it stays";
	begin(3, 1);
	end(3, 1);
	EXPECT_FALSE(mmu.age_user(*table, user + 0x3000, user + 0x4000));
}

TEST_F(MmuTest, page_is_not_looked_up_for_what_its_entry_allows)
{
	auto log = DirtyLog::create(16);
	Memslot slot = slot_with(nullptr);

	fault(0x103);
	slot.log = log.get();
	set_slot(slot);
	mmu.watch_writes(0x100, 0x10f);
	on_user_page_get([] { ADD_FAILURE() << "looked up"; });
	fault(0x103);
	mmu.take_log(slot);
	EXPECT_EQ(log->taken()[0], 0u);
	fault(0x103, true);
	EXPECT_EQ(entry(0x103), (user + 0x3000) | entry_flags);
	fault(0x103, true);
	on_user_page_get(nullptr);
	mmu.take_log(slot);
	EXPECT_EQ(log->taken()[0], 8u);
	EXPECT_EQ(entry(0x103), (user + 0x3000) | read_only_flags);
}

TEST_F(MmuTest, page_that_may_become_dirty_unseen_is_dirty)
{
	auto log = DirtyLog::create(16);
	Memslot slot = slot_with(log.get());

	set_slot(slot);
	(void)user_pages_dirtied();
	fault(0x103);
	EXPECT_EQ(entry(0x103), (user + 0x3000) | read_only_flags);
	EXPECT_EQ(user_pages_dirtied(), 1u);
}

TEST_F(MmuTest, invalidation_of_what_is_no_guests_memory)
{
	mmu.invalidate_begin(*table, user + (u64{1} << 30), user + (u64{1} << 31));
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_NE(entry(0x103), 0u);
	mmu.invalidate_end(*table, user + (u64{1} << 30), user + (u64{1} << 31));
}

TEST_F(MmuTest, log_is_cleared_by_hand)
{
	auto log = DirtyLog::create(16);
	Memslot slot = slot_with(log.get());

	set_slot(slot);
	fault(0x101, true);
	fault(0x102, true);
	log->copy();
	EXPECT_EQ(log->taken()[0], 6u);
	EXPECT_EQ(entry(0x101), (user + 0x1000) | entry_flags) << "still";
	log->taken()[0] = 0xd;
	mmu.clear_log(slot, 0, 16);
	EXPECT_EQ(entry(0x101), (user + 0x1000) | entry_flags);
	EXPECT_EQ(entry(0x102), (user + 0x2000) | read_only_flags);
	log->copy();
	EXPECT_EQ(log->taken()[0], 2u);
}

/* ---- What is next to the page that was touched */

class AheadMmuTest : public MmuTest
{
protected:
	AheadMmuTest() { set_user_pages_ahead(100); }
	~AheadMmuTest() override
	{
		set_user_pages_ahead(0);
		EXPECT_EQ(user_pages_held(), 0);
	}
	u64 mapped()
	{
		u64 pages = 0;

		for (u64 i = 0; i < 16; i++)
			pages |= u64{entry(0x100 + i) != 0} << i;
		return pages;
	}
	bool is_accessed(u64 frame)
	{
		return ept_whole_entry(mmu.ept().pointer(), frame << 12) & ept_accessed;
	}
};

TEST_F(AheadMmuTest, comes_with_it)
{
	EXPECT_EQ(fault(0x102), FaultOutcome::resume);
	EXPECT_EQ(mapped(), 0xfcu) << "no farther than the next multiple of eight";
	for (u64 i = 2; i < 8; i++)
		EXPECT_EQ(entry(0x100 + i), ((user >> 12) + i) << 12 | entry_flags);
	EXPECT_EQ(user_pages_dirtied(), 6u);
	EXPECT_TRUE(is_accessed(0x102));
	EXPECT_FALSE(is_accessed(0x103)) << "the guest has not";
}

TEST_F(AheadMmuTest, as_much_as_there_is)
{
	set_user_pages_ahead(2);
	EXPECT_EQ(fault(0x101), FaultOutcome::resume);
	EXPECT_EQ(mapped(), 0xeu);
	EXPECT_EQ(fault(0x109), FaultOutcome::resume);
	EXPECT_EQ(mapped(), 0x20eu) << "what is not writable is looked up alone";
}

TEST_F(AheadMmuTest, not_beyond_the_slot)
{
	Memslot slot = slot_with(nullptr);
	slot.frames = 5;
	set_slot(slot);
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(mapped(), 0x18u);
}

TEST_F(AheadMmuTest, what_is_mapped_already_stays)
{
	EXPECT_EQ(fault(0x104), FaultOutcome::resume);
	u64 there = ept_whole_entry(mmu.ept().pointer(), 0x104 << 12);
	EXPECT_EQ(fault(0x100), FaultOutcome::resume);
	EXPECT_EQ(mapped(), 0xffu);
	EXPECT_EQ(ept_whole_entry(mmu.ept().pointer(), 0x104 << 12), there);
}

TEST_F(AheadMmuTest, not_with_a_log)
{
	Owned<DirtyLog> log = DirtyLog::create(16);
	set_slot(slot_with(log.get()));
	EXPECT_EQ(fault(0x100, true), FaultOutcome::resume);
	EXPECT_EQ(mapped(), 1u);
}

TEST_F(AheadMmuTest, not_where_all_would_look_accessed)
{
	(void)mmu.give_up_accessed_bits();
	EXPECT_EQ(fault(0x100), FaultOutcome::resume);
	EXPECT_EQ(mapped(), 1u);
}

TEST_F(AheadMmuTest, not_while_any_of_it_is_invalidated)
{
	begin(3, 1);
	EXPECT_EQ(fault(0x100), FaultOutcome::resume);
	EXPECT_EQ(mapped(), 1u);
	end(3, 1);
}

TEST_F(AheadMmuTest, not_when_an_invalidation_came_and_went_meanwhile)
{
	on_user_page_get([&] {
		begin(3, 1);
		end(3, 1);
	});
	EXPECT_EQ(fault(0x100), FaultOutcome::resume);
	EXPECT_EQ(mapped(), 0u);
	on_user_page_get({});
}

TEST_F(LargeMmuTest, as_large_as_in_linux)
{
	EXPECT_EQ(mapped_by(first + 5), 1u);
	set_user_mapping_frames(512);
	EXPECT_EQ(mapped_by(first + 0x1205), 512u);
	EXPECT_EQ(entry(first + 0x1205), (large_user + 0x1200000) | 0x80 | entry_flags);
	set_user_mapping_frames(0x40000);
	EXPECT_EQ(mapped_by(first + 0x40205), 0x40000u);
	EXPECT_EQ(entry(first + 0x40205), (large_user + 0x40000000) | 0x80 | entry_flags);
	/* The last ones are no whole gigabyte. */
	EXPECT_EQ(mapped_by(first + 0x100205), 512u);
	EXPECT_EQ(user_pages_held(), 0);
}

TEST_F(LargeMmuTest, not_larger_than_the_cpu_can)
{
	Mmu other{vcpus};

	EXPECT_TRUE(other.create(level_2m, false, true));
	set_user_mapping_frames(0x40000);
	EXPECT_TRUE(other.fault(*table, {(first + 0x40205) << 12}, {}, pages));
	EXPECT_EQ(ept_entry(other.ept().pointer(), (first + 0x40205) << 12),
		  (large_user + 0x40200000) | 0x80 | entry_flags);
	Mmu small{vcpus};
	EXPECT_TRUE(small.create(level_4k, false, true));
	EXPECT_TRUE(small.fault(*table, {(first + 0x40205) << 12}, {}, pages));
	EXPECT_EQ(ept_entry(small.ept().pointer(), (first + 0x40205) << 12),
		  (large_user + 0x40205000) | entry_flags);
}

TEST_F(LargeMmuTest, not_beyond_the_slot)
{
	set_user_mapping_frames(0x40000);
	/* It begins in the middle of a gigabyte, and of two megabytes. */
	set_slot(large_slot(first + 0x201, 0x201000));
	EXPECT_EQ(mapped_by(first + 0x201), 1u);
	EXPECT_EQ(mapped_by(first + 0x3ff), 1u);
	EXPECT_EQ(mapped_by(first + 0x400), 512u);
	EXPECT_EQ(mapped_by(first + 0x40400), 0x40000u);
}

TEST_F(LargeMmuTest, not_where_guest_and_vmm_are_aligned_differently)
{
	set_user_mapping_frames(0x40000);
	set_slot(large_slot(first + 1));
	EXPECT_EQ(mapped_by(first + 0x1205), 1u);
	set_slot(large_slot(first + 0x200000 + 512));
	EXPECT_EQ(mapped_by(first + 0x210205), 512u) << "by two megabytes only";
}

TEST_F(LargeMmuTest, whole_page_goes_with_its_part)
{
	set_user_mapping_frames(512);
	EXPECT_EQ(mapped_by(first + 0x1205), 512u);
	u64 at = large_user + 0x1300000;
	mmu.invalidate_begin(*table, at, at + page_size);
	EXPECT_EQ(entry(first + 0x1205), 0u);
	EXPECT_EQ(mapped_by(first + 0x1205), 0u) << "a part of it is being changed";
	EXPECT_EQ(mapped_by(first + 0x1405), 512u) << "the next one is not";
	mmu.invalidate_end(*table, at, at + page_size);
	set_user_mapping_frames(1); /* split */
	EXPECT_EQ(mapped_by(first + 0x1205), 1u);
}

TEST_F(LargeMmuTest, large_page_split_while_it_was_looked_up)
{
	set_user_mapping_frames(512);
	on_user_page_get([&] {
		on_user_page_get(nullptr);
		u64 at = large_user + 0x1200000;
		mmu.invalidate_begin(*table, at, at + (512 << 12));
		mmu.invalidate_end(*table, at, at + (512 << 12));
		set_user_mapping_frames(1);
	});
	EXPECT_EQ(mapped_by(first + 0x1205), 0u);
	EXPECT_EQ(mapped_by(first + 0x1205), 1u);
}

TEST_F(LargeMmuTest, made_large_after_it_was_mapped)
{
	EXPECT_EQ(mapped_by(first + 0x1205), 1u);
	int pages_there = live_allocations();
	u64 at = large_user + 0x1200000;
	mmu.invalidate_begin(*table, at, at + (512 << 12));
	mmu.invalidate_end(*table, at, at + (512 << 12));
	EXPECT_EQ(live_allocations(), pages_there - 1) << "the table is gone";
	set_user_mapping_frames(512);
	EXPECT_EQ(mapped_by(first + 0x1205), 512u);
}

TEST_F(LargeMmuTest, log_wants_small_pages)
{
	auto log = DirtyLog::create(size >> 12);
	Memslot slot = large_slot();

	set_user_mapping_frames(512);
	EXPECT_EQ(mapped_by(first + 0x1205), 512u);
	slot.log = log.get();
	set_slot(slot);
	mmu.watch_writes(slot.first_frame, slot.last_frame());
	EXPECT_EQ(entry(first + 0x1205), (large_user + 0x1200000) | 0x80 | read_only_flags);
	EXPECT_EQ(fault(first + 0x1205, true), FaultOutcome::resume);
	EXPECT_EQ(size_of(first + 0x1205), 1u);
	EXPECT_EQ(entry(first + 0x1206), (large_user + 0x1206000) | read_only_flags)
		<< "the rest is mapped as it was";
	mmu.take_log(slot);
	EXPECT_EQ(log->taken()[0x1200 / 64], u64{1} << 5);
	set_slot(large_slot());
	mmu.unmap(slot.first_frame, slot.last_frame());
	EXPECT_EQ(mapped_by(first + 0x1205), 512u);
}

/* What waits for its dirty bit would never be seen any more. */
TEST_F(MmuTest, accessed_bits_are_given_up_with_what_waits_for_its_dirty_bit)
{
	auto log = DirtyLog::create(16);
	Memslot slot = slot_with(log.get());
	Mmu logging{vcpus};
	auto there = [&](u64 frame) { return ept_entry(logging.ept().pointer(), frame << 12); };
	auto touch = [&](u64 frame, bool write = false) {
		EXPECT_TRUE(logging.fault(*table, {frame << 12}, {.write = write}, pages));
	};
	auto taken = [&] {
		logging.take_log(slot);
		return log->taken()[0];
	};

	EXPECT_TRUE(logging.create(level_1g, false, true, true));
	set_slot(slot);
	touch(0x101);
	EXPECT_EQ(there(0x101), (user + 0x1000) | entry_flags) << "the CPU logs its first write";
	EXPECT_EQ(logging.ept().pointer() & 0x40, 0x40u);
	u64 pointer = logging.give_up_accessed_bits();
	EXPECT_EQ(pointer & 0x40, 0u);
	EXPECT_EQ(pointer, logging.ept().pointer());
	EXPECT_EQ(there(0x101), (user + 0x1000) | read_only_flags);
	touch(0x101, true);
	EXPECT_EQ(there(0x101), (user + 0x1000) | entry_flags);
	EXPECT_EQ(taken(), 2u);
	EXPECT_EQ(there(0x101), (user + 0x1000) | read_only_flags) << "its next write is a fault";
	EXPECT_EQ(logging.give_up_accessed_bits(), pointer);
	EXPECT_EQ(there(0x101), (user + 0x1000) | read_only_flags) << "once is enough";
	EXPECT_TRUE(logging.age_user(*table, user, user + 16 * page_size));
	EXPECT_EQ(there(0x101) & 7, 0u) << "its next access is to be seen";
	EXPECT_TRUE(logging.has_pml()) << "vCPUs' page logs are there, and may have something";
}

TEST_F(MmuTest, accessed_bits_are_given_up_while_a_page_is_looked_up)
{
	auto log = DirtyLog::create(16);
	Memslot slot = slot_with(log.get());
	Mmu logging{vcpus};

	EXPECT_TRUE(logging.create(level_1g, false, true, true));
	set_slot(slot);
	on_user_page_get([&] {
		on_user_page_get(nullptr);
		logging.give_up_accessed_bits();
	});
	EXPECT_TRUE(logging.fault(*table, {u64{0x101} << 12}, {}, pages));
	EXPECT_EQ(ept_entry(logging.ept().pointer(), 0x101000), (user + 0x1000) | read_only_flags)
		<< "its first write is to be seen";
}

TEST_F(LargeMmuTest, executed_pages_are_small_where_they_must)
{
	Mmu other{vcpus};
	auto there = [&](u64 frame) { return ept_entry(other.ept().pointer(), frame << 12); };
	auto touch = [&](u64 frame, bool fetch) {
		EXPECT_TRUE(other.fault(*table, {frame << 12}, {.write = false, .fetch = fetch},
					pages));
	};

	EXPECT_TRUE(other.create(level_1g, true, true));
	set_user_mapping_frames(512);
	touch(first + 0x1205, false);
	EXPECT_EQ(there(first + 0x1205), (large_user + 0x1200000) | 0x80 | 6 << 3 | 1 << 6 | 3);
	touch(first + 0x1205, true);
	EXPECT_EQ(there(first + 0x1205), (large_user + 0x1205000) | entry_flags);
	EXPECT_EQ(there(first + 0x1206), (large_user + 0x1206000) | entry_flags) << "the rest";
	touch(first + 0x1206, false);
	EXPECT_EQ(there(first + 0x1205), (large_user + 0x1205000) | entry_flags)
		<< "data beside code does not take it out again";
	EXPECT_EQ(there(first + 0x1206), (large_user + 0x1206000) | entry_flags);
}
