// SPDX-License-Identifier: GPL-2.0
//
// Every ioctl of KVM's ABI with any argument, at any moment, by several threads and processes, while memory,
// files and pages of kvm_run change under it. See fuzz/abi.cpp for what there is, and fuzz/player.hpp for one
// thread of it. A guest of another VM keeps accounts meanwhile.
//
// fuzz_test [calls=N] [seconds=N] [seed=N] [first=N] [trace=1]: rounds from the first on, each in a process of its
// own, until there were so many calls, or for so long. A round is repeated by seed=, first=, calls=1.

#include "cgroup.hpp"
#include "expect.hpp"
#include "fuzz/player.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "option.hpp"
#include "steady.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <dirent.h>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <thread>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using fuzz::Player;
using fuzz::Random;
using fuzz::Tally;
using Clock = std::chrono::steady_clock;

struct Options {
	unsigned long calls = 20'000, seconds = 0, seed = 1, first = 0, trace = 0;
} options;

constexpr unsigned calls_a_round = 2'000;
constexpr std::chrono::seconds round_at_most{300};

unsigned open_files()
{
	unsigned count = 0;
	DIR *const directory = opendir("/proc/self/fd");
	that("/proc/self/fd can be read", directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

// Three of four rounds have one thread, one of them takes CPUs.
bool is_crowd(unsigned long round)
{
	return round % 4 == 3;
}

uint64_t play_alone(fuzz::World &world, Tally &tally, unsigned long round, bool dedicates)
{
	Player player(
		world, tally, Random(options.seed, round << 8),
		{.number = 0, .alone = true, .dedicates = dedicates, .traces = options.trace != 0});
	player.play(calls_a_round);
	return player.digest();
}

void play_in_a_crowd(fuzz::World &world, Tally &tally, unsigned long round)
{
	std::vector<std::thread> threads;
	for (unsigned i = 0; i < fuzz::World::players; i++)
		threads.emplace_back([&, i] {
			Player player(world, tally, Random(options.seed, round << 8 | (i + 1)),
				      {.number = i,
				       .alone = false,
				       .dedicates = i == 0,
				       .traces = false});
			player.play(calls_a_round / fuzz::World::players);
		});
	for (std::thread &thread : threads)
		thread.join();
}

// In its own process; the digest of a round of one thread.
uint64_t play_round(Tally &tally, unsigned long round)
{
	uint64_t digest = 0;
	const unsigned files_before = open_files();
	{
		fuzz::World world;
		if (is_crowd(round))
			play_in_a_crowd(world, tally, round);
		else
			digest = play_alone(world, tally, round, round % 4 == 2);
		// Now and then what is left is Linux's to close.
		if (round % 2 == 0)
			return digest;
		world.close_all();
		close(world.memory_fd());
	}
	equal("open files", open_files(), files_before);
	return digest;
}

void await(pid_t pid, unsigned long round)
{
	const auto start = Clock::now();
	int status = 0;
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (Clock::now() - start > round_at_most) {
			kill(pid, SIGKILL);
			expect::fail("round %lu hangs; again: seed=%lu first=%lu calls=1", round,
				     options.seed, round);
		}
		usleep(2'000);
	}
	if (status)
		expect::fail("round %lu: wait status %#x; again: seed=%lu first=%lu calls=1", round,
			     static_cast<unsigned>(status), options.seed, round);
}

// A player that dies says of what, where, and what is there.
void say_why(int signal, siginfo_t *info, void *context)
{
	const auto *const machine = &static_cast<const ucontext_t *>(context)->uc_mcontext;
	std::ifstream maps("/proc/self/maps");
	expect::note("signal %d, code %d, at %p, by the instruction at %#llx", signal,
		     info->si_code, info->si_addr,
		     static_cast<unsigned long long>(machine->gregs[REG_RIP]));
	for (std::string line; std::getline(maps, line);)
		expect::note("%s", line.c_str());
}

void have_deaths_explained()
{
	struct sigaction action {
	};
	action.sa_sigaction = say_why;
	// Then the instruction is executed again.
	action.sa_flags = SA_SIGINFO | static_cast<int>(SA_RESETHAND);
	for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE})
		sigaction(signal, &action, nullptr);
}

template <class Life> void in_a_process(unsigned long round, Life life)
{
	const pid_t pid = fork();
	that("fork", pid >= 0);
	if (pid == 0) {
		have_deaths_explained();
		life();
		_exit(0);
	}
	await(pid, round);
}

void play()
{
	Tally &tally = Tally::create();
	std::optional<Cgroup> cgroup;
	if (Cgroup::is_there())
		cgroup.emplace("fuzz");
	expect::note("seed=%lu", options.seed);
	const auto start = Clock::now();
	auto said = start;
	const auto over = [&] {
		return options.seconds
			       ? Clock::now() - start >= std::chrono::seconds(options.seconds)
			       : tally.calls() >= options.calls;
	};
	{
		SteadyGuest guest;
		// Most of the time is the fuzzer's; what it waits for costs an emulator that is idle nothing.
		guest.rest(1'000);
		for (unsigned long round = options.first; !over(); round++) {
			in_a_process(round, [&] {
				if (cgroup)
					cgroup->enter();
				play_round(tally, round);
			});
			if (Clock::now() - said < std::chrono::seconds(20))
				continue;
			said = Clock::now();
			guest.check_progress(1);
			expect::note("%llu calls, up to round %lu",
				     static_cast<unsigned long long>(tally.calls()), round);
		}
		guest.check_progress(1);
	}
	tally.print(Player::names());
	expect::note("%llu calls in %.0f s, seed=%lu",
		     static_cast<unsigned long long>(tally.calls()),
		     std::chrono::duration<double>(Clock::now() - start).count(), options.seed);
	if (Device::is_kvmpp())
		host::expect_vmx(false);
	if (cgroup) {
		// A page of kernel memory that nobody gives back shows after a few hundred rounds at the latest.
		constexpr long enough_kib = 512;
		const long left = cgroup->wait_for_less(enough_kib);
		expect::note("%ld KiB of kernel memory are left", left);
		that("the kernel has its memory back", left < enough_kib);
	}
}

// The same seed decides the same.
void replays()
{
	Tally &tally = Tally::create();
	int pipes[2];
	that("pipe", pipe(pipes) == 0);
	uint64_t digest[2];
	for (uint64_t &one : digest) {
		in_a_process(0, [&] {
			const uint64_t mine = play_round(tally, 0);
			that("write", write(pipes[1], &mine, sizeof(mine)) == sizeof(mine));
		});
		that("read", read(pipes[0], &one, sizeof(one)) == sizeof(one));
	}
	equal("what the seed decides", digest[0], digest[1]);
}

bool take_option(std::string_view text)
{
	return option::take(text, "calls=", options.calls) ||
	       option::take(text, "seconds=", options.seconds) ||
	       option::take(text, "seed=", options.seed) ||
	       option::take(text, "first=", options.first) ||
	       option::take(text, "trace=", options.trace);
}

} // namespace

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (take_option(argv[i]))
			continue;
		std::fprintf(stderr,
			     "usage: %s [calls=N] [seconds=N] [seed=N] [first=N] [trace=1]\n",
			     argv[0]);
		return 2;
	}
	const unsigned long limit = options.seconds * 3 / 2 + options.calls / 50 + 300;
	const ktap::Case cases[] = {{"replays", replays, 300},
				    {"play", play, static_cast<unsigned>(limit)}};
	return ktap::run(cases, 1, argv);
}
