/* SPDX-License-Identifier: GPL-2.0 */
/* The lines that the module wrote to the kernel log. */
#pragma once

#include <string>
#include <vector>

namespace kvmpp::host
{

std::vector<std::string> take_log();

} // namespace kvmpp::host
