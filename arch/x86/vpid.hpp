/* SPDX-License-Identifier: GPL-2.0 */
/* Virtual-processor identifiers: one for each vCPU, 0 is the host's. */
#pragma once

#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"

#include <linux_glue/base.h>

namespace kvmpp
{

/* May sleep. Errno::nomem, also when all are in use. */
Result<u16> vpid_alloc() MAY_SLEEP;
void vpid_free(u16 vpid);

} // namespace kvmpp
