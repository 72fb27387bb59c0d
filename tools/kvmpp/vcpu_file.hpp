// SPDX-License-Identifier: GPL-2.0
//
// A vCPU of another process, by the file that the process has open.
#pragma once

#include <optional>
#include <string>
#include <vector>

// What the command line says.
struct VcpuName {
	unsigned process;
	unsigned vcpu;
	// Which of several VMs with such a vCPU, from 1 on, in the order of the descriptors.
	std::optional<unsigned> vm;
};

// "vCPU 0 of vmm (174)"
std::string describe(const std::string &root, const VcpuName &name);

// The process's descriptors of such vCPUs, one a vCPU, in order. Failures as find_vcpu().
std::vector<unsigned> vcpu_descriptors(const std::string &root, const VcpuName &name);

// The descriptor there. Throws a Failure where there is none, or where it has to be said which.
unsigned find_vcpu(const std::string &root, const VcpuName &name);

// That vCPU's file, opened in this process too. Throws a Failure.
int take_vcpu(const std::string &root, const VcpuName &name);
