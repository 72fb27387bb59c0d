// SPDX-License-Identifier: GPL-2.0
//
// kvmpp status: what each CPU is, and how many exits it takes.
#pragma once

#include "snapshot.hpp"

#include <optional>
#include <string>
#include <vector>

// The lines on the screen: exits are those between the two. Without @before there are no rates yet.
std::vector<std::string> status_lines(const Snapshot *before, const Snapshot &now);

// Returns main's status. With @watch, in seconds, it goes on until SIGINT.
int status(const std::string &root, std::optional<double> watch);
