// SPDX-License-Identifier: GPL-2.0
#include "refusal.hpp"

#include "files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace
{

constexpr const char *goes_down =
	"a suspend, reboot or kexec is under way: try again when it is over";

std::string of_any_command(const std::string &what, int error)
{
	if (error == EPERM)
		return what + ": that takes CAP_SYS_ADMIN: run it as root";
	return what + ": " + std::strerror(error);
}

std::string why_busy(const Situation &s, const std::string &cpu)
{
	if (s.cpu == 0)
		return cpu + " cannot be dedicated: Linux needs it";
	if (s.has)
		return s.vcpu + " has CPU " + std::to_string(*s.has) +
		       " already: first kvmpp release " + std::to_string(s.name.process) + " " +
		       std::to_string(s.name.vcpu);
	if (s.holder)
		return cpu + " is dedicated already, to " + owner_of(*s.holder);
	if (s.online == std::vector{s.cpu})
		return cpu + " cannot be dedicated: it is the last one that Linux has";
	if (!s.siblings.empty())
		return cpu + " cannot be dedicated: Linux uses CPU " + cpu_list(s.siblings) +
		       " of the same core; take that offline, or load kvmpp with allow_smt=1";
	return cpu + " cannot be dedicated now: " + goes_down;
}

} // namespace

std::string why_not_dedicated(const Situation &s, int error)
{
	const std::string cpu = "CPU " + std::to_string(s.cpu);
	switch (error) {
	case EINVAL:
		if (std::ranges::find(s.present, s.cpu) == s.present.end())
			return "there is no " + cpu + ": this machine has " + cpu_list(s.present);
		return "kvmpp does not take " + cpu + " for " + s.vcpu;
	case EBUSY:
		return why_busy(s, cpu);
	case ETIMEDOUT:
		return cpu +
		       " did not come up in time, and Linux has it back; the kernel's log has more";
	case EOPNOTSUPP:
		return cpu + " cannot be dedicated: this machine has no x2APIC";
	default:
		return of_any_command(cpu + " cannot be dedicated to " + s.vcpu, error);
	}
}

std::string why_not_released(const Situation &s, int error)
{
	if (error == EINVAL)
		return s.vcpu + " has no CPU of its own";
	if (error == EBUSY)
		return s.vcpu + " cannot give its CPU back now: " + goes_down;
	return of_any_command(s.vcpu + " cannot give its CPU back", error);
}
