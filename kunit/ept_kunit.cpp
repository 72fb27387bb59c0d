// SPDX-License-Identifier: GPL-2.0
/* Extended page tables in real pages of the kernel. No CPU walks them: there is no VMX here. */
#include "arch/x86/ept.cpp"
#include "arch/x86/loaded_vmcs.cpp"
#include "arch/x86/vmx_cpu.cpp"

#include "expect.hpp"

using namespace kvmpp;

namespace
{

u64 walk(const Ept &ept, u64 guest)
{
	u64 *table = table_at(ept.pointer());

	for (int level = levels;; level--) {
		u64 entry = table[(guest >> (page_shift + shift_of(level))) & low_bits(index_bits)];

		if (!is_table(entry, level))
			return entry & ~(accessed | dirty);
		table = table_at(entry);
	}
}

bool map(Ept &ept, u64 guest, u64 host, bool writable = true)
{
	Ept::TablePages pages;

	if (!pages.fill())
		return false;
	if (!ept.map({guest}, {host}, {.writable = writable}, pages))
		return false;
	/* There is no such frame: Linux is not to be told that it was used. */
	return ept.age(guest >> page_shift, guest >> page_shift);
}

TEST_CASE(entries_of_a_page)
{
	Ept ept;

	ASSERT(ept.create(true));
	EXPECT_EQ(ept.pointer() & 0xfff, 0x5e);
	ASSERT(map(ept, 0x1000, 0x12345000));
	ASSERT(map(ept, 0x2000, 0x12346000, false));
	EXPECT_EQ(walk(ept, 0x1000), 0x12345077);
	EXPECT_EQ(walk(ept, 0x2000), 0x12346075);
	EXPECT_EQ(walk(ept, 0x3000), 0);
}

TEST_CASE(map_and_unmap_far_apart)
{
	constexpr u64 places[] = {0,          0x1ff000,     0x200000,      0x3ffff000,
				  0x40000000, 0x8000000000, 0xfffffffff000};
	Ept ept;

	ASSERT(ept.create(true));
	for (u64 place : places)
		ASSERT(map(ept, place, place + 0x1000000));
	for (u64 place : places)
		EXPECT_EQ(walk(ept, place), (place + 0x1000000) | 0x77);
	for (u64 place : places) {
		EXPECT(ept.unmap(place >> 12, place >> 12));
		EXPECT(!ept.unmap(place >> 12, place >> 12));
		EXPECT_EQ(walk(ept, place), 0);
	}
}

TEST_CASE(unmap_a_range)
{
	Ept ept;

	ASSERT(ept.create(true));
	for (u64 frame = 0x1f0; frame < 0x210; frame++)
		ASSERT(map(ept, frame << 12, frame << 12));
	EXPECT(ept.unmap(0x1fe, 0x201));
	for (u64 frame = 0x1f0; frame < 0x210; frame++)
		EXPECT_EQ(walk(ept, frame << 12) != 0, frame < 0x1fe || frame > 0x201);
	EXPECT(ept.unmap(0, ~u64{0} >> 12));
}

TEST_CASE(many_pages_are_freed)
{
	/* KASAN and kmemleak watch. */
	for (int round = 0; round < 3; round++) {
		Ept ept;

		ASSERT(ept.create(true));
		for (u64 i = 0; i < 300; i++)
			ASSERT(map(ept, i * 0x7654321000 & 0xfffffffff000, i << 12));
	}
}

TEST_CASE(never_created)
{
	Ept ept;
	Ept::TablePages pages;

	EXPECT(pages.fill());
}

} // namespace

DEFINE_TEST_SUITE(EPT_CASES)
