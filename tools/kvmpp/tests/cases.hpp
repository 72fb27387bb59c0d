// SPDX-License-Identifier: GPL-2.0
//
// The command's own tests, which need no machine with kvmpp: a file each of tests/.
#pragma once

#include "ktap.hpp"

#include <span>

extern const std::span<const ktap::Case> status_cases, vcpu_cases, check_cases, line_cases;
