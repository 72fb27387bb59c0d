/* SPDX-License-Identifier: GPL-2.0 */
/* The module's parameters, read when it comes in. */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::host
{

struct Params {
	u32 ple_gap = 128;
	u32 ple_window = 4096;
};
extern Params params;

} // namespace kvmpp::host
