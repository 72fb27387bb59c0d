// SPDX-License-Identifier: GPL-2.0
//
// Finding a vCPU's file, and what is said when a CPU is not had.
#include "cases.hpp"
#include "failure.hpp"
#include "refusal.hpp"
#include "tree.hpp"
#include "vcpu_file.hpp"

#include <cerrno>

namespace
{

using expect::equal;

// A process that does not exist, so that kcmp() knows none of its files to be the same.
constexpr unsigned vmm = 0x7ffffff0;

void open_files(const Tree &tree, const std::vector<std::pair<unsigned, std::string>> &files)
{
	const std::string process = "/proc/" + std::to_string(vmm);
	tree.file(process + "/comm", "vmm\n");
	tree.link(process + "/fd/0", "/dev/null");
	for (const auto &[descriptor, target] : files)
		tree.link(process + "/fd/" + std::to_string(descriptor), target);
}

std::string failure(const Tree &tree, unsigned vcpu, std::optional<unsigned> vm = {})
{
	return thrown<Failure>([&] { find_vcpu(tree.root(), {vmm, vcpu, vm}); });
}

const std::string who = "vmm (" + std::to_string(vmm) + ")";

void vcpu_is_found()
{
	const Tree tree;
	open_files(tree, {{7, "anon_inode:kvmpp-vm"},
			  {9, "anon_inode:kvmpp-vcpu:0"},
			  {11, "anon_inode:kvmpp-vcpu:1"},
			  {12, "anon_inode:kvm-vcpu:1"},
			  {13, "anon_inode:kvmpp-vcpu:11"}});
	equal("descriptor", find_vcpu(tree.root(), {vmm, 0, {}}), 9u);
	equal("descriptor", find_vcpu(tree.root(), {vmm, 1, {}}), 11u);
	equal("descriptor", find_vcpu(tree.root(), {vmm, 11, 1}), 13u);
	same_text(failure(tree, 2), who + " has no vCPU 2");
	has(failure(tree, 0, 2), who + " has 1 VM with a vCPU 0: say which with --vm 1");
}

// In the order of numbers: 10 comes after 9.
void vcpu_of_several_vms()
{
	const Tree tree;
	open_files(tree, {{10, "anon_inode:kvmpp-vcpu:0"}, {9, "anon_inode:kvmpp-vcpu:0"}});
	same_text(failure(tree, 0), who + " has 2 VMs with a vCPU 0: say which with "
					  "--vm 1 (descriptor 9), --vm 2 (descriptor 10)");
	has(failure(tree, 0, 0), "say which");
	has(failure(tree, 0, 3), "say which");
	equal("descriptor", find_vcpu(tree.root(), {vmm, 0, 1}), 9u);
	equal("descriptor", find_vcpu(tree.root(), {vmm, 0, 2}), 10u);
}

void no_vcpu()
{
	const Tree tree;
	same_text(failure(tree, 0), "there is no process " + std::to_string(vmm));
	open_files(tree, {});
	same_text(failure(tree, 0), who + " has no vCPU of kvmpp's");
	const Tree other;
	open_files(other, {{3, "anon_inode:kvm-vcpu:0"}});
	has(failure(other, 0), "kvm_intel's: start it with /dev/kvmpp");
}

Situation situation()
{
	Situation s;
	s.name = {174, 0, {}};
	s.vcpu = "vCPU 0 of vmm (174)";
	s.cpu = 3;
	s.online = {0, 1, 2, 3};
	s.present = {0, 1, 2, 3};
	return s;
}

void busy_has_a_reason()
{
	Situation s = situation();
	has(why_not_dedicated(s, EBUSY), "CPU 3 cannot be dedicated now: a suspend");
	s.siblings = {1};
	has(why_not_dedicated(s, EBUSY), "Linux uses CPU 1 of the same core");
	s.online = {3};
	has(why_not_dedicated(s, EBUSY), "it is the last one that Linux has");
	s.holder = {.process = 99, .process_name = "qemu", .vm = 2, .vcpu = 1, .state = {}};
	has(why_not_dedicated(s, EBUSY), "is dedicated already, to qemu (99), VM 2, vCPU 1");
	s.has = 2;
	same_text(why_not_dedicated(s, EBUSY),
		  "vCPU 0 of vmm (174) has CPU 2 already: first kvmpp release 174 0");
	s.cpu = 0;
	same_text(why_not_dedicated(s, EBUSY), "CPU 0 cannot be dedicated: Linux needs it");
}

void other_refusals()
{
	Situation s = situation();
	has(why_not_dedicated(s, EPERM), "run it as root");
	has(why_not_dedicated(s, ETIMEDOUT), "Linux has it back");
	has(why_not_dedicated(s, EOPNOTSUPP), "no x2APIC");
	has(why_not_dedicated(s, ENOMEM),
	    "CPU 3 cannot be dedicated to vCPU 0 of vmm (174): Cannot");
	s.cpu = 4;
	same_text(why_not_dedicated(s, EINVAL), "there is no CPU 4: this machine has 0-3");
	has(why_not_released(s, EINVAL), "has no CPU of its own");
	has(why_not_released(s, EBUSY), "under way");
	has(why_not_released(s, EPERM), "run it as root");
}

constexpr ktap::Case cases[] = {
	{"vcpu_is_found", vcpu_is_found},
	{"vcpu_of_several_vms", vcpu_of_several_vms},
	{"no_vcpu", no_vcpu},
	{"busy_has_a_reason", busy_has_a_reason},
	{"other_refusals", other_refusals},
};

} // namespace

const std::span<const ktap::Case> vcpu_cases = cases;
