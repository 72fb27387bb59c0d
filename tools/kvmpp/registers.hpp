// SPDX-License-Identifier: GPL-2.0
//
// The registers that say what VMX can do, read and judged by the module's own code, which
// arch/x86/capabilities.cpp brings into this program.
#pragma once

#include "check.hpp"

#include "arch/x86/capabilities.hpp"

#include <string>

// Of a CPU, by /dev/cpu/N/msr. 0 or an errno: ENOENT without Linux's module msr, EACCES, EPERM.
int read_registers(const std::string &root, unsigned cpu, kvmpp::VmxRegisters &registers);

// What the module would say of them, for CPUs that have VMX.
Findings judge_registers(const kvmpp::VmxRegisters &registers);
