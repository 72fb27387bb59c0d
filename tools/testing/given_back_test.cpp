// SPDX-License-Identifier: GPL-2.0
//
// A CPU that comes back to Linux is the one that left: its registers, its timers, IPIs and hotplug state;
// and NMIs of others while one is away. What user space cannot see, the tests' module cpu_state tells.

#include "dedicated.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
using namespace dedicated;
namespace apic = guest::apic;

using Registers = std::map<std::string, std::string>;

const std::string parameters = "/sys/module/cpu_state/parameters/";

void write(const std::string &path, const std::string &text)
{
	if (const int result = host::write_file(path, text); result)
		expect::fail("\"%s\" to %s: %s", text.c_str(), path.c_str(),
			     std::strerror(-result));
}

void begin_with_module()
{
	begin();
	if (!host::module_loaded("cpu_state"))
		equal("insert cpu_state", host::insert_module("cpu_state"), 0);
}

Registers registers_of(unsigned cpu)
{
	write(parameters + "cpu", std::to_string(cpu));
	std::istringstream text(host::read_file(parameters + "registers"));
	Registers registers;
	std::string name, value;
	while (text >> name >> value)
		registers[name] = value;
	that("a CPU has registers", registers.size() > 30);
	return registers;
}

void expect_alive(unsigned cpu)
{
	write(parameters + "cpu", std::to_string(cpu));
	write(parameters + "alive", "1");
}

void send_nmi(unsigned cpu)
{
	write(parameters + "cpu", std::to_string(cpu));
	write(parameters + "nmi", "1");
}

void expect_same(const char *when, const Registers &found, const Registers &wanted)
{
	equal("registers", found.size(), wanted.size());
	bool same = true;
	for (const auto &[name, value] : wanted) {
		const auto at = found.find(name);
		const std::string now = at == found.end() ? "missing" : at->second;
		if (now != value) {
			expect::note("%s: %s was %s, is %s", when, name.c_str(), value.c_str(),
				     now.c_str());
			same = false;
		}
	}
	that("all registers are as they were", same);
}

std::string hotplug_state(unsigned cpu)
{
	return host::read_file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
			       "/hotplug/state");
}

void run_there(const ApicMachine &m)
{
	ApicMachine::enter(m.vcpu, apic::cpuids);
	m.result(stop) = 1;
	const_cast<Vcpu &>(m.vcpu).run_until_out(0x80, 1);
}

void registers_as_before()
{
	begin_with_module();
	ApicMachine m(apic::cpuids);
	const Registers first = registers_of(last_cpu);
	const std::string state = hotplug_state(last_cpu);

	for (const bool own_apic : {false, true}) {
		dedicate(m.vcpu, last_cpu);
		if (own_apic) {
			// It leaves the APIC's timer running.
			ApicMachine::enter(m.vcpu, apic::ticks_busy);
			m.result(period) = 5'000;
			m.result(wanted) = ~0ull;
			Runner runner(m.vcpu);
			if (passes_interrupts(last_cpu))
				wait_for("ticks", [&] { return m.result(ticks) > 10; });
		} else {
			run_there(m);
		}
		release(m.vcpu);
		expect_same("given back", registers_of(last_cpu), first);
		equal("its hotplug state", hotplug_state(last_cpu) == state, true);
		expect_alive(last_cpu);
	}
}

void expect_same_mtrrs()
{
	const Registers other = registers_of(0);
	for (const auto &[name, value] : registers_of(last_cpu))
		if (name.starts_with("mtrr_") && other.at(name) != value)
			expect::fail("%s is %s, on CPU 0 %s", name.c_str(), value.c_str(),
				     other.at(name).c_str());
}

// What Linux changes on all CPUs that it has while one is away.
void what_changed_meanwhile()
{
	begin_with_module();
	// Write-combining over a hole, which nobody notices.
	const std::string mtrr = "/proc/mtrr", base = "0x80000000";
	if (access(mtrr.c_str(), W_OK))
		ktap::skip("no /proc/mtrr");
	ApicMachine m(apic::cpuids);
	const Registers first = registers_of(last_cpu);

	dedicate(m.vcpu, last_cpu);
	write(mtrr, "base=" + base + " size=0x1000000 type=write-combining\n");
	run_there(m);
	release(m.vcpu);
	expect_same_mtrrs();
	const Registers here = registers_of(last_cpu);
	const bool changed = std::any_of(here.begin(), here.end(), [&](const auto &one) {
		return one.first.starts_with("mtrr_") && first.at(one.first) != one.second;
	});
	that("an MTRR has changed", changed);
	// The line of the one at this base.
	const std::string text = host::read_file(mtrr);
	const size_t at = text.find("base=0x080000000");
	that("/proc/mtrr tells of it", at != std::string::npos);
	const size_t line = text.rfind("reg", at);
	write(mtrr, "disable=" + std::to_string(std::stoul(text.substr(line + 3))) + "\n");
	expect_same_mtrrs();
}

void two_hundred_rounds()
{
	begin_with_module();
	ApicMachine m(apic::cpuids);
	const Registers first = registers_of(last_cpu);
	const std::string state = hotplug_state(last_cpu);

	for (unsigned round = 0; round < 200; round++) {
		dedicate(m.vcpu, last_cpu);
		if (round % 4 == 0)
			run_there(m);
		release(m.vcpu);
		if (round % 20 == 0)
			expect_alive(last_cpu);
	}
	that("online", is_online(last_cpu));
	equal("its hotplug state", hotplug_state(last_cpu) == state, true);
	expect_same("after 200 rounds", registers_of(last_cpu), first);
	std::thread([&] {
		host::pin({last_cpu});
		usleep(20'000);
		equal("a thread runs there", host::current_cpu(), last_cpu);
	}).join();
	equal("offline", host::set_online(last_cpu, false), 0);
	equal("online", host::set_online(last_cpu, true), 0);
	expect_alive(last_cpu);
	expect_same("after offline and online", registers_of(last_cpu), first);
}

// How many lines say that an NMI came to @cpu of which nobody knows.
unsigned unknown_on(host::Log &log, unsigned cpu)
{
	const std::string on = "on CPU " + std::to_string(cpu) + ".";
	unsigned count = 0;
	for (unsigned i = 0; i < 20; i++) {
		for (const std::string &line : log.take("Uhhuh. NMI received for unknown reason"))
			count += line.find(on) != std::string::npos;
		usleep(5'000);
	}
	return count;
}

// An NMI on a CPU of Linux that is nobody's is Linux's to tell of, kicks or no kicks.
void unknown_nmis_of_linux()
{
	begin_with_module();
	ApicMachine m(apic::cpuids);
	host::Log log;

	dedicate(m.vcpu, last_cpu);
	{
		Runner runner(m.vcpu);
		for (const unsigned cpu : host::online_cpus()) {
			for (unsigned i = 1; i <= 20; i++) {
				const unsigned before = runner.interrupted();
				runner.kick();
				wait_for("EINTR", [&] { return runner.interrupted() > before; });
			}
			// Those of before are done with.
			usleep(1'100'000);
			send_nmi(cpu);
			equal("Linux tells of it", unknown_on(log, cpu), 1u);
		}
		equal("NMIs of unknown origin there", number_of(last_cpu, "unknown_nmis"), 0u);
		m.result(stop) = 1;
		runner.join();
	}
	release(m.vcpu);
	// And on one that has come back.
	send_nmi(last_cpu);
	equal("Linux tells of it", unknown_on(log, last_cpu), 1u);
}

// On a dedicated CPU it is counted and told of once, whatever the CPU does, and does it no harm.
void unknown_nmis_there()
{
	begin_with_module();
	host::Log log, ours;

	for (const uint64_t entry : {apic::cpuids, apic::spin, apic::halt_enabled}) {
		ApicMachine m(entry);
		dedicate(m.vcpu, last_cpu);
		// It waits for its vCPU.
		for (unsigned i = 1; i <= 3; i++) {
			send_nmi(last_cpu);
			wait_for("it is counted",
				 [&] { return number_of(last_cpu, "unknown_nmis") == i; });
		}
		Runner runner(m.vcpu);
		wait_for("it runs", [] { return line_of(last_cpu)["state"] == "running"; });
		for (unsigned i = 4; i <= 10; i++) {
			send_nmi(last_cpu);
			wait_for("it is counted",
				 [&] { return number_of(last_cpu, "unknown_nmis") == i; });
			if (entry != apic::halt_enabled)
				wait_for("the guest goes on", [&, before = m.result(rounds)] {
					return m.result(rounds) > before;
				});
		}
		equal("nobody else has heard of it", unknown_on(log, last_cpu), 0u);
		release(m.vcpu);
		const auto lines = ours.take("NMIs of unknown origin");
		equal("lines about it", lines.size(), 1u);
		that("it says how many", lines[0].find(": 10 NMIs") != std::string::npos);
		expect_alive(last_cpu);
	}
}

// Linux asks all its CPUs where they are, by NMI.
void backtraces_of_all()
{
	begin_with_module();
	ApicMachine m(apic::spin);
	host::Log log;

	dedicate(m.vcpu, last_cpu);
	Runner runner(m.vcpu);
	wait_for("it runs", [&] { return m.result(rounds) > 0; });
	for (unsigned round = 0; round < 3; round++) {
		write("/proc/sysrq-trigger", "l");
		std::map<unsigned, unsigned> seen;
		wait_for("each CPU tells", [&] {
			for (const std::string &line : log.take("NMI backtrace for cpu "))
				seen[static_cast<unsigned>(
					std::stoul(line.substr(line.find("for cpu ") + 8)))]++;
			return seen.size() >= host::online_cpus().size();
		});
		equal("CPUs that tell", seen.size(), host::online_cpus().size());
		equal("of the dedicated one", seen[last_cpu], 0u);
	}
	equal("NMIs of unknown origin there", number_of(last_cpu, "unknown_nmis"), 0u);
	wait_for("the guest goes on",
		 [&, before = m.result(rounds)] { return m.result(rounds) > before; });
	m.result(stop) = 1;
	runner.join();
	release(m.vcpu);
	equal("nobody was in doubt", log.take("Uhhuh").size(), 0u);
}

constexpr ktap::Case cases[] = {
	{"registers_as_before", registers_as_before},
	{"what_changed_meanwhile", what_changed_meanwhile},
	{"unknown_nmis_of_linux", unknown_nmis_of_linux, 60},
	{"unknown_nmis_there", unknown_nmis_there, 60},
	{"backtraces_of_all", backtraces_of_all, 60},
	{"two_hundred_rounds", two_hundred_rounds, 120},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
