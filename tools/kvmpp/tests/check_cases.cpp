// SPDX-License-Identifier: GPL-2.0
//
// What is said of a machine, but for what its CPU says itself.
#include "cases.hpp"
#include "check.hpp"
#include "registers.hpp"
#include "tree.hpp"

#include "kunit/capable_registers.hpp"

namespace
{

using expect::equal;
using expect::that;

// "ok kernel: 6.1.0-56-amd64"
std::string text_of(const Findings &findings)
{
	std::string text;
	for (const Finding &one : findings)
		text += (one.verdict == Verdict::ok   ? "ok "
			 : one.verdict == Verdict::no ? "no "
						      : "unknown ") +
			one.what + ": " + one.says + "\n";
	return text;
}

void capable_cpu()
{
	const std::string text = text_of(judge_registers(kvmpp::capable_registers()));
	has(text, "ok firmware: ");
	has(text, "ok VMX features: EPT, VPID, unrestricted guest: all 38 that are needed\n");
}

void firmware()
{
	auto registers = kvmpp::capable_registers();
	registers.feature_control = 1;
	const std::string off = text_of(judge_registers(registers));
	has(off, "no firmware: VMX is switched off by the firmware");
	// One thing at a time: the rest is as it would be.
	has(off, "ok VMX features");
	registers.feature_control = 4;
	has(text_of(judge_registers(registers)), "no firmware: IA32_FEAT_CTL is not locked");
}

void every_missing_feature_has_a_line()
{
	auto registers = kvmpp::capable_registers();
	registers.secondary &= ~(uint64_t{1 << 1 | 1 << 7} << 32);
	const Findings findings = judge_registers(registers);
	equal("lines", findings.size(), 4u);
	same_text(text_of({findings.begin() + 1, findings.begin() + 3}),
		  "no VMX features: no EPT\nno VMX features: no unrestricted guest\n");
	has(findings.back().says, "another CPU");
	registers = kvmpp::capable_registers();
	registers.basic = 0;
	has(text_of(judge_registers(registers)), "no VMX features: VMCS larger than a page");
}

void kernel_and_module()
{
	const Tree tree;
	tree.file("/proc/sys/kernel/osrelease", "6.12.9-amd64\n");
	has(text_of(check_linux(tree.root())),
	    "ok kernel: 6.12.9-amd64\nno module: there is no kvmpp.ko");
	tree.file("/lib/modules/6.12.9-amd64/modules.dep", "updates/kvmpp.ko:\n");
	has(text_of(check_linux(tree.root())), "ok module: it is there: modprobe kvmpp\n");
	tree.file("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
	has(text_of(check_linux(tree.root())),
	    "unknown module: it is there, but this kernel takes signed");
	tree.file("/sys/module/kvmpp/initstate", "live\n");
	const std::string loaded = text_of(check_linux(tree.root()));
	has(loaded, "ok module: kvmpp is loaded\nno " + tree.root() + "/dev/kvmpp: No such file");
	tree.file("/dev/kvmpp", "");
	has(text_of(check_linux(tree.root())), "it is not kvmpp's");
	for (const char *version : {"6.11.2", "6.13.0", "5.10.0", "6.10.1"}) {
		tree.file("/proc/sys/kernel/osrelease", version);
		has(text_of(check_linux(tree.root())), std::string("unknown kernel: ") + version);
	}
}

void kvm_intel_is_there()
{
	const Tree tree;
	has(text_of(check_linux(tree.root())), "ok kvm_intel: it is not loaded");
	tree.file("/sys/module/kvm_intel/initstate", "live\n");
	has(text_of(check_linux(tree.root())), "no kvm_intel: it is loaded and has the crash hook");
	tree.file("/sys/module/kvmpp/parameters/allow_no_crash_hook", "Y\n");
	has(text_of(check_linux(tree.root())),
	    "ok kvm_intel: it is loaded, and allow_no_crash_hook=1");
}

void for_dedicated_cpus()
{
	const Tree tree;
	const std::string cpus = "/sys/devices/system/cpu/";
	const auto text = [&] { return text_of(check_for_dedicated(tree.root())); };
	tree.file(cpus + "present", "0\n");
	tree.file(cpus + "online", "0\n");
	has(text(), "no CPUs: there is one online");
	tree.file(cpus + "present", "0-3\n");
	tree.file(cpus + "online", "0-3\n");
	has(text(), "ok CPUs: 0-3 are online");
	for (const char *line : {"quiet", "no_ipi_broadcast=0", "xno_ipi_broadcast=1"}) {
		tree.file("/proc/cmdline", line);
		has(text(), "no no_ipi_broadcast: with four CPUs");
	}
	tree.file("/proc/cmdline", "quiet no_ipi_broadcast=1\n");
	has(text(), "ok no_ipi_broadcast: it is on");
	tree.file("/proc/cmdline", "quiet\n");
	tree.file(cpus + "present", "0-2\n");
	has(text(), "ok no_ipi_broadcast: with fewer");
	has(text(), "ok SMT: no two");
	for (const char *cpu : {"0", "2"})
		tree.file(cpus + "cpu" + cpu + "/topology/thread_siblings_list", "0,2\n");
	for (const char *cpu : {"1", "3"})
		tree.file(cpus + "cpu" + cpu + "/topology/thread_siblings_list", "1,3\n");
	has(text(), "no SMT: these share a core: 0,2; 1,3; take offline");
	tree.file("/sys/module/kvmpp/parameters/allow_smt", "Y\n");
	has(text(), "ok SMT: allow_smt=1");
}

void sum_of_it()
{
	const Finding ok{Verdict::ok, "a", "fine"}, no{Verdict::no, "bcd", "not"},
		unknown{Verdict::unknown, "e", "?"};
	std::vector<std::string> lines;
	that("can", report({ok}, {no}, lines));
	same_lines(lines, {"ok  a    fine", "To dedicate CPUs to vCPUs:", "no  bcd  not",
			   "kvmpp can run on this machine."});
	that("cannot", !report({ok, no}, {ok}, lines));
	same_text(lines.back(), "kvmpp cannot run on this machine as it is.");
	that("can, perhaps", report({ok, unknown}, {ok}, lines));
	has(lines.back(), "as far as is known");
}

constexpr ktap::Case cases[] = {
	{"capable_cpu", capable_cpu},
	{"firmware", firmware},
	{"every_missing_feature_has_a_line", every_missing_feature_has_a_line},
	{"kernel_and_module", kernel_and_module},
	{"kvm_intel_is_there", kvm_intel_is_there},
	{"for_dedicated_cpus", for_dedicated_cpus},
	{"sum_of_it", sum_of_it},
};

} // namespace

const std::span<const ktap::Case> check_cases = cases;
