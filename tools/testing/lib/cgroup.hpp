// SPDX-License-Identifier: GPL-2.0
//
// A memory cgroup: what the kernel has allocated for the processes that are or were in it, pages of a VM's
// tables among it.
#pragma once

#include <string>

class Cgroup
{
public:
	// False where the kernel does not account memory, or has no cgroups of version 2.
	static bool is_there();

	explicit Cgroup(const std::string &name);

	// The calling process, with the children that it has from now on.
	void enter() const;
	void set_limit(const std::string &bytes) const;
	long kernel_kib() const;
	// Waits until less than @kib are left, as much is freed after a grace period of RCU, and the numbers are
	// some seconds old. What is left.
	long wait_for_less(long kib) const;

private:
	const std::string path_;
};
