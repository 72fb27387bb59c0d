// SPDX-License-Identifier: GPL-2.0
//
// Directed yield: more vCPUs than CPUs contend for a ticket lock in the guest. Whoever has the lock, or
// the next ticket, may be waiting for a CPU, which the others spend on spinning; PAUSE-loop exiting has
// them give it up.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;

constexpr unsigned vcpu_count = 4, cpu_count = 2;

struct TicketLock {
	uint32_t next, served;
	uint64_t stop;
	uint64_t rounds;
};

// The first two CPUs, and nothing else to do on them.
std::vector<unsigned> two_cpus()
{
	auto cpus = host::online_cpus();
	if (cpus.size() < cpu_count)
		ktap::skip("one CPU only");
	cpus.resize(cpu_count);
	return cpus;
}

void need_pause_loop_exiting()
{
	const std::string info = host::read_file("/proc/cpuinfo");
	const size_t flags = info.find("vmx flags");
	if (flags == std::string::npos ||
	    info.substr(flags, info.find('\n', flags) - flags).find(" ple") == std::string::npos)
		ktap::skip("this CPU has no PAUSE-loop exiting");
}

// How many rounds all together make while the caller is busy.
template <typename Busy> uint64_t contend(Busy busy)
{
	const auto cpus = two_cpus();
	LongMachine machine(lm::contend);
	std::deque<Vcpu> others;
	std::vector<Vcpu *> vcpus{&machine.vcpu};
	for (unsigned id = 1; id < vcpu_count; id++) {
		vcpus.push_back(&others.emplace_back(machine.vm, id));
		vcpus.back()->enter_long(lm::contend);
	}
	auto &lock = machine.at<TicketLock>(GUEST_SCRATCH);
	std::array<uint64_t, vcpu_count> rounds{};
	std::vector<std::thread> threads;
	for (unsigned id = 0; id < vcpu_count; id++)
		threads.emplace_back([&, id] {
			host::pin(cpus);
			kvm_regs regs = vcpus[id]->regs();
			regs.rbx = GUEST_SCRATCH;
			vcpus[id]->set_regs(regs);
			vcpus[id]->run_until(KVM_EXIT_HLT);
			rounds[id] = vcpus[id]->regs().rax;
		});
	busy(machine.vm, cpus);
	__atomic_store_n(&lock.stop, 1, __ATOMIC_RELEASE);
	for (std::thread &thread : threads)
		thread.join();
	uint64_t sum = 0;
	for (const uint64_t each : rounds)
		sum += each;
	equal("rounds inside the lock", lock.rounds, sum);
	return sum;
}

// In so many milliseconds of the host's clock.
uint64_t contend_for(unsigned milliseconds)
{
	return contend([&](Vm &, auto &) { usleep(milliseconds * 1000); });
}

void lock_holds()
{
	const uint64_t rounds = contend_for(100);
	that("the lock goes round", rounds >= vcpu_count);
	expect::note("%llu rounds", static_cast<unsigned long long>(rounds));
}

// One more vCPU, which never spins but is made to wait, comes and goes: who yields finds it, or has just
// found it.
void sibling_comes_and_goes()
{
	if (!Device::is_kvmpp())
		ktap::skip("KVM gives an id once in a VM's life");
	need_pause_loop_exiting();
	const uint64_t before = host::stats()["yields_done"];
	const uint64_t rounds = contend([](Vm &vm, const std::vector<unsigned> &cpus) {
		host::pin(cpus);
		for (unsigned i = 0; i < 100; i++) {
			Vcpu vcpu(vm, 9);
			vcpu.enter_long(lm::count_locked);
			kvm_regs regs = vcpu.regs();
			regs.rbx = GUEST_SCRATCH + 0x1000;
			regs.rcx = 20'000;
			vcpu.set_regs(regs);
			vcpu.run_until(KVM_EXIT_HLT);
		}
	});
	that("the lock goes round", rounds >= vcpu_count);
	that("vCPUs yield", host::stats()["yields_done"] > before);
}

const char *module_name()
{
	return Device::is_kvmpp() ? "kvmpp" : "kvm_intel";
}

void insert_anew(const std::vector<std::string> &parameters)
{
	// A file's release may come a moment after close().
	int result = -EWOULDBLOCK;
	for (unsigned i = 0; i < 50 && result == -EWOULDBLOCK; i++) {
		result = host::remove_module(module_name());
		if (result == -EWOULDBLOCK)
			usleep(20'000);
	}
	equal("rmmod", result, 0);
	equal("insert", host::insert_module(module_name(), parameters), 0);
}

// Five measurements, from the least to the most.
std::array<uint64_t, 5> measure(const char *how)
{
	std::array<uint64_t, 5> rounds;
	for (uint64_t &each : rounds)
		each = contend_for(600);
	std::sort(rounds.begin(), rounds.end());
	expect::note("%s: %llu to %llu rounds, median %llu", how,
		     static_cast<unsigned long long>(rounds.front()),
		     static_cast<unsigned long long>(rounds.back()),
		     static_cast<unsigned long long>(rounds[2]));
	return rounds;
}

void more_rounds_with_directed_yield()
{
	two_cpus();
	need_pause_loop_exiting();
	insert_anew({"ple_gap=0"});
	const uint64_t without = measure("ple_gap=0")[2];
	const uint64_t exits_without = Device::is_kvmpp() ? host::stats()["exit_pause"] : 0;
	insert_anew({});
	const uint64_t with = measure("PAUSE-loop exiting")[2];
	equal("PAUSE exits with ple_gap=0", exits_without, 0u);
	if (Device::is_kvmpp()) {
		auto stats = host::stats();
		expect::note("%llu PAUSE exits, %llu yields tried, %llu done",
			     static_cast<unsigned long long>(stats["exit_pause"]),
			     static_cast<unsigned long long>(stats["yields_tried"]),
			     static_cast<unsigned long long>(stats["yields_done"]));
		that("vCPUs yield", stats["yields_done"] > 0);
		that("no more yields than exits", stats["yields_done"] <= stats["exit_pause"]);
	}
	expect::note("%llu.%02llu times the rounds",
		     static_cast<unsigned long long>(with / without),
		     static_cast<unsigned long long>(with * 100 / without % 100));
	that("one and a half times the rounds", with * 2 >= without * 3);
}

constexpr ktap::Case cases[] = {
	{"lock_holds", lock_holds},
	{"sibling_comes_and_goes", sibling_comes_and_goes, 120},
	{"more_rounds_with_directed_yield", more_rounds_with_directed_yield, 120},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
