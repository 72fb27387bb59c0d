// SPDX-License-Identifier: GPL-2.0
#include "cgroup.hpp"

#include "expect.hpp"
#include "host.hpp"

#include <cerrno>
#include <cstring>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

namespace
{

const std::string root = "/tmp/cgroup";

} // namespace

bool Cgroup::is_there()
{
	mkdir(root.c_str(), 0755);
	if (mount("cgroup", root.c_str(), "cgroup2", 0, nullptr) && errno != EBUSY)
		return false;
	return host::write_file(root + "/cgroup.subtree_control", "+memory") == 0;
}

Cgroup::Cgroup(const std::string &name) : path_(root + "/" + name)
{
	mkdir(path_.c_str(), 0755);
}

void Cgroup::enter() const
{
	expect::equal("entry into the cgroup", host::write_file(path_ + "/cgroup.procs", "0"), 0);
}

void Cgroup::set_limit(const std::string &bytes) const
{
	expect::equal("memory.max", host::write_file(path_ + "/memory.max", bytes), 0);
}

long Cgroup::kernel_kib() const
{
	const std::string text = host::read_file(path_ + "/memory.stat");
	const size_t at = text.find("\nkernel ");
	expect::that("the cgroup tells of kernel memory", at != std::string::npos);
	return std::stol(text.substr(at + std::strlen("\nkernel "))) / 1024;
}

long Cgroup::wait_for_less(long kib) const
{
	long left = kernel_kib();
	for (unsigned i = 0; i < 100 && left >= kib; i++) {
		usleep(100'000);
		left = kernel_kib();
	}
	return left;
}
