// SPDX-License-Identifier: GPL-2.0
#include "ept_walk.hpp"
#include "fixture.hpp"

#include "virt/mmu.hpp"

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

constexpr u64 entry_flags = 6 << 3 | 7, read_only_flags = 6 << 3 | 5;

class MmuTest : public MachineTest
{
protected:
	static constexpr u64 user = 0x7f0000000000; /* never read: only looked up */

	MmuTest()
	{
		EXPECT_TRUE(mmu.create());
		set_slot({.id = 1,
			  .invalid = false,
			  .first_frame = 0x100,
			  .frames = 16,
			  .user = {user}});
		add_user_memory(user, 8 * page_size);
		add_user_memory(user + 8 * page_size, 4 * page_size, false);
		/* The last four pages are gone. */
	}
	~MmuTest() override
	{
		remove_user_memory(user);
		remove_user_memory(user + 8 * page_size);
	}
	void set_slot(const Memslot &slot) { table = MemslotTable().with_change(slot.id, &slot); }
	u64 entry(u64 frame) { return ept_entry(mmu.ept().pointer(), frame << 12); }
	FaultOutcome fault(u64 frame, bool write = false)
	{
		Result<FaultOutcome> r = mmu.fault(*table, {frame << 12}, write);

		EXPECT_TRUE(r);
		return r ? *r : FaultOutcome::mmio;
	}
	void begin(u64 first_page, u64 pages)
	{
		mmu.invalidate_begin();
		mmu.unmap_user(*table, user + first_page * page_size,
			       user + (first_page + pages) * page_size);
	}

	VcpuTable vcpus;
	Mmu mmu{vcpus};
	Owned<MemslotTable> table;
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
	Result<FaultOutcome> write = mmu.fault(*table, {u64{0x108} << 12}, true);
	ASSERT_FALSE(write);
	EXPECT_EQ(write.error(), Errno::fault);
}

TEST_F(MmuTest, memory_that_is_gone)
{
	Result<FaultOutcome> r = mmu.fault(*table, {u64{0x10c} << 12}, false);

	ASSERT_FALSE(r);
	EXPECT_EQ(r.error(), Errno::fault);
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
		fail_allocation_after(n);
		Result<FaultOutcome> r = mmu.fault(*table, {0x100000}, false);
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
	mmu.invalidate_end();
	for (u64 frame = 0x100; frame < 0x108; frame++)
		EXPECT_EQ(entry(frame) != 0, frame < 0x102 || frame > 0x104) << frame;
}

TEST_F(MmuTest, nothing_is_mapped_during_an_invalidation)
{
	begin(0, 1);
	EXPECT_EQ(fault(0x105), FaultOutcome::resume);
	EXPECT_EQ(entry(0x105), 0u);
	begin(1, 1); /* two at once */
	mmu.invalidate_end();
	EXPECT_EQ(fault(0x105), FaultOutcome::resume);
	EXPECT_EQ(entry(0x105), 0u);
	mmu.invalidate_end();
	EXPECT_EQ(fault(0x105), FaultOutcome::resume);
	EXPECT_NE(entry(0x105), 0u);
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
	mmu.invalidate_end();
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_NE(entry(0x103), 0u);
}

TEST_F(MmuTest, invalidation_that_came_and_went_while_the_page_was_looked_up)
{
	on_user_page_get([&] {
		on_user_page_get(nullptr);
		begin(3, 1);
		mmu.invalidate_end();
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
		mmu.invalidate_end();
	});
	EXPECT_EQ(fault(0x103), FaultOutcome::resume);
	EXPECT_EQ(entry(0x103), 0u);
}
