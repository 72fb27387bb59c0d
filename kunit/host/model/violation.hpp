/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the machine would punish or silently corrupt, or Linux forbid: the model notes it and goes on;
 * a test fails if there is any that it did not take().
 */
#pragma once

#include <string>
#include <vector>

namespace kvmpp::host
{

void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* All since the last call. */
std::vector<std::string> take_violations();

} // namespace kvmpp::host
