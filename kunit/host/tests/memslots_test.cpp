// SPDX-License-Identifier: GPL-2.0
#include "fixture.hpp"

#include "virt/dirty_log.hpp"
#include "virt/memslots.hpp"

#include <linux/kvm.h>

#include <optional>
#include <utility>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

constexpr u64 user = 0x7f0000000000;

class Memslots : public MachineTest
{
protected:
	static Memslot slot(u32 id, u64 first, u64 frames, u64 address = user)
	{
		return {.id = id,
			.invalid = false,
			.first_frame = first,
			.frames = frames,
			.user = {address}};
	}
	void add(const Memslot &s) { table = (table ? *table : empty).with_change(s.id, &s); }
	void remove(u32 id) { table = table->with_change(id, nullptr); }
	Errno check(u32 id, u32 flags, u64 phys, u64 size, u64 address)
	{
		Result<SlotRequest> r = check_slot_request(id, flags, phys, size, address, 39);
		return r ? Errno{} : r.error();
	}
	std::optional<SlotChange> classify(const Memslot &s, bool removing = false)
	{
		Result<SlotChange> r = classify_slot_change(table ? *table : empty,
							    {.slot = s, .remove = removing});
		if (r)
			return *r;
		error = r.error();
		return std::nullopt;
	}

	MemslotTable empty;
	Owned<MemslotTable> table;
	Errno error{};
	static constexpr Errno ok{};
};

} // namespace

TEST_F(Memslots, good_request)
{
	Result<SlotRequest> r = check_slot_request(7, 0, 0x100000, 0x3000, user, 39);

	ASSERT_TRUE(r);
	EXPECT_FALSE(r->remove);
	EXPECT_EQ(r->slot.id, 7u);
	EXPECT_EQ(r->slot.first_frame, 0x100u);
	EXPECT_EQ(r->slot.last_frame(), 0x102u);
	EXPECT_EQ(r->slot.user.value, user);
	EXPECT_FALSE(r->slot.invalid);
}

TEST_F(Memslots, request_rules)
{
	EXPECT_EQ(check(0, 4, 0, 0x1000, user), Errno::inval) << "guest_memfd";
	EXPECT_EQ(check(0, 0x80000001, 0, 0x1000, user), Errno::inval);
	EXPECT_EQ(check(0, 0, 0x800, 0x1000, user), Errno::inval);
	EXPECT_EQ(check(0, 0, 0, 0x1001, user), Errno::inval);
	EXPECT_EQ(check(0, 0, 0, 0x1000, user + 1), Errno::inval);
	EXPECT_EQ(check(0, 0, 0, 0x1000, 0xffff800000000000), Errno::inval) << "the kernel's";
	EXPECT_EQ(check(0, 0, 0, 0x2000, 0x7ffffffff000 - 0x1000), Errno::inval);
	EXPECT_EQ(check(0, 0, 0, 0x1000, ~u64{0xfff}), Errno::inval) << "wraps";
	EXPECT_EQ(check(32764, 0, 0, 0x1000, user), Errno::inval);
	EXPECT_EQ(check(0x10000, 0, 0, 0x1000, user), Errno::inval) << "another address space";
	EXPECT_EQ(check(0, 0, ~u64{0xfff}, 0x2000, user), Errno::inval) << "wraps";
	EXPECT_EQ(check(0, 0, ~u64{0xfff}, 0x1000, user), Errno::inval);
	EXPECT_EQ(check(0, 0, (u64{1} << 39) - 0x1000, 0x2000, user), Errno::inval)
		<< "beyond the CPU";
	EXPECT_EQ(check(0, 0, u64{1} << 39, 0x1000, user), Errno::inval);
}

TEST_F(Memslots, request_limits_that_are_fine)
{
	EXPECT_EQ(check(32763, 0, 0, 0x1000, user), ok);
	EXPECT_EQ(check(0, KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY, 0, 0x1000, user), ok);
	EXPECT_EQ(check(0, 0, (u64{1} << 39) - 0x1000, 0x1000, user), ok);
	EXPECT_EQ(check(0, 0, 0, 0x1000, 0x7ffffffff000 - 0x1000), ok);
	Result<SlotRequest> removal = check_slot_request(3, 0, 0, 0, 0, 39);
	ASSERT_TRUE(removal);
	EXPECT_TRUE(removal->remove);
}

TEST_F(Memslots, create_remove_move_and_nothing)
{
	EXPECT_EQ(classify(slot(1, 0x10, 4)), SlotChange::create);
	EXPECT_FALSE(classify(slot(1, 0, 0), true));
	EXPECT_EQ(error, Errno::inval) << "nothing to remove";
	add(slot(1, 0x10, 4));
	EXPECT_EQ(classify(slot(1, 0x10, 4)), SlotChange::none);
	EXPECT_EQ(classify(slot(1, 0x12, 4)), SlotChange::move) << "it may overlap where it was";
	EXPECT_EQ(classify(slot(1, 0, 0), true), SlotChange::remove);
	EXPECT_FALSE(classify(slot(1, 0x10, 5)));
	EXPECT_EQ(error, Errno::inval) << "another size";
	EXPECT_FALSE(classify(slot(1, 0x10, 4, user + 0x1000)));
	EXPECT_EQ(error, Errno::inval) << "other memory";
}

TEST_F(Memslots, flags_of_a_slot)
{
	auto classify_with = [&](Memslot s, bool log) -> std::optional<SlotChange> {
		Result<SlotChange> r =
			classify_slot_change(*table, {.slot = s, .remove = false, .log = log});
		return r ? std::optional(*r) : std::nullopt;
	};
	Memslot rom = slot(1, 0x10, 4);
	rom.read_only = true;

	add(slot(1, 0x10, 4));
	EXPECT_EQ(classify_with(slot(1, 0x10, 4), true), SlotChange::log);
	EXPECT_EQ(classify_with(slot(1, 0x12, 4), true), SlotChange::move);
	EXPECT_EQ(classify_with(rom, false), std::nullopt) << "it cannot become read-only";
	add(rom);
	EXPECT_EQ(classify_with(rom, false), SlotChange::none);
	EXPECT_EQ(classify_with(rom, true), SlotChange::log);
	EXPECT_EQ(classify_with(slot(1, 0x10, 4), false), std::nullopt) << "nor writable";

	auto log = DirtyLog::create(4);
	Memslot logged = slot(1, 0x10, 4);
	logged.log = log.get();
	add(logged);
	EXPECT_EQ(classify_with(slot(1, 0x10, 4), true), SlotChange::none);
	EXPECT_EQ(classify_with(slot(1, 0x10, 4), false), SlotChange::log);
}

TEST_F(Memslots, dirty_log)
{
	for (unsigned n : {0u, 1u}) {
		fail_allocation_after(n);
		EXPECT_FALSE(DirtyLog::create(100));
	}
	auto log = DirtyLog::create(65);
	ASSERT_TRUE(log);
	EXPECT_EQ(log->bytes(), 16u) << "whole words";
	std::vector<u64> seen;
	auto take = [&] {
		seen.clear();
		log->take([&](u64 page) { seen.push_back(page); });
		return seen;
	};
	EXPECT_EQ(take(), std::vector<u64>{});
	for (u64 page : {64, 0, 63, 0})
		log->add(page);
	EXPECT_EQ(take(), (std::vector<u64>{0, 63, 64}));
	EXPECT_EQ(log->taken()[0], u64{1} << 63 | 1);
	EXPECT_EQ(log->taken()[1], 1u);
	log->add(5);
	EXPECT_EQ(log->taken()[0], u64{1} << 63 | 1) << "what was taken stays until the next time";
	EXPECT_EQ(take(), std::vector<u64>{5});
	EXPECT_EQ(log->taken()[1], 0u);
}

TEST_F(Memslots, overlap)
{
	add(slot(1, 0x10, 4));
	for (auto [first, frames] :
	     {std::pair{0x10, 4}, {0xf, 2}, {0x13, 1}, {0x12, 8}, {0, 0x100}}) {
		EXPECT_FALSE(classify(slot(2, static_cast<u64>(first), static_cast<u64>(frames))))
			<< first;
		EXPECT_EQ(error, Errno::exist);
	}
	EXPECT_EQ(classify(slot(2, 0xf, 1)), SlotChange::create);
	EXPECT_EQ(classify(slot(2, 0x14, 1)), SlotChange::create);
	add(slot(2, 0x20, 4));
	EXPECT_FALSE(classify(slot(2, 0x13, 4)));
	EXPECT_EQ(error, Errno::exist) << "a move onto another";
}

TEST_F(Memslots, find_frame)
{
	/* In no order, with a gap. */
	add(slot(5, 0x200, 0x10));
	add(slot(1, 0x10, 4));
	add(slot(9, 0x100, 0x100));
	for (auto [frame, id] :
	     {std::pair{0x10, 1}, {0x13, 1}, {0x100, 9}, {0x1ff, 9}, {0x200, 5}, {0x20f, 5}}) {
		const Memslot *found = table->find_frame(static_cast<u64>(frame));
		ASSERT_NE(found, nullptr) << frame;
		EXPECT_EQ(found->id, static_cast<u32>(id)) << frame;
	}
	for (u64 frame : {u64{0}, u64{0xf}, u64{0x14}, u64{0xff}, u64{0x210}, ~u64{0}})
		EXPECT_EQ(table->find_frame(frame), nullptr) << frame;
	EXPECT_EQ(empty.find_frame(0), nullptr);
	EXPECT_EQ(table->find_id(9)->first_frame, 0x100u);
	EXPECT_EQ(table->find_id(2), nullptr);
	EXPECT_EQ(table->find_frame(0x105)->user_address(0x105).value, user + 0x5000);
}

TEST_F(Memslots, many_slots_in_any_order)
{
	constexpr u32 count = 200;

	for (u32 i = 0; i < count; i++) {
		u32 n = i * 77 % count;
		add(slot(n, n * u64{4}, 2, user + n * u64{0x2000}));
	}
	for (u64 frame = 0; frame < count * 4; frame++) {
		const Memslot *found = table->find_frame(frame);
		ASSERT_EQ(found != nullptr, frame % 4 < 2) << frame;
		if (found) {
			ASSERT_EQ(found->id, frame / 4);
		}
	}
	for (u32 i = 0; i < count; i += 2)
		remove(i * 31 % count & ~1u);
	for (u64 frame = 0; frame < count * 4; frame += 8)
		EXPECT_NE(table->find_frame(frame + 4), nullptr) << frame;
}

TEST_F(Memslots, change_leaves_the_old_table_as_it_was)
{
	add(slot(1, 0x10, 4));
	Memslot moved = slot(1, 0x30, 4);
	auto next = table->with_change(1, &moved);
	ASSERT_TRUE(next);
	EXPECT_NE(table->find_frame(0x10), nullptr);
	EXPECT_EQ(next->find_frame(0x10), nullptr);
	EXPECT_EQ(next->find_frame(0x31)->id, 1u);
}

TEST_F(Memslots, change_without_memory)
{
	Memslot s = slot(1, 0, 1);

	for (unsigned n : {0u, 1u}) {
		fail_allocation_after(n);
		EXPECT_FALSE(empty.with_change(1, &s));
		EXPECT_TRUE(allocation_failed());
	}
}

TEST_F(Memslots, slots_of_a_range_of_user_addresses)
{
	add(slot(1, 0x10, 4, user));           /* user + 0 .. 0x4000 */
	add(slot(2, 0x100, 2, user + 0x2000)); /* the same memory twice */
	add(slot(3, 0x200, 2, user + 0x10000));
	auto in = [&](u64 start, u64 end) {
		std::vector<std::pair<u64, u64>> seen;
		table->for_each_in(user + start, user + end, [&](u64 first, u64 last) {
			seen.push_back({first, last});
		});
		return seen;
	};
	using Ranges = std::vector<std::pair<u64, u64>>;
	EXPECT_EQ(in(0, 0x1000), (Ranges{{0x10, 0x10}}));
	EXPECT_EQ(in(0x1000, 0x3000), (Ranges{{0x11, 0x12}, {0x100, 0x100}}));
	EXPECT_EQ(in(0x3fff, 0x4001), (Ranges{{0x13, 0x13}, {0x101, 0x101}}));
	EXPECT_EQ(in(0x4000, 0x10000), Ranges{});
	EXPECT_EQ(in(0x11000, 0x100000), (Ranges{{0x201, 0x201}}));
	EXPECT_EQ(in(1, 2), (Ranges{{0x10, 0x10}})) << "a part of a page is the page";
	Ranges all;
	table->for_each_in(0, ~u64{0}, [&](u64 first, u64 last) { all.push_back({first, last}); });
	EXPECT_EQ(all, (Ranges{{0x10, 0x13}, {0x100, 0x101}, {0x200, 0x201}}));
}

TEST_F(Memslots, guest_memory)
{
	alignas(4096) static u8 bytes[0x2000];
	add_user_memory(reinterpret_cast<u64>(bytes), 0x1000); /* the second page is gone */
	add(slot(1, 0x10, 2, reinterpret_cast<u64>(bytes)));
	auto first_table = std::move(table);
	GuestMemory memory(*first_table);
	table = first_table->with_change(~0u, nullptr);
	u32 value = 0x12345678, back = 0;

	EXPECT_TRUE(memory.is_ram({0x10ff0}));
	EXPECT_FALSE(memory.is_ram({0x12000}));
	EXPECT_TRUE(memory.write({0x10ffc}, &value, 4));
	EXPECT_TRUE(memory.read({0x10ffc}, &back, 4));
	EXPECT_EQ(back, value);
	EXPECT_EQ(memory.read({0x12000}, &back, 4).error(), Errno::noent);
	EXPECT_EQ(memory.write({0xfffc}, &back, 4).error(), Errno::noent);
	EXPECT_EQ(memory.read({0x11000}, &back, 4).error(), Errno::fault);

	/* A log has what was written, and nothing else. */
	auto log = DirtyLog::create(2);
	Memslot logged = slot(1, 0x10, 2, reinterpret_cast<u64>(bytes));
	logged.log = log.get();
	add(logged);
	GuestMemory with_log(*table);
	EXPECT_TRUE(with_log.read({0x10ffc}, &back, 4));
	EXPECT_FALSE(with_log.write({0x11000}, &back, 4));
	log->take([](u64) { ADD_FAILURE() << "not written"; });
	EXPECT_TRUE(with_log.write({0x10ffc}, &value, 4));
	log->take([](u64 page) { EXPECT_EQ(page, 0u); });
	EXPECT_EQ(log->taken()[0], 1u);

	Memslot rom = slot(1, 0x10, 2, reinterpret_cast<u64>(bytes));
	rom.read_only = true;
	add(rom);
	GuestMemory read_only(*table);
	EXPECT_TRUE(read_only.is_ram({0x10000}));
	EXPECT_FALSE(read_only.takes_writes({0x10000}));
	EXPECT_TRUE(memory.takes_writes({0x10000})) << "the table before";
	EXPECT_TRUE(read_only.read({0x10ffc}, &back, 4));
	back = 1;
	EXPECT_EQ(read_only.write({0x10ffc}, &back, 4).error(), Errno::noent);
	EXPECT_TRUE(read_only.read({0x10ffc}, &back, 4));
	EXPECT_EQ(back, value);
	remove_user_memory(reinterpret_cast<u64>(bytes));
}
