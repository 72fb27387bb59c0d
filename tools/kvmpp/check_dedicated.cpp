// SPDX-License-Identifier: GPL-2.0
#include "check.hpp"
#include "files.hpp"

#include <cpuid.h>
#include <sstream>

namespace
{

Finding check_x2apic()
{
	unsigned eax, ebx, ecx = 0, edx;
	__get_cpuid(1, &eax, &ebx, &ecx, &edx);
	if (ecx >> 21 & 1)
		return {Verdict::ok, "x2APIC", "the CPU has it"};
	return {Verdict::no, "x2APIC", "the CPU has none: no CPU can be dedicated"};
}

Finding check_cpus(const std::vector<unsigned> &online)
{
	if (online.size() >= 2)
		return {Verdict::ok, "CPUs",
			cpu_list(online) + " are online; all but CPU 0 can be dedicated"};
	return {Verdict::no, "CPUs", "there is one online, which Linux needs"};
}

// With the shorthand an interrupt for all goes to CPUs that Linux does not have, too.
Finding check_broadcast(const std::string &root, size_t present)
{
	const std::string what = "no_ipi_broadcast";
	std::istringstream words(read_file(root + "/proc/cmdline").value_or(""));
	std::string word, value;
	while (words >> word)
		if (word.starts_with("no_ipi_broadcast="))
			value = word.substr(word.find('=') + 1);
	if (!value.empty() && value != "0")
		return {Verdict::ok, what, "it is on the kernel's command line"};
	// Of up to two that stay with Linux there is never more than one to be called.
	if (present < 4)
		return {Verdict::ok, what, "with fewer than four CPUs it is not needed"};
	return {Verdict::no, what,
		"with four CPUs and more, add no_ipi_broadcast=1 to the kernel's command line; "
		"without "
		"it interrupts are not passed through to the guest"};
}

Finding check_siblings(const std::string &root, const std::vector<unsigned> &online)
{
	const std::string what = "SMT";
	std::string pairs;
	for (const unsigned cpu : online) {
		const auto siblings = parse_cpu_list(
			read_line(root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
				  "/topology/thread_siblings_list"));
		if (siblings.size() > 1 && siblings.front() == cpu)
			pairs += (pairs.empty() ? "" : "; ") + cpu_list(siblings);
	}
	if (pairs.empty())
		return {Verdict::ok, what, "no two CPUs online share a core"};
	if (module_parameter(root, "kvmpp", "allow_smt") == "Y")
		return {Verdict::ok, what, "allow_smt=1: a guest shares its core with Linux"};
	return {Verdict::no, what,
		"these share a core: " + pairs +
			"; take offline all others of a core before you dedicate one, or load "
			"kvmpp "
			"with allow_smt=1"};
}

} // namespace

Findings check_for_dedicated(const std::string &root)
{
	const auto online = online_cpus(root);
	return {check_x2apic(), check_cpus(online),
		check_broadcast(root, present_cpus(root).size()), check_siblings(root, online)};
}
