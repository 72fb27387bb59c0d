// SPDX-License-Identifier: GPL-2.0
#include "check.hpp"
#include "files.hpp"
#include "registers.hpp"

#include <cerrno>
#include <cpuid.h>
#include <cstring>
#include <sstream>

namespace
{

std::string vendor()
{
	unsigned eax, words[3];
	if (!__get_cpuid(0, &eax, &words[0], &words[2], &words[1]))
		return "?";
	return std::string(reinterpret_cast<const char *>(words), sizeof(words));
}

Finding check_vmx(bool has_vmx, bool virtual_machine)
{
	const std::string what = "CPU", name = vendor();
	if (has_vmx && name == "GenuineIntel")
		return {Verdict::ok, what, "Intel, with VMX"};
	if (has_vmx)
		return {Verdict::unknown, what,
			name + ", with VMX; kvmpp was only tried on Intel's"};
	if (name != "GenuineIntel")
		return {Verdict::no, what, name + ", without VMX: kvmpp needs an Intel CPU"};
	if (virtual_machine)
		return {Verdict::no, what,
			"Intel, without VMX: this is a virtual machine, whose host would have to "
			"allow "
			"nested virtualisation"};
	return {Verdict::no, what, "Intel, without VMX: kvmpp needs a CPU that has it"};
}

// Linux takes the flag away where the firmware has switched VMX off.
bool linux_says_vmx(const std::string &root)
{
	std::istringstream lines(read_file(root + "/proc/cpuinfo").value_or(""));
	std::string line;
	while (std::getline(lines, line))
		if (line.starts_with("flags"))
			return (line + " ").find(" vmx ") != std::string::npos;
	return false;
}

// What can be known without the registers.
Findings guess(const std::string &root, int error)
{
	std::string todo = "/dev/cpu/0/msr: " + std::string(std::strerror(error));
	if (error == ENOENT)
		todo = "load Linux's msr module and check again: modprobe msr";
	else if (error == EACCES || error == EPERM)
		todo = "the registers cannot be read: run it as root, without lockdown";
	Findings findings;
	if (linux_says_vmx(root))
		findings.push_back(
			{Verdict::ok, "firmware", "VMX is switched on, as Linux has it"});
	else
		findings.push_back(
			{Verdict::no, "firmware",
			 "VMX is switched off by the firmware, as Linux has it: enable VT-x "
			 "in its setup"});
	// It looks when it is loaded, and would not be there.
	if (module_loaded(root, "kvmpp"))
		findings.push_back(
			{Verdict::ok, "VMX features", "kvmpp has found all that it needs"});
	else
		findings.push_back({Verdict::unknown, "VMX features", todo});
	return findings;
}

Findings check_registers(const std::string &root)
{
	Findings findings;
	for (const unsigned cpu : online_cpus(root)) {
		kvmpp::VmxRegisters registers;
		if (const int error = read_registers(root, cpu, registers))
			return guess(root, error);
		Findings own = judge_registers(registers);
		bool fits = true;
		for (Finding &finding : own) {
			fits = fits && finding.verdict == Verdict::ok;
			if (finding.verdict == Verdict::no && cpu != 0)
				finding.says += " (CPU " + std::to_string(cpu) + ")";
		}
		// All are alike, as a rule: the first one that does not do stands for them.
		if (findings.empty() || !fits)
			findings = own;
		if (!fits)
			break;
	}
	return findings;
}

} // namespace

Findings check_cpu(const std::string &root)
{
	unsigned eax, ebx, ecx = 0, edx;
	__get_cpuid(1, &eax, &ebx, &ecx, &edx);
	const bool has_vmx = ecx >> 5 & 1;
	Findings findings{check_vmx(has_vmx, ecx >> 31)};
	if (has_vmx)
		for (Finding &finding : check_registers(root))
			findings.push_back(finding);
	return findings;
}
