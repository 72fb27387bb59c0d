// SPDX-License-Identifier: GPL-2.0
#include "fixture.hpp"

#include "include/kvmpp/owned.hpp"

#include <algorithm>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

using OwnedTest = MachineTest;
using PageTest = MachineTest;

struct Counted {
	explicit Counted(int &count) : alive(count) { alive++; }
	~Counted() { alive--; }
	int &alive;
};

} // namespace

TEST_F(OwnedTest, destroys_and_frees)
{
	int alive = 0;
	{
		auto owned = Owned<Counted>::create(alive);
		ASSERT_TRUE(owned);
		EXPECT_EQ(alive, 1);
		EXPECT_EQ(&owned->alive, &alive);
	}
	EXPECT_EQ(alive, 0);
}

TEST_F(OwnedTest, is_empty_without_memory)
{
	int alive = 0;

	fail_allocation_after(0);
	auto owned = Owned<Counted>::create(alive);
	EXPECT_FALSE(owned);
	EXPECT_EQ(alive, 0);
}

TEST_F(OwnedTest, move_takes_over_and_assignment_frees_the_old)
{
	int first = 0, second = 0;
	auto a = Owned<Counted>::create(first);
	auto b = Owned<Counted>::create(second);

	Owned<Counted> c(std::move(a));
	EXPECT_FALSE(a);
	c = std::move(b);
	EXPECT_EQ(first, 0);
	EXPECT_EQ(second, 1);
}

TEST_F(OwnedTest, assignment_to_itself_keeps_the_object)
{
	int alive = 0;
	auto a = Owned<Counted>::create(alive);
	Owned<Counted> &same = a;

	a = std::move(same);
	EXPECT_EQ(alive, a ? 1 : 0);
}

TEST_F(OwnedTest, released_object_is_adopted)
{
	int alive = 0;
	Counted *object = Owned<Counted>::create(alive).release();

	EXPECT_EQ(alive, 1);
	Owned<Counted>::adopt(object);
	EXPECT_EQ(alive, 0);
}

TEST_F(PageTest, is_a_zeroed_aligned_page)
{
	Page page = Page::create();

	ASSERT_TRUE(page);
	EXPECT_EQ(page.phys().page_offset(), 0u);
	EXPECT_TRUE(std::all_of(page.as<u8>(), page.as<u8>() + page_size,
				[](u8 byte) { return byte == 0; }));
}

TEST_F(PageTest, is_empty_without_memory)
{
	fail_allocation_after(0);
	EXPECT_FALSE(Page::create());
}

TEST_F(PageTest, moves)
{
	Page a = Page::create(), b = Page::create();
	void *address = a.as<void>();

	b = std::move(a);
	EXPECT_FALSE(a);
	EXPECT_EQ(b.as<void>(), address);
	glue_page_free(b.release());
	EXPECT_FALSE(b);
}
