// SPDX-License-Identifier: GPL-2.0
//
// Lines that are shown again and again: in place on a terminal, one after the other elsewhere.
#pragma once

#include <functional>
#include <string>
#include <vector>

// Every so many seconds, until SIGINT, SIGTERM or SIGHUP comes. The terminal is then as it was, also
// where @frame throws.
void watch(double seconds, const std::function<std::vector<std::string>()> &frame);
