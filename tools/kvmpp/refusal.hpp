// SPDX-License-Identifier: GPL-2.0
//
// Why the module does not dedicate a CPU, as a sentence that says what to do. One errno has many
// reasons; which it was is seen by looking around afterwards.
#pragma once

#include "snapshot.hpp"
#include "vcpu_file.hpp"

#include <optional>
#include <string>
#include <vector>

struct Situation {
	VcpuName name;
	// "vCPU 0 of vmm (174)"
	std::string vcpu;
	// What was asked for.
	unsigned cpu = 0;
	std::vector<unsigned> online;
	std::vector<unsigned> present;
	// Those of the CPU that Linux has, and that are not the CPU.
	std::vector<unsigned> siblings;
	// Who has the CPU already.
	std::optional<Dedicated> holder;
	// What the vCPU has.
	std::optional<unsigned> has;
};

std::string why_not_dedicated(const Situation &situation, int error);
std::string why_not_released(const Situation &situation, int error);
