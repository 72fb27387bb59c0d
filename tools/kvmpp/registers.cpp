// SPDX-License-Identifier: GPL-2.0
#include "registers.hpp"

#include "arch/x86/x86.hpp"

#include <linux_glue/x86.h>

#include <cerrno>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

namespace
{

// Of the CPU that the thread is on.
int msr_file = -1;

Finding judge_firmware(uint64_t value)
{
	namespace bits = kvmpp::feature_control;
	const std::string what = "firmware";
	if (!(value & bits::locked))
		return {Verdict::no, what,
			"IA32_FEAT_CTL is not locked: neither the firmware nor Linux decided on "
			"VMX; "
			"enable VT-x in the firmware's setup"};
	if (!(value & bits::vmx_outside_smx))
		return {Verdict::no, what,
			"VMX is switched off by the firmware, and locked (IA32_FEAT_CTL): enable "
			"VT-x "
			"in its setup"};
	return {Verdict::ok, what, "VMX is switched on and locked (IA32_FEAT_CTL)"};
}

} // namespace

// In the kernel it is a time in which the thread is not moved; here the thread is pinned.
class kvmpp::OnCpu
{
public:
	explicit OnCpu(unsigned cpu)
	{
		sched_getaffinity(0, sizeof(before_), &before_);
		cpu_set_t only;
		CPU_ZERO(&only);
		CPU_SET(cpu, &only);
		is_there = sched_setaffinity(0, sizeof(only), &only) == 0;
	}
	OnCpu(const OnCpu &) = delete;
	OnCpu &operator=(const OnCpu &) = delete;
	~OnCpu() { sched_setaffinity(0, sizeof(before_), &before_); }

	bool is_there = false;

private:
	cpu_set_t before_;
};

// What capabilities.cpp wants of the kernel.
int glue_rdmsr_safe(glue_u32 msr, glue_u64 *value)
{
	return pread(msr_file, value, sizeof(*value), msr) == sizeof(*value) ? 0 : -EIO;
}

glue_u64 glue_host_cr4()
{
	// User space cannot read it, and nothing is refused by it.
	return 0;
}

int read_registers(const std::string &root, unsigned cpu, kvmpp::VmxRegisters &registers)
{
	const kvmpp::OnCpu here(cpu);
	if (!here.is_there)
		return errno;
	const std::string path = root + "/dev/cpu/" + std::to_string(cpu) + "/msr";
	msr_file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
	if (msr_file < 0)
		return errno;
	registers = kvmpp::VmxRegisters::read(here);
	close(msr_file);
	return 0;
}

Findings judge_registers(const kvmpp::VmxRegisters &registers)
{
	Findings findings{judge_firmware(registers.feature_control)};
	const std::string what = "VMX features";
	kvmpp::VmxRegisters of_interest = registers;
	// Without EPT and VPID there is no register of their kinds, and nothing more to say.
	if (!registers.ept_vpid)
		of_interest.ept_vpid = ~uint64_t{0};
	unsigned next = 0;
	while (const char *reason = kvmpp::vmx_lacks(of_interest, next))
		findings.push_back({Verdict::no, what, reason});
	if (findings.size() > 1) {
		findings.push_back(
			{Verdict::no, what,
			 "that takes another CPU: Intel's have these since 2010; or, in a "
			 "virtual machine, a host that offers them"});
		return findings;
	}
	const auto seen = std::to_string(next);

	// The rest that the module looks at, with the firmware as it should be.
	kvmpp::VmxRegisters enabled = registers;
	enabled.feature_control =
		kvmpp::feature_control::locked | kvmpp::feature_control::vmx_outside_smx;
	kvmpp::VmxConfig config;
	kvmpp::Refusal refusal;
	if (kvmpp::vmx_configure(enabled, config, refusal))
		findings.push_back(
			{Verdict::ok, what,
			 "EPT, VPID, unrestricted guest: all " + seen + " that are needed"});
	else
		findings.push_back({Verdict::no, what, refusal.reason});
	return findings;
}
