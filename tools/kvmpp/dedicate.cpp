// SPDX-License-Identifier: GPL-2.0
#include "dedicate.hpp"

#include "failure.hpp"
#include "files.hpp"
#include "refusal.hpp"

#include <kvmpp.h>

#include <cerrno>
#include <cstdio>
#include <sys/ioctl.h>
#include <unistd.h>

namespace
{

class VcpuFile
{
public:
	VcpuFile(const std::string &root, const VcpuName &name) : fd_(take_vcpu(root, name)) {}
	VcpuFile(const VcpuFile &) = delete;
	VcpuFile &operator=(const VcpuFile &) = delete;
	~VcpuFile() { close(fd_); }

	// 0 or an errno.
	int set(int cpu) const
	{
		const unsigned long argument = static_cast<unsigned long>(long{cpu});
		return ioctl(fd_, KVMPP_SET_DEDICATED_CPU, argument) < 0 ? errno : 0;
	}

	// The CPU it has. Nothing too where that may not be asked. Throws for a module that knows no
	// dedicated CPUs, which has the same errnos as one that does for other things.
	std::optional<unsigned> get() const
	{
		int cpu = -1;
		if (ioctl(fd_, KVMPP_GET_DEDICATED_CPU, &cpu) < 0 &&
		    (errno == EINVAL || errno == EIO || errno == ENOTTY))
			throw Failure(
				"the module that is loaded has no dedicated CPUs: it is older "
				"than this command");
		return cpu < 0 ? std::nullopt : std::optional(static_cast<unsigned>(cpu));
	}

private:
	const int fd_;
};

std::vector<unsigned> siblings_of(const std::string &root, unsigned cpu)
{
	auto siblings =
		parse_cpu_list(read_line(root + "/sys/devices/system/cpu/cpu" +
					 std::to_string(cpu) + "/topology/thread_siblings_list"));
	std::erase(siblings, cpu);
	return siblings;
}

} // namespace

int dedicate(const std::string &root, const VcpuName &name, unsigned cpu)
{
	const VcpuFile file(root, name);
	Situation situation{.name = name,
			    .vcpu = describe(root, name),
			    .cpu = cpu,
			    .online = online_cpus(root),
			    .present = present_cpus(root),
			    .siblings = siblings_of(root, cpu),
			    .holder = {},
			    .has = file.get()};
	if (const int error = file.set(static_cast<int>(cpu))) {
		const auto dedicated = read_dedicated(root);
		if (const auto found = dedicated.find(cpu); found != dedicated.end())
			situation.holder = found->second;
		throw Failure(why_not_dedicated(situation, error));
	}
	std::printf("CPU %u is dedicated to %s\n", cpu, situation.vcpu.c_str());
	return 0;
}

int release(const std::string &root, const VcpuName &name)
{
	const VcpuFile file(root, name);
	Situation situation;
	situation.name = name;
	situation.vcpu = describe(root, name);
	situation.has = file.get();
	if (const int error = file.set(-1))
		throw Failure(why_not_released(situation, error));
	if (situation.has)
		std::printf("CPU %u is Linux's again\n", *situation.has);
	return 0;
}
