// SPDX-License-Identifier: GPL-2.0
#include "include/kvmpp/list.hpp"

#include <gtest/gtest.h>

#include <vector>

using namespace kvmpp;

namespace
{

struct Item : ListLink<Item> {
	explicit Item(int n) : number(n) {}
	int number;
};
using Items = List<Item, Item>;

std::vector<int> numbers(Items &list)
{
	std::vector<int> seen;

	list.for_each([&](Item &item) { seen.push_back(item.number); });
	return seen;
}

} // namespace

TEST(List, is_empty_at_first)
{
	Items list;

	EXPECT_TRUE(list.empty());
	EXPECT_EQ(list.front(), nullptr);
	EXPECT_TRUE(numbers(list).empty());
}

TEST(List, is_in_the_order_last_pushed_first)
{
	Items list;
	Item a(1), b(2), c(3);

	list.push_front(a);
	list.push_front(b);
	list.push_front(c);
	EXPECT_EQ(numbers(list), (std::vector{3, 2, 1}));
	EXPECT_EQ(list.front(), &c);
	EXPECT_TRUE(b.is_linked());
}

TEST(List, unlinks_from_any_place)
{
	Items list;
	Item a(1), b(2), c(3);

	for (Item *item : {&a, &b, &c})
		list.push_front(*item);
	b.unlink();
	EXPECT_EQ(numbers(list), (std::vector{3, 1}));
	c.unlink();
	EXPECT_EQ(numbers(list), (std::vector{1}));
	a.unlink();
	EXPECT_TRUE(list.empty());
	EXPECT_FALSE(a.is_linked());
}

TEST(List, unlinking_twice_or_never_linked_is_harmless)
{
	Items list;
	Item a(1), b(2);

	b.unlink();
	list.push_front(a);
	a.unlink();
	a.unlink();
	EXPECT_TRUE(list.empty());
	list.push_front(b);
	list.push_front(a);
	EXPECT_EQ(numbers(list), (std::vector{1, 2}));
}

TEST(List, element_goes_from_one_list_to_another)
{
	Items one, two;
	Item a(1), b(2);

	one.push_front(a);
	one.push_front(b);
	b.unlink();
	two.push_front(b);
	EXPECT_EQ(numbers(one), (std::vector{1}));
	EXPECT_EQ(numbers(two), (std::vector{2}));
}

TEST(List, visitor_may_unlink_what_it_is_given)
{
	Items list;
	Item a(1), b(2), c(3);
	int visited = 0;

	for (Item *item : {&a, &b, &c})
		list.push_front(*item);
	list.for_each([&](Item &item) {
		visited++;
		item.unlink();
	});
	EXPECT_EQ(visited, 3);
	EXPECT_TRUE(list.empty());
}

TEST(List, refills_after_it_was_emptied)
{
	Items list;
	Item a(1);

	for (int round = 0; round < 3; round++) {
		list.push_front(a);
		EXPECT_EQ(list.front(), &a);
		a.unlink();
		EXPECT_EQ(list.front(), nullptr);
	}
}
