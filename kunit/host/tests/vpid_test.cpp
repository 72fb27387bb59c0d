// SPDX-License-Identifier: GPL-2.0
#include "fixture.hpp"

#include "arch/x86/vpid.hpp"

#include <set>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

using Vpid = MachineTest;

} // namespace

TEST_F(Vpid, is_unique_and_never_the_hosts)
{
	std::set<u16> all;

	for (unsigned i = 0; i < 65535; i++) {
		Result<u16> vpid = vpid_alloc();
		ASSERT_TRUE(vpid) << i;
		ASSERT_NE(*vpid, 0);
		ASSERT_TRUE(all.insert(*vpid).second);
	}
	Result<u16> one_more = vpid_alloc();
	ASSERT_FALSE(one_more);
	EXPECT_EQ(one_more.error(), Errno::nomem);
	vpid_free(4711);
	Result<u16> again = vpid_alloc();
	ASSERT_TRUE(again);
	EXPECT_EQ(*again, 4711);
	for (u16 vpid : all)
		vpid_free(vpid);
}

TEST_F(Vpid, freed_is_used_again)
{
	Result<u16> first = vpid_alloc();
	ASSERT_TRUE(first);
	vpid_free(*first);
	Result<u16> second = vpid_alloc();
	ASSERT_TRUE(second);
	EXPECT_EQ(*second, *first);
	vpid_free(*second);
}
