// SPDX-License-Identifier: GPL-2.0
#include "virt/memslots.cpp"

#include "expect.hpp"

using namespace kvmpp;

namespace
{

constexpr u64 user = 0x7f0000000000;

Memslot slot(u32 id, u64 first, u64 frames)
{
	return {.id = id, .invalid = false, .first_frame = first, .frames = frames, .user = {user}};
}

bool refused(u32 id, u32 flags, u64 phys, u64 size, u64 address)
{
	Result<SlotRequest> r = check_slot_request(id, flags, phys, size, address, 39);

	return !r && r.error() == Errno::inval;
}

TEST_CASE(request_rules)
{
	EXPECT(!refused(0, 0, 0, 0x1000, user));
	EXPECT(refused(0, 4, 0, 0x1000, user));
	EXPECT(refused(0, 0, 1, 0x1000, user));
	EXPECT(refused(0, 0, 0, 0x1001, user));
	EXPECT(refused(0, 0, 0, 0x1000, user + 1));
	EXPECT(refused(0, 0, 0, 0x1000, 0xffff888000000000));
	EXPECT(refused(0, 0, 0, 0x1000, ~u64{0xfff}));
	EXPECT(refused(MemslotTable::max_slots, 0, 0, 0x1000, user));
	EXPECT(refused(0, 0, ~u64{0xfff}, 0x2000, user));
	EXPECT(refused(0, 0, u64{1} << 39, 0x1000, user));
}

TEST_CASE(changes)
{
	MemslotTable empty;
	Memslot one = slot(1, 0x10, 4);
	auto table = empty.with_change(1, &one);
	ASSERT(table);
	auto classify = [&](const Memslot &s, bool remove = false) {
		return classify_slot_change(*table, {.slot = s, .remove = remove});
	};

	EXPECT(*classify(slot(1, 0x10, 4)) == SlotChange::none);
	EXPECT(*classify(slot(1, 0x11, 4)) == SlotChange::move);
	EXPECT(*classify(slot(1, 0, 0), true) == SlotChange::remove);
	EXPECT(*classify(slot(2, 0x14, 4)) == SlotChange::create);
	EXPECT(classify(slot(2, 0, 0), true).error() == Errno::inval);
	EXPECT(classify(slot(1, 0x10, 5)).error() == Errno::inval);
	EXPECT(classify(slot(2, 0x13, 1)).error() == Errno::exist);
	EXPECT(classify(slot(2, 0, 0x100)).error() == Errno::exist);
}

TEST_CASE(many_slots)
{
	constexpr u32 count = 64;
	auto table = Owned<MemslotTable>::create();

	ASSERT(table);
	for (u32 i = 0; i < count; i++) {
		u32 id = i * 37 % count;
		Memslot s = slot(id, id * u64{4}, 2);
		table = table->with_change(id, &s);
		ASSERT(table);
	}
	for (u64 frame = 0; frame < count * 4; frame++) {
		const Memslot *found = table->find_frame(frame);
		ASSERT((found != nullptr) == (frame % 4 < 2));
		if (found)
			EXPECT_EQ(found->id, frame / 4);
	}
	for (u32 id = 0; id < count; id++) {
		table = table->with_change(id, nullptr);
		ASSERT(table);
	}
	EXPECT(table->find_frame(0) == nullptr);
}

TEST_CASE(range_of_user_addresses)
{
	MemslotTable empty;
	Memslot one = slot(1, 0x10, 4);
	auto table = empty.with_change(1, &one);
	unsigned visits = 0;

	ASSERT(table);
	table->for_each_in(user + 0x1fff, user + 0x2001, [&](u64 first, u64 last) {
		visits++;
		EXPECT_EQ(first, 0x11);
		EXPECT_EQ(last, 0x12);
	});
	table->for_each_in(user + 0x4000, ~u64{0}, [&](u64, u64) { visits++; });
	EXPECT_EQ(visits, 1);
}

} // namespace

DEFINE_TEST_SUITE(MEMSLOTS_CASES)
