// SPDX-License-Identifier: GPL-2.0
#include "arch/x86/vpid.cpp"

#include "expect.hpp"

using namespace kvmpp;

namespace
{

TEST_CASE(unique_and_not_the_hosts)
{
	Result<u16> a = vpid_alloc(), b = vpid_alloc();
	ASSERT(a && b);
	EXPECT(*a != 0);
	EXPECT(*b != 0);
	EXPECT(*a != *b);
	vpid_free(*a);
	Result<u16> c = vpid_alloc();
	ASSERT(c);
	EXPECT_EQ(*c, *a);
	vpid_free(*b);
	vpid_free(*c);
}

TEST_CASE(all_in_use)
{
	unsigned count = 0;

	/* A debug kernel in an emulator takes many seconds for all of them, without preemption. */
	while (vpid_alloc())
		if (++count % 256 == 0)
			test_relax();
	EXPECT_EQ(count, 65535);
	EXPECT(vpid_alloc().error() == Errno::nomem);
	for (unsigned vpid = 1; vpid < 65536; vpid++) {
		vpid_free(static_cast<u16>(vpid));
		if (vpid % 256 == 0)
			test_relax();
	}
	Result<u16> first = vpid_alloc();
	ASSERT(first);
	EXPECT_EQ(*first, 1);
	vpid_free(*first);
}

} // namespace

DEFINE_TEST_SUITE(VPID_CASES)
