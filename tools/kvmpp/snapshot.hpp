// SPDX-License-Identifier: GPL-2.0
//
// What the module's debugfs files and Linux say of the CPUs at one moment. The files are described in
// Documentation/lifecycle.rst, "To see it".
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

// A CPU that Linux does not have, because a vCPU has it.
struct Dedicated {
	unsigned process = 0;
	std::string process_name;
	unsigned vm = 0;
	unsigned vcpu = 0;
	std::string state;
	bool passthrough = false;
	uint64_t kicks = 0;
	// What should not have come: NMIs that are nobody's, and host interrupts.
	uint64_t unknown_nmis = 0;
	uint64_t strays = 0;
};

struct Cpu {
	bool online = false;
	// Asked of CPUs that are online only.
	std::optional<bool> vmx;
	std::optional<unsigned> vmcss;
	std::optional<Dedicated> dedicated;
	// By reason, since the module came in.
	std::map<std::string, uint64_t> exits;
};

struct Snapshot {
	std::chrono::steady_clock::time_point when;
	std::map<unsigned, Cpu> cpus;
};

// Reads it all. Throws a Failure that says what to do.
Snapshot take_snapshot(const std::string &root);

// CPU by CPU, what /sys/kernel/debug/kvmpp/dedicated says; nothing where it cannot be read.
std::map<unsigned, Dedicated> read_dedicated(const std::string &root);

// "vmm (174), VM 1, vCPU 0"
std::string owner_of(const Dedicated &dedicated);
