// SPDX-License-Identifier: GPL-2.0
//
// kvmpp dedicate and kvmpp release: a CPU for a vCPU of a VMM that knows nothing of it.
#pragma once

#include "vcpu_file.hpp"

// Each returns main's status, or throws a Failure.
int dedicate(const std::string &root, const VcpuName &name, unsigned cpu);
int release(const std::string &root, const VcpuName &name);
