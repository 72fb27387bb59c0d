// SPDX-License-Identifier: GPL-2.0
#include "include/kvmpp/result.hpp"

#include "expect.hpp"
#include "include/kvmpp/owned.hpp"

using namespace kvmpp;

namespace
{

TEST_CASE(errno_to_the_kernel)
{
	EXPECT_EQ(to_errno(Result<>()), 0);
	EXPECT_EQ(to_errno(Errno::inval), -EINVAL);
	EXPECT_EQ(to_errno(Errno::nomem), -ENOMEM);
	EXPECT_EQ(to_errno(Errno::fault), -EFAULT);
	EXPECT_EQ(to_errno(Errno::opnotsupp), -EOPNOTSUPP);
}

TEST_CASE(errno_from_the_kernel)
{
	EXPECT(from_errno(0));
	EXPECT(from_errno(7));
	EXPECT(!from_errno(-EBUSY));
	EXPECT(from_errno(-EBUSY).error() == Errno::busy);
	EXPECT_EQ(to_errno(from_errno(-ENFILE)), -ENFILE);
}

TEST_CASE(value_or_error)
{
	Result<int> value = 42, error = Errno::exist;

	EXPECT(value);
	EXPECT_EQ(*value, 42);
	EXPECT(!error);
	EXPECT(error.error() == Errno::exist);
}

struct Counted {
	explicit Counted(int &count) : alive(count) { alive++; }
	~Counted() { alive--; }
	int &alive;
};

TEST_CASE(value_moves_and_is_destroyed_once)
{
	int alive = 0;
	{
		Result<Owned<Counted>> first = Owned<Counted>::create(alive);
		ASSERT(first && *first);
		Result<Owned<Counted>> second = std::move(first);
		ASSERT(second);
		EXPECT(!*first);
		EXPECT_EQ(alive, 1);
	}
	EXPECT_EQ(alive, 0);
}

TEST_CASE(page_is_zeroed_and_in_the_direct_map)
{
	Page page = Page::create();

	ASSERT(page);
	EXPECT_EQ(page.phys().page_offset(), 0);
	EXPECT_EQ(glue_phys_to_virt(page.phys().value), page.as<void>());
	for (unsigned i = 0; i < page_size; i++)
		ASSERT(page.as<u8>()[i] == 0);
}

} // namespace

DEFINE_TEST_SUITE(RESULT_CASES)
