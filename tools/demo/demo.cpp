// SPDX-License-Identifier: GPL-2.0
//
// kvmpp's main job, step by step, on a host of two or more CPUs. Act one: a guest runs, and the CPU
// that holds its VMCS goes away under it and comes back. Act two is in dedicated_act.cpp. Each step prints what was observed, in the
// module's own debugfs files and in what the guest prints. The guest's every line is checked.

#include "expect.hpp"
#include "host.hpp"
#include "primes.h"
#include "primes.hpp"
#include "steps.hpp"
#include "vm.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <string>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using namespace steps;

// ---- The guest

struct Primes {
	unsigned count = 0;
	unsigned long sum = 0;
};

constexpr Primes primes_below(unsigned limit)
{
	Primes primes;
	for (unsigned n = 2; n < limit; n++) {
		bool prime = true;
		for (unsigned d = 2; prime && d * d <= n; d++)
			prime = n % d != 0;
		if (prime) {
			primes.count++;
			primes.sum += n;
		}
	}
	return primes;
}

// The VMM's thread for the only vCPU: runs it, and checks each line the guest prints.
class Guest
{
public:
	Guest() : expected_(primes_below(LIMIT)), machine_(guest::primes::image())
	{
		machine_.prepare_long();
		machine_.vcpu.enter_long(guest::primes::start);
	}

	void start(unsigned cpu)
	{
		thread_ = std::thread([this, cpu] {
			host::pin({cpu});
			tid_ = static_cast<int>(syscall(SYS_gettid));
			loop();
		});
		wait_for("the guest's thread starts", [this] { return tid_ != 0; });
	}

	// Lets the guest print its last line and halt.
	void stop()
	{
		machine_.at<uint32_t>(STOP) = 1;
		thread_.join();
	}

	void allow(const std::vector<unsigned> &cpus) { host::pin(cpus, tid_); }

	// While held, the guest's next line is not answered: the vCPU is not running, its VMCS
	// stays where it is.
	void hold()
	{
		hold_ = true;
		wait_for("the guest prints a line", [this] { return held_.load(); });
	}

	void let_go() { hold_ = false; }

	// Waits for two lines: the second was computed from now on.
	void wait_for_lines()
	{
		const unsigned lines = lines_ + 2;
		wait_for("the guest prints another line", [&] { return lines_ >= lines; });
	}

	unsigned lines() const { return lines_; }
	// Where the thread was at the last line.
	unsigned cpu() const { return cpu_; }
	const Primes &expected() const { return expected_; }

private:
	template <typename Condition> void wait_for(const char *what, Condition condition)
	{
		for (unsigned i = 0; i < 3000; i++) {
			if (condition())
				return;
			usleep(10'000);
		}
		expect::fail("not within 30 s: %s", what);
	}

	void loop()
	{
		std::string line;
		for (;;) {
			const long result = machine_.vcpu.try_run();
			if (result == -EINTR)
				continue;
			equal("KVM_RUN", result, 0);
			const kvm_run &state = machine_.vcpu.state();
			if (state.exit_reason == KVM_EXIT_HLT)
				return;
			if (state.exit_reason != KVM_EXIT_IO || state.io.port != PORT ||
			    state.io.direction != KVM_EXIT_IO_OUT)
				expect::fail("the guest ended with %s at %#llx",
					     exit_name(state.exit_reason),
					     machine_.vcpu.regs().rip);
			const char c = reinterpret_cast<const char *>(&state)[state.io.data_offset];
			if (c != '\n') {
				line += c;
				continue;
			}
			check(line);
			line.clear();
			while (hold_) {
				held_ = true;
				usleep(1'000);
			}
			held_ = false;
		}
	}

	void check(const std::string &line)
	{
		char wanted[100];
		std::snprintf(wanted, sizeof(wanted), "round %u: %u primes below %u, sum %lu",
			      lines_ + 1, expected_.count, LIMIT, expected_.sum);
		if (line != wanted)
			expect::fail("the guest prints \"%s\", expected \"%s\"", line.c_str(),
				     wanted);
		cpu_ = host::current_cpu();
		lines_++;
	}

	const Primes expected_;
	Machine machine_;
	std::atomic<int> tid_ = 0;
	std::atomic<unsigned> lines_ = 0, cpu_ = 0;
	std::atomic<bool> hold_ = false, held_ = false;
	std::thread thread_;
};

// ---- What the module says

unsigned vmcss_on(unsigned cpu)
{
	const auto states = host::cpu_states();
	const auto state = states.find(cpu);
	that("the CPU is listed in debugfs", state != states.end());
	return state->second.loaded;
}

uint64_t stat(const char *name)
{
	return host::stats()[name];
}

void set_online(unsigned cpu, bool online)
{
	equal(online ? "online" : "offline", host::set_online(cpu, online), 0);
}

void print_table(const std::map<std::string, uint64_t> &stats)
{
	const auto value = [&](const char *name) -> unsigned long long {
		const auto found = stats.find(name);
		return found == stats.end() ? 0 : found->second;
	};
	std::printf("\n  VM exits%25llu\n", value("exits_total"));
	for (const auto &[name, count] : stats)
		if (name.starts_with("exit_"))
			std::printf("    %-22s%7llu\n", name.c_str() + 5,
				    (unsigned long long)count);
	std::printf("  VMCS cleared\n");
	std::printf("    %-22s%7llu\n", "it moves to a CPU", value("vmclears_move"));
	std::printf("    %-22s%7llu\n", "its CPU goes offline", value("vmclears_offline"));
	std::printf("    %-22s%7llu\n", "its vCPU is freed", value("vmclears_free"));
	std::printf("  CPUs switched\n");
	std::printf("    %-22s%7llu\n", "VMXON", value("vmx_enables"));
	std::printf("    %-22s%7llu\n\n", "VMXOFF", value("vmx_disables"));
}

} // namespace

void hotplug_act()
{
	const std::vector<unsigned> cpus = host::online_cpus();
	const std::vector<unsigned> others(cpus.begin(), cpus.end() - 1);

	begin("module in");
	that("there are two CPUs", cpus.size() >= 2);
	const unsigned victim = cpus.back();
	offline_cpu = victim;
	module_in();
	// The victim is the guest's alone, so that the scheduler has no reason to move it.
	host::pin(others);
	seen("kvmpp loaded, VMX off (CPUs %s)", list(cpus).c_str());

	begin("VM made");
	auto guest = std::make_unique<Guest>();
	seen("VMX on (CPUs %s)", list(check_vmx(true)).c_str());

	begin("guest runs");
	guest->start(victim);
	guest->wait_for_lines();
	equal("the guest's CPU", guest->cpu(), victim);
	equal("VMCSs on its CPU", vmcss_on(victim), 1u);
	seen("on CPU %u, in long mode; it prints \"%u primes below %u, sum %lu\"", guest->cpu(),
	     guest->expected().count, LIMIT, guest->expected().sum);

	begin("CPU offline under the running guest");
	const uint64_t cleared = stat("vmclears_move") + stat("vmclears_offline");
	guest->allow(cpus);
	set_online(victim, false);
	check_vmx(true);
	guest->wait_for_lines();
	that("the guest is elsewhere", guest->cpu() != victim);
	// Whichever came first: the guest's thread on its new CPU, or the old one's last moments.
	that("vmclears_move or vmclears_offline rises",
	     stat("vmclears_move") + stat("vmclears_offline") > cleared);
	seen("CPU %u is off, its VMCS was cleared, the guest goes on on CPU %u", victim,
	     guest->cpu());

	begin("CPU back");
	// Not before step 6.
	guest->allow(others);
	set_online(victim, true);
	seen("VMX on (CPUs %s)", list(check_vmx(true)).c_str());

	begin("guest moves there");
	const uint64_t moves = stat("vmclears_move");
	guest->allow({victim});
	guest->wait_for_lines();
	equal("the guest's CPU", guest->cpu(), victim);
	equal("VMCSs on its CPU", vmcss_on(victim), 1u);
	that("vmclears_move rises", stat("vmclears_move") > moves);
	seen("on CPU %u, VMCS cleared on the CPU it left", guest->cpu());

	begin("CPU offline with the VMCS on it");
	guest->hold();
	equal("VMCSs on the CPU", vmcss_on(victim), 1u);
	guest->allow(others);
	const uint64_t swept = stat("vmclears_offline");
	set_online(victim, false);
	equal("vmclears_offline", stat("vmclears_offline"), swept + 1);
	guest->let_go();
	guest->wait_for_lines();
	that("the guest is elsewhere", guest->cpu() != victim);
	seen("held in user space, VMCS swept from CPU %u, goes on on CPU %u", victim, guest->cpu());

	begin("CPU back, guest there again");
	set_online(victim, true);
	check_vmx(true);
	guest->allow({victim});
	guest->wait_for_lines();
	equal("the guest's CPU", guest->cpu(), victim);
	seen("on CPU %u", guest->cpu());

	begin("VM closed");
	guest->stop();
	const unsigned lines = guest->lines();
	guest.reset();
	const auto stats = host::stats();
	check_vmx(false);
	seen("%u lines from the guest, all right; VMCS freed, VMX off (CPUs %s)", lines,
	     list(cpus).c_str());

	begin("module out");
	module_out();
	seen("kvmpp and /dev/kvmpp are gone");

	print_table(stats);
	host::pin(cpus);
	offline_cpu.reset();
}

int main()
{
	expect::set_failure_handler(failed);
	hotplug_act();
	dedicated_act();
	std::printf("demo: ok\n");
	return 0;
}
