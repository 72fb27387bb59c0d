// SPDX-License-Identifier: GPL-2.0
#include "model/params.hpp"

#include <linux_glue/params.h>

namespace kvmpp::host
{

Params params;

} // namespace kvmpp::host

glue_u32 glue_ple_gap(void)
{
	return kvmpp::host::params.ple_gap;
}

glue_u32 glue_ple_window(void)
{
	return kvmpp::host::params.ple_window;
}
