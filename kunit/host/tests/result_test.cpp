// SPDX-License-Identifier: GPL-2.0
#include "include/kvmpp/result.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

using namespace kvmpp;

TEST(Result, success_of_void_is_0)
{
	Result<> ok;

	EXPECT_TRUE(ok);
	EXPECT_EQ(to_errno(ok), 0);
}

TEST(Result, error_becomes_a_negative_errno)
{
	EXPECT_EQ(to_errno(Errno::inval), -EINVAL);
	EXPECT_EQ(to_errno(Errno::nomem), -ENOMEM);
	EXPECT_EQ(to_errno(Errno::again), -EAGAIN);
	EXPECT_EQ(to_errno(Errno::opnotsupp), -EOPNOTSUPP);
}

TEST(Result, errno_of_the_kernel_comes_back)
{
	EXPECT_TRUE(from_errno(0));
	EXPECT_TRUE(from_errno(17)); /* a count or a descriptor is no error */
	Result<> failed = from_errno(-EFAULT);
	ASSERT_FALSE(failed);
	EXPECT_EQ(failed.error(), Errno::fault);
	/* One that Errno has no name for passes through all the same. */
	EXPECT_EQ(to_errno(from_errno(-ENFILE)), -ENFILE);
}

TEST(Result, holds_a_value_or_an_error)
{
	Result<int> value = 42;
	Result<int> error = Errno::exist;

	ASSERT_TRUE(value);
	EXPECT_EQ(*value, 42);
	ASSERT_FALSE(error);
	EXPECT_EQ(error.error(), Errno::exist);
}

TEST(Result, moves_its_value_and_destroys_it_once)
{
	auto counted = std::make_shared<int>(7);
	{
		Result<std::shared_ptr<int>> first = counted;
		EXPECT_EQ(counted.use_count(), 2);
		Result<std::shared_ptr<int>> second = std::move(first);
		ASSERT_TRUE(second);
		EXPECT_EQ(counted.use_count(), 2);
		EXPECT_EQ(**second, 7);
		EXPECT_EQ(*second->get(), 7);
	}
	EXPECT_EQ(counted.use_count(), 1);
}

TEST(Result, moves_an_error)
{
	Result<std::unique_ptr<int>> first = Errno::busy;
	Result<std::unique_ptr<int>> second = std::move(first);

	ASSERT_FALSE(second);
	EXPECT_EQ(second.error(), Errno::busy);
}
