// SPDX-License-Identifier: GPL-2.0
//
// What is asked for.
#pragma once

#include "vcpu_file.hpp"

#include <optional>
#include <string>
#include <vector>

struct CommandLine {
	enum class Command { help, status, dedicate, release, check };

	Command command = Command::help;
	// Of status, in seconds.
	std::optional<double> watch;
	// Of dedicate and release.
	VcpuName vcpu{};
	unsigned cpu = 0;
};

// The arguments after the program's name. Throws Usage, in one line.
CommandLine parse_command_line(const std::vector<std::string> &arguments);

extern const char *const help_text;
