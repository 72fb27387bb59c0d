// SPDX-License-Identifier: GPL-2.0
#include "include/kvmpp/nospec.hpp"

#include <gtest/gtest.h>

using namespace kvmpp;

namespace
{

TEST(Nospec, index_within)
{
	for (u32 index : {0u, 1u, 23u})
		EXPECT_EQ(array_index_nospec(index, 24), index);
	EXPECT_EQ(array_index_nospec(~u64{0} - 1, ~u64{0}), ~u64{0} - 1);
	EXPECT_EQ(array_index_nospec(u32{1} << 31, ~u64{0}), u32{1} << 31);
}

TEST(Nospec, index_beyond)
{
	for (u64 index : {u64{24}, u64{25}, u64{1} << 31, u64{1} << 32, u64{1} << 63, ~u64{0}})
		EXPECT_EQ(array_index_nospec(index, 24), 0u);
	EXPECT_EQ(array_index_nospec(~0u, 24), 0u);
	EXPECT_EQ(array_index_nospec(0u, 0), 0u);
}

} // namespace
