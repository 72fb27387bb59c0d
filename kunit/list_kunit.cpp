// SPDX-License-Identifier: GPL-2.0
#include "include/kvmpp/list.hpp"

#include "expect.hpp"

#include <initializer_list>

using namespace kvmpp;

namespace
{

struct Item : ListLink<Item> {
	explicit Item(int n) : number(n) {}
	int number;
};
using Items = List<Item, Item>;

/* The numbers in their order, as digits. */
int digits(Items &list)
{
	int value = 0;

	list.for_each([&](Item &item) { value = 10 * value + item.number; });
	return value;
}

TEST_CASE(empty_at_first)
{
	Items list;

	EXPECT(list.empty());
	EXPECT(list.front() == nullptr);
	EXPECT_EQ(digits(list), 0);
}

TEST_CASE(last_pushed_is_first)
{
	Items list;
	Item a(1), b(2), c(3);

	list.push_front(a);
	list.push_front(b);
	list.push_front(c);
	EXPECT_EQ(digits(list), 321);
	EXPECT(list.front() == &c);
}

TEST_CASE(unlink_from_any_place_and_twice)
{
	Items list;
	Item a(1), b(2), c(3);

	for (Item *item : {&a, &b, &c})
		list.push_front(*item);
	b.unlink();
	b.unlink();
	EXPECT_EQ(digits(list), 31);
	c.unlink();
	EXPECT_EQ(digits(list), 1);
	a.unlink();
	EXPECT(list.empty());
	EXPECT(!a.is_linked());
}

TEST_CASE(visitor_unlinks)
{
	Items list;
	Item a(1), b(2), c(3);

	for (Item *item : {&a, &b, &c})
		list.push_front(*item);
	list.for_each([](Item &item) { item.unlink(); });
	EXPECT(list.empty());
	list.push_front(b);
	EXPECT_EQ(digits(list), 2);
}

} // namespace

DEFINE_TEST_SUITE(LIST_CASES)
