// SPDX-License-Identifier: GPL-2.0
#include "model/cpus.hpp"
#include "model/memory.hpp"
#include "model/violation.hpp"

#include <linux_glue/vpid.h>

#include <bitset>

using namespace kvmpp::host;

namespace
{

std::bitset<65536> used{1};
/* All before it are used. */
unsigned lowest = 1;

} // namespace

int glue_vpid_alloc(void)
{
	might_sleep("ida_alloc_range()");
	if (!may_allocate())
		return -ENOMEM;
	while (lowest < used.size() && used[lowest])
		lowest++;
	if (lowest == used.size())
		return -ENOSPC;
	used.set(lowest);
	return static_cast<int>(lowest);
}

void glue_vpid_free(glue_u16 vpid)
{
	if (!vpid || !used[vpid])
		violation("VPID freed that nobody has");
	used.reset(vpid);
	if (vpid < lowest)
		lowest = vpid;
}
