// SPDX-License-Identifier: GPL-2.0
//
// debugfs's files, and the table that is made of them.
#include "cases.hpp"
#include "failure.hpp"
#include "files.hpp"
#include "status.hpp"
#include "tree.hpp"

#include <filesystem>

namespace
{

using expect::equal;
using expect::that;

constexpr const char *dedicated_line =
	"cpu 3 process 174 vm 1 vcpu 0 state running passthrough yes stay 12 online 3 user 4 "
	"kicks 5 nmis 5 unknown_nmis 0 strays 0\n";

void cpu_lists()
{
	for (const char *text : {"", "0", "0-3", "1,3-5,8"})
		same_text(cpu_list(parse_cpu_list(text)), text);
	equal("CPUs", parse_cpu_list("0-2,5").size(), 4u);
}

void snapshot_is_read()
{
	const Tree tree;
	tree.machine();
	tree.file("/sys/kernel/debug/kvmpp/dedicated", dedicated_line);
	tree.file("/proc/174/comm", "vmm\033[2J\n");
	const Snapshot s = take_snapshot(tree.root());
	equal("CPUs", s.cpus.size(), 4u);
	const Cpu &first = s.cpus.at(0), &third = s.cpus.at(2), &last = s.cpus.at(3);
	that("CPU 0 is online", first.online);
	that("CPU 0 is in VMX operation", first.vmx == true);
	equal("its VMCSs", *first.vmcss, 1u);
	equal("its exits", first.exits.at("io"), 4711u);
	equal("its exits without a name", first.exits.at("reason_77"), 2u);
	that("CPU 2 is not in VMX operation", third.vmx == false);
	that("CPU 3 is offline", !last.online);
	that("nobody has asked it", !last.vmx && !last.vmcss);
	equal("its exits", last.exits.at("hlt"), 5u);
	same_text(owner_of(*last.dedicated), "vmm?[2J (174), VM 1, vCPU 0");
	same_text(last.dedicated->state, "running");
	that("passed through", last.dedicated->passthrough);
	equal("kicks", last.dedicated->kicks, 5u);
}

void snapshot_that_cannot_be_read()
{
	const auto failure = [](const Tree &tree) {
		return thrown<Failure>([&] { take_snapshot(tree.root()); });
	};
	const std::string debugfs = "/sys/kernel/debug/kvmpp/";
	{
		const Tree tree;
		same_text(failure(tree), "the module is not loaded: modprobe kvmpp");
		tree.file("/sys/module/kvmpp/initstate", "live\n");
		same_text(failure(tree),
			  "debugfs is not mounted: mount -t debugfs none /sys/kernel/debug");
		tree.file(debugfs + "cpus", "");
		has(failure(tree), "older than this command");
		tree.file(debugfs + "exits", "");
		take_snapshot(tree.root());
	}
	for (const auto &[name, line] : {std::pair("cpus", "cpu x"),
					 {"exits", "cpu 0 io"},
					 {"dedicated", "cpu 3 process 174 state running"}}) {
		const Tree tree;
		tree.machine();
		tree.file(debugfs + name, std::string(line) + "\n");
		same_text(failure(tree), "a line of debugfs's " + std::string(name) +
						 " is not one this command knows: " + line);
	}
}

Snapshot example(double at)
{
	Snapshot s;
	s.when += std::chrono::milliseconds(static_cast<long>(at * 1000));
	s.cpus[0] = {
		.online = true, .vmx = true, .vmcss = 2, .dedicated = {}, .exits = {{"io", 100}}};
	s.cpus[1] = {.online = true, .vmx = false, .vmcss = 0, .dedicated = {}, .exits = {}};
	return s;
}

void table_without_dedicated_cpus()
{
	const Snapshot before = example(0);
	Snapshot now = example(2);
	now.cpus[0].exits = {{"io", 2100}, {"hlt", 4000}, {"cpuid", 1}, {"cr", 20}, {"mov_dr", 4}};
	same_lines(status_lines(&before, now),
		   {"2 CPUs: 2 online, 1 in VMX operation, 0 dedicated; 3012 exits a second, over "
		    "2.0 s",
		    "", "CPU  LINUX   VMX  VMCSS  EXITS/S  OF THESE",
		    "  0  online  on       2     3012  hlt 2000, io 1000, cr 10, mov_dr 2, 1 more",
		    "  1  online  off      0        0"});
}

void table_before_there_are_rates()
{
	same_lines(status_lines(nullptr, example(0)),
		   {"2 CPUs: 2 online, 1 in VMX operation, 0 dedicated; exits are being counted",
		    "", "CPU  LINUX   VMX  VMCSS  EXITS/S  OF THESE",
		    "  0  online  on       2        -", "  1  online  off      0        -"});
}

void table_with_dedicated_cpus()
{
	const Snapshot before = example(0);
	Snapshot now = example(10);
	now.cpus[0].exits["io"] = 101;
	now.cpus[1] = {};
	now.cpus[1].dedicated = {.process = 174,
				 .process_name = "vmm",
				 .vm = 1,
				 .vcpu = 0,
				 .state = "running",
				 .passthrough = true,
				 .kicks = 5};
	now.cpus[2].dedicated = now.cpus[1].dedicated;
	now.cpus[2].dedicated->state = "dead";
	now.cpus[2].dedicated->passthrough = false;
	now.cpus[2].dedicated->unknown_nmis = 1;
	now.cpus[2].dedicated->strays = 2;
	same_lines(status_lines(&before, now),
		   {"3 CPUs: 1 online, 2 in VMX operation, 2 dedicated; <1 exits a second, over "
		    "10.0 s",
		    "",
		    "CPU  LINUX    VMX  VMCSS  DEDICATED TO             STATE    INTERRUPTS      "
		    "KICKS  "
		    "EXITS/S  OF THESE",
		    "  0  online   on       2  -                        -        -                "
		    "   -  "
		    "     <1  io <1",
		    "  1  offline  on       -  vmm (174), VM 1, vCPU 0  running  passed through    "
		    "  5  "
		    "      0",
		    "  2  offline  -        -  vmm (174), VM 1, vCPU 0  dead     exit              "
		    "  5  "
		    "      0",
		    "", "CPU 2: it has died; the kernel's log says of what",
		    "CPU 2: 1 NMI that nobody knows", "CPU 2: 2 interrupts of the host's"});
}

// As when the module went and came back between two looks.
void counters_that_begin_anew()
{
	const Snapshot before = example(0);
	Snapshot now = example(1);
	now.cpus[0].exits["io"] = 40;
	has(status_lines(&before, now)[3], " 40  io 40");
}

constexpr ktap::Case cases[] = {
	{"cpu_lists", cpu_lists},
	{"snapshot_is_read", snapshot_is_read},
	{"snapshot_that_cannot_be_read", snapshot_that_cannot_be_read},
	{"table_without_dedicated_cpus", table_without_dedicated_cpus},
	{"table_before_there_are_rates", table_before_there_are_rates},
	{"table_with_dedicated_cpus", table_with_dedicated_cpus},
	{"counters_that_begin_anew", counters_that_begin_anew},
};

} // namespace

const std::span<const ktap::Case> status_cases = cases;
