// SPDX-License-Identifier: GPL-2.0
//
// CPUs come and go, threads move, VMs and vCPUs are made, closed and killed, guests get CPUs of their own
// and lose them, all at once and at random, while guests on every CPU keep accounts of their state.
//
// storm_test [rounds=N] [minutes=N] [seed=N] [dedicate=0]: N rounds, or for N minutes of the machine's
// clock. Each round takes a CPU offline or brings one back. Who decides has a sequence of random
// numbers of its own, which the seed repeats; how they fall in with each other is not repeated.

#include "dedicated.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "steady.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <sched.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using Clock = std::chrono::steady_clock;
namespace lm = guest::longmode;
namespace real = guest::real;

struct Options {
	unsigned long rounds = 60, minutes = 0, seed = 1, dedicate = 1;
} options;

class Random
{
public:
	explicit Random(unsigned long stream) : engine_(options.seed * 1'000'003 + stream) {}

	unsigned below(unsigned limit) { return static_cast<unsigned>(engine_() % limit); }
	bool one_in(unsigned n) { return below(n) == 0; }

private:
	std::mt19937_64 engine_;
};

// Does something over and over in a thread of its own.
class Actor
{
public:
	Actor(const char *name, unsigned long stream, void (*act)(Random &))
		: name_(name), thread_([this, stream, act] {
			  Random random(stream);
			  while (!stop_) {
				  act(random);
				  done_++;
			  }
		  })
	{
	}

	void finish()
	{
		stop_ = true;
		thread_.join();
		expect::note("%s: %u times", name_, done_.load());
		that("an actor gets its turn", done_ > 0);
	}

private:
	const char *name_;
	std::atomic<bool> stop_ = false;
	std::atomic<unsigned> done_ = 0;
	std::thread thread_;
};

void pause_up_to(Random &random, unsigned milliseconds)
{
	usleep(random.below(milliseconds * 1'000));
}

void vm_comes_and_goes(Random &random)
{
	{
		RealMachine machine(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		pause_up_to(random, 5);
	}
	pause_up_to(random, 20);
}

// vCPUs of a VM one of whose vCPUs is always there. KVM never gives an id of a VM out again.
void vcpus_come_and_go(Random &random)
{
	RealMachine machine(real::halt);
	std::vector<std::unique_ptr<Vcpu>> others(4);
	unsigned long next_id = 1;
	for (unsigned i = 0; i < 40; i++) {
		const unsigned which = random.below(static_cast<unsigned>(others.size()));
		if (others[which]) {
			others[which].reset();
		} else {
			others[which] = std::make_unique<Vcpu>(
				machine.vm, Device::is_kvmpp() ? 1 + which : next_id++);
			others[which]->enter_real(real::halt);
			others[which]->run_until(KVM_EXIT_HLT);
		}
		machine.vcpu.enter_real(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		if (random.one_in(10)) {
			// Makes all guests' memory copy-on-write, and holds every vCPU for a while.
			const pid_t child = fork();
			if (child == 0)
				_exit(0);
			ktap::child_ok(child);
		}
		pause_up_to(random, 10);
	}
}

// Any CPU but the first.
unsigned any_cpu(Random &random, const std::vector<unsigned> &cpus)
{
	return cpus[1 + random.below(static_cast<unsigned>(cpus.size()) - 1)];
}

bool dedicates()
{
	return options.dedicate && Device::is_kvmpp();
}

std::vector<unsigned> all_cpus;
std::atomic<unsigned> cpus_taken, cpus_refused;

// It has one already, or somebody else, or it goes at this moment.
void try_to_take(const Vcpu &vcpu, Random &random)
{
	const long result = dedicated::set_cpu(vcpu, static_cast<int>(any_cpu(random, all_cpus)));
	if (result)
		equal("SET's error", result, -EBUSY);
	(result ? cpus_refused : cpus_taken)++;
}

// One that keeps accounts gets a CPU, runs there, and goes on elsewhere.
void cpu_is_taken_and_given_back(Random &random)
{
	SteadyGuest guest;
	for (unsigned i = 0; i < 4; i++) {
		try_to_take(guest.vcpu(), random);
		guest.check_progress(1);
		pause_up_to(random, 30);
		const long result = dedicated::set_cpu(guest.vcpu(), -1);
		if (result)
			equal("release's error", result, -EINVAL);
		guest.check_progress(1);
	}
	guest.finish();
}

// A process with a VM and two spinning vCPUs dies at any moment, its first included.
void vmm_is_killed(Random &random)
{
	const bool dedicate = dedicates() && random.one_in(2);
	const pid_t child = fork();
	that("fork", child >= 0);
	if (child == 0) {
		RealMachine machine(real::spin);
		if (dedicate)
			try_to_take(machine.vcpu, random);
		Vcpu second(machine.vm, 1);
		second.enter_real(real::spin);
		std::thread other([&] { second.try_run(); });
		machine.vcpu.try_run();
		_exit(1);
	}
	pause_up_to(random, 100);
	kill(child, SIGKILL);
	int status = 0;
	that("waitpid", waitpid(child, &status, 0) == child);
	that("the VMM ran until it was killed", WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	pause_up_to(random, 200);
}

// Kills VMMs, in a process that has no VM: what it forks holds no file of a vCPU that the storm closes.
class Killer
{
public:
	Killer()
	{
		void *page = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		that("memory can be mapped", page != MAP_FAILED);
		shared_ = new (page) Shared;
		pid_ = fork();
		that("fork", pid_ >= 0);
		if (pid_ == 0) {
			Random random(3);
			while (!shared_->stop) {
				vmm_is_killed(random);
				shared_->done++;
			}
			_exit(0);
		}
	}

	void finish()
	{
		shared_->stop = true;
		ktap::child_ok(pid_);
		expect::note("VMMs killed: %u times", shared_->done.load());
		that("VMMs were killed", shared_->done > 0);
	}

private:
	struct Shared {
		std::atomic<bool> stop = false;
		std::atomic<unsigned> done = 0;
	};
	Shared *shared_;
	pid_t pid_;
};

// The CPUs but the first, in any order.
class Hotplug
{
public:
	explicit Hotplug(const std::vector<unsigned> &cpus) : online_(cpus.back() + 1)
	{
		for (const unsigned cpu : cpus)
			online_[cpu] = true;
		for (const unsigned cpu : cpus)
			if (cpu != cpus.front())
				movable_.push_back(cpu);
	}

	void turn(unsigned cpu)
	{
		const bool online = !online_[cpu];
		const int result = host::set_online(cpu, online);
		// It may be dedicated, or come back from there, at any time.
		if (result == -EBUSY && dedicates()) {
			online_[cpu] = dedicated::is_online(cpu);
			refused_++;
			return;
		}
		if (result)
			expect::fail("CPU %u does not go %s: %s", cpu,
				     online ? "online" : "offline", std::strerror(-result));
		online_[cpu] = online;
		turns_++;
	}
	unsigned any(Random &random) const
	{
		return movable_[random.below(static_cast<unsigned>(movable_.size()))];
	}
	bool is_online(unsigned cpu) const { return online_[cpu]; }
	// When nobody has a CPU any more.
	void all_online()
	{
		for (const unsigned cpu : movable_) {
			online_[cpu] = dedicated::is_online(cpu);
			if (!online_[cpu])
				turn(cpu);
			that("the CPU is online", dedicated::is_online(cpu));
		}
	}
	unsigned turns() const { return turns_; }
	unsigned refused() const { return refused_; }

private:
	std::vector<bool> online_;
	std::vector<unsigned> movable_;
	unsigned turns_ = 0, refused_ = 0;
};

// To one CPU, or free again. A CPU that is offline is no place: then the thread stays as it is.
void move(int tid, const std::vector<unsigned> &cpus, Random &random)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	if (random.one_in(4))
		for (const unsigned cpu : cpus)
			CPU_SET(cpu, &set);
	else
		CPU_SET(cpus[random.below(static_cast<unsigned>(cpus.size()))], &set);
	if (sched_setaffinity(tid, sizeof(set), &set) != 0)
		equal("sched_setaffinity's error", errno, EINVAL);
}

void rage(const std::vector<unsigned> &cpus)
{
	const auto start = Clock::now();

	Killer killer;
	Random random(0);
	Hotplug hotplug(cpus);
	std::vector<std::unique_ptr<SteadyGuest>> guests;
	for (size_t i = 0; i < cpus.size(); i++)
		guests.push_back(std::make_unique<SteadyGuest>());
	LongMachine idle(lm::peek);
	idle.at<uint64_t>(GUEST_SCRATCH) = 0x1234;
	Actor vms("VMs made and closed", 1, vm_comes_and_goes);
	Actor vcpus("40 vCPUs made or closed", 2, vcpus_come_and_go);

	std::optional<Actor> dedicator;
	if (dedicates())
		dedicator.emplace("CPUs taken and given back 4 times", 4,
				  cpu_is_taken_and_given_back);

	const auto over = [&](unsigned long round) {
		return options.minutes
			       ? Clock::now() - start >= std::chrono::minutes(options.minutes)
			       : round >= options.rounds;
	};
	for (unsigned long round = 0; !over(round); round++) {
		for (unsigned i = 0; i < 3; i++)
			move(guests[random.below(static_cast<unsigned>(guests.size()))]->tid(),
			     cpus, random);
		const unsigned cpu = hotplug.any(random);
		if (hotplug.is_online(cpu) && !dedicates() && random.one_in(2)) {
			// Its VMCS stays behind on a CPU that is about to go.
			host::pin({cpu});
			call(idle, lm::peek, 0, GUEST_SCRATCH);
			host::pin(cpus);
			equal("what an idle vCPU reads", idle.vcpu.regs().rax, 0x1234u);
		}
		hotplug.turn(cpu);
		pause_up_to(random, 5);
		if (round % 16 == 15)
			for (const auto &guest : guests)
				guest->check_progress();
	}

	for (const auto &guest : guests)
		guest->check_progress();
	vms.finish();
	vcpus.finish();
	killer.finish();
	if (dedicator) {
		dedicator->finish();
		expect::note("of the storm's own SETs %u took a CPU, %u found it busy",
			     cpus_taken.load(), cpus_refused.load());
		that("a CPU has been taken", cpus_taken > 0);
		dedicated::wait_for("no CPU is anybody's", [] {
			return host::read_file("/sys/kernel/debug/kvmpp/dedicated").empty();
		});
	}
	hotplug.all_online();
	uint64_t rounds = 0;
	for (const auto &guest : guests) {
		guest->check_progress();
		guest->finish();
		rounds += guest->rounds();
	}
	guests.clear();
	const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
	expect::note("%u CPUs off or on, %u refused, %llu rounds of the guests, %.1f s",
		     hotplug.turns(), hotplug.refused(), (unsigned long long)rounds, seconds);
}

void storm()
{
	const std::vector<unsigned> cpus = host::online_cpus();
	if (cpus.size() < 2)
		ktap::skip("one CPU only");
	expect::note("seed=%lu, %zu CPUs", options.seed, cpus.size());
	all_cpus = cpus;
	if (!Device::is_kvmpp()) {
		rage(cpus);
		return;
	}
	auto before = host::stats();
	rage(cpus);
	host::expect_vmx(false);
	auto after = host::stats();
	for (const char *name :
	     {"vmclears_move", "vmclears_free", "vmclears_offline", "exits_total"})
		expect::note("%s %llu", name, (unsigned long long)(after[name] - before[name]));
	that("a CPU has left with VMCSs on it",
	     after["vmclears_offline"] > before["vmclears_offline"]);
}

bool take_option(std::string_view text)
{
	const auto take = [&](std::string_view name, unsigned long &value) {
		if (!text.starts_with(name))
			return false;
		value = std::strtoul(text.data() + name.size(), nullptr, 0);
		return true;
	};
	return take("rounds=", options.rounds) || take("minutes=", options.minutes) ||
	       take("seed=", options.seed) || take("dedicate=", options.dedicate);
}

} // namespace

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (take_option(argv[i]))
			continue;
		std::fprintf(stderr, "usage: %s [rounds=N] [minutes=N] [seed=N] [dedicate=0]\n",
			     argv[0]);
		return 2;
	}
	// Far more than it takes: who hangs is found by the check of progress.
	const unsigned long limit = options.minutes * 90 + options.rounds * 4 + 120;
	const ktap::Case cases[] = {{"storm", storm, static_cast<unsigned>(limit)}};
	return ktap::run(cases, 1, argv);
}
