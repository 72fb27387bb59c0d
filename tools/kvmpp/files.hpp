// SPDX-License-Identifier: GPL-2.0
//
// Text files of the kernel's. Every function that reads them takes the root that their paths are
// below: "" on a machine, a directory in tests.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

// The whole file; nullopt, with errno, when it cannot be read.
std::optional<std::string> read_file(const std::string &path);
// The same less the newline at the end, and "" where there is none.
std::string read_line(const std::string &path);

// A decimal number and nothing else.
std::optional<unsigned long> number(std::string_view text);

// "0-2,5" as Linux writes CPUs, and back.
std::vector<unsigned> parse_cpu_list(const std::string &text);
std::string cpu_list(const std::vector<unsigned> &cpus);

std::vector<unsigned> online_cpus(const std::string &root);
// All that the machine has, online or not.
std::vector<unsigned> present_cpus(const std::string &root);

// /proc/PID/comm, or "?" for a process that is gone.
std::string process_name(const std::string &root, unsigned long pid);

bool module_loaded(const std::string &root, const std::string &name);
// "" where the module is not there or has no such parameter.
std::string module_parameter(const std::string &root, const std::string &module,
			     const std::string &parameter);
