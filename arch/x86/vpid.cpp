// SPDX-License-Identifier: GPL-2.0
#include "vpid.hpp"

#include <linux_glue/vpid.h>

namespace kvmpp
{

Result<u16> vpid_alloc()
{
	int vpid = glue_vpid_alloc();

	if (vpid < 0)
		return Errno::nomem;
	return static_cast<u16>(vpid);
}

void vpid_free(u16 vpid)
{
	glue_vpid_free(vpid);
}

} // namespace kvmpp
