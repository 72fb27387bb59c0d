// SPDX-License-Identifier: GPL-2.0
//
// Kicks of a vCPU on a CPU of its own: none is lost, whatever instruction the NMI comes at, and none is
// stuck. The emulator's test device stops the CPU before an instruction until the NMI is there, hence
// these want an emulator with one instruction a trace (testhost --exact).

#include "bochs.hpp"
#include "dedicated.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <random>
#include <set>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
using namespace dedicated;
namespace apic = guest::apic;
using bochs::Aim;

uint64_t symbol(const char *name)
{
	return host::symbol_address("kvmpp", ".kprobes.text", name);
}

// The thread that runs the vCPU and the one that kicks have a CPU each.
constexpr unsigned kicks_from = 0, runs_on = 1;

std::unique_ptr<Runner> run(ApicMachine &m)
{
	host::pin({runs_on});
	auto runner = std::make_unique<Runner>(m.vcpu, &m.result(rounds));
	host::pin({kicks_from});
	return runner;
}

void begin_exact()
{
	begin(3);
	if (!bochs::present() || !bochs::exact())
		ktap::skip("no emulator that runs one instruction at a time");
}

// What was stopped at, and how that went on.
struct Coverage {
	std::set<uint64_t> rips;
	unsigned by_nmi = 0, by_itself = 0;

	// All instructions of [first, end) that one path has: no gap is longer than an instruction.
	void expect_all(uint64_t first, uint64_t last) const
	{
		constexpr uint64_t longest = 15;
		uint64_t at = first;
		that("the first one", rips.contains(first));
		for (const uint64_t rip : rips) {
			if (rip < first || rip > last)
				continue;
			if (rip - at > longest)
				expect::fail("none between +%#llx and +%#llx",
					     static_cast<unsigned long long>(at - first),
					     static_cast<unsigned long long>(rip - first));
			at = rip;
		}
		equal("the last one", at, last);
	}
};

// Once the CPU stands still: the vCPU is asked to come out, and must before its guest was entered twice.
void kick_where_it_stands(const Aim &aim, Runner &runner, ApicMachine &m, Coverage &coverage)
{
	const unsigned interrupted = runner.interrupted();
	const uint64_t before = m.result(rounds);
	const Aim::Stop stop = aim.stop();
	coverage.rips.insert(stop.rip);
	// Once in its guest, it would stay there for ever: nothing but the kick brings it out.
	m.result(quiet) = 1;
	runner.kick();
	for (unsigned i = 0; aim.state() != Aim::State::done && !runner.is_leaving(); i++)
		if (i == 10'000)
			expect::fail("the signal is not noticed");
	// It has been asked, and if an NMI was sent it is here.
	if (aim.reaches(Aim::State::done, 1)) {
		coverage.by_nmi++;
	} else {
		// None is sent to where the vCPU is neither in its guest nor on the way there.
		coverage.by_itself++;
		aim.disarm();
	}
	for (unsigned i = 0; runner.interrupted() == interrupted; i++) {
		if (i == 5'000'000)
			expect::fail("the kick at %#llx is lost: %llu rounds since",
				     static_cast<unsigned long long>(stop.rip),
				     static_cast<unsigned long long>(m.result(rounds) - before));
	}
	m.result(quiet) = 0;
	// One entry at most, in which the round is finished that an exit was in the middle of.
	if (runner.watched() - before > 1)
		expect::fail("the kick at %#llx took %llu rounds",
			     static_cast<unsigned long long>(stop.rip),
			     static_cast<unsigned long long>(runner.watched() - before));
}

// From the look at what is asked round to it again: entry, exit, and all that is in between.
void at_each_instruction()
{
	begin_exact();
	const uint64_t window = symbol("kvmpp_enter_window"),
		       end = symbol("kvmpp_enter_window_end");
	ApicMachine m(apic::cpuids);
	Coverage coverage;

	dedicate(m.vcpu, last_cpu);
	const auto runner = run(m);
	wait_for("it runs", [&] { return m.result(rounds) > 0; });
	Aim aim(last_cpu);
	unsigned after = 0;
	for (bool round = false; !round; after++) {
		aim.arm(window, after, Aim::Counted::root);
		if (!aim.reaches(Aim::State::stopped, 1000))
			expect::fail("%u instructions after the look the CPU does not come by",
				     after);
		round = after > 0 && aim.stop().rip == window;
		kick_where_it_stands(aim, *runner, m, coverage);
	}
	m.result(stop) = 1;
	runner->join();
	release(m.vcpu);
	// VMLAUNCH, the last of the window, is not on this path: VMRESUME and the jump behind it are before it.
	constexpr uint64_t launch = 3, jump = 5, resume = 3;
	uint64_t last = 0;
	for (const uint64_t rip : coverage.rips)
		if (rip < end && rip >= window)
			last = rip;
	that("VMRESUME", last >= end - launch - jump - resume && last < end - launch);
	coverage.expect_all(window, last);
	expect::note("%u instructions, %zu places: %u by NMI, %u by the next look", after,
		     coverage.rips.size(), coverage.by_nmi, coverage.by_itself);
}

// The first entry after the CPU was taken is by VMLAUNCH.
void at_each_instruction_of_the_first_entry()
{
	begin_exact();
	const uint64_t window = symbol("kvmpp_enter_window"),
		       end = symbol("kvmpp_enter_window_end");
	// No exits: it moves when it is told, not before.
	ApicMachine m(apic::spin);
	constexpr uint64_t launch = 3;
	Coverage coverage;

	uint32_t after = 0;
	for (unsigned tries = 0; tries < 100; tries++) {
		const auto runner = run(m);
		wait_for("it runs", [&] { return m.result(rounds) > 0; });
		Aim aim(last_cpu);
		// Before it is taken: it comes by for the first time when the vCPU moves there.
		aim.arm(window, after, Aim::Counted::root);
		dedicate(m.vcpu, last_cpu);
		if (!aim.reaches(Aim::State::stopped, 1000))
			expect::fail("%u instructions after the look the CPU does not come by",
				     after);
		const uint64_t rip = aim.stop().rip;
		kick_where_it_stands(aim, *runner, m, coverage);
		m.result(stop) = 1;
		runner->join();
		m.result(stop) = 0;
		ApicMachine::enter(m.vcpu, apic::spin);
		release(m.vcpu);
		if (rip == end - launch)
			break;
		// Else the first look found that it was asked to move, and the way out was taken.
		if (rip >= window && rip < end)
			after++;
	}
	coverage.expect_all(window, end - launch);
}

// A run is posted while its CPU is about to halt.
void at_each_instruction_of_the_wait()
{
	begin_exact();
	const uint64_t window = symbol("kvmpp_wait_window"), end = symbol("kvmpp_wait_window_end");
	ApicMachine m(apic::cpuids);
	Coverage coverage;

	dedicate(m.vcpu, last_cpu);
	m.result(stop) = 1;
	m.vcpu.run_until_out(0x80, 1);
	for (unsigned after = 0; after < 3; after++) {
		Aim aim(last_cpu);
		aim.arm(window, after);
		// It comes by once it has answered.
		ApicMachine::enter(m.vcpu, apic::cpuids);
		m.vcpu.run_until_out(0x80, 1);
		if (!aim.reaches(Aim::State::stopped, 1000))
			expect::fail("%u instructions after the look the CPU does not come by",
				     after);
		coverage.rips.insert(aim.stop().rip);
		ApicMachine::enter(m.vcpu, apic::cpuids);
		m.vcpu.run_until_out(0x80, 1);
		equal("it was stopped", aim.state(), Aim::State::done);
	}
	coverage.expect_all(window, end - 1);
	release(m.vcpu);
}

// KICKS of them, at random times, each answered.
void at_random_times()
{
	begin(3);
	const char *const text = std::getenv("KICKS");
	const unsigned kicks = text ? static_cast<unsigned>(std::atoi(text)) : 2000;
	ApicMachine m(apic::cpuids);
	std::minstd_rand random(1);

	dedicate(m.vcpu, last_cpu);
	const auto runner = run(m);
	wait_for("it runs", [&] { return m.result(rounds) > 0; });
	for (unsigned i = 0; i < kicks; i++) {
		const unsigned interrupted = runner->interrupted();
		for (unsigned wait = random() % 4096; wait > 0; wait--)
			asm volatile("");
		m.result(quiet) = 1;
		runner->kick();
		for (unsigned tries = 0; runner->interrupted() == interrupted; tries++) {
			if (tries > 10'000'000)
				expect::fail("kick %u is lost", i);
		}
		m.result(quiet) = 0;
	}
	equal("interrupted", runner->interrupted(), kicks);
	equal("unknown NMIs", number_of(last_cpu, "unknown_nmis"), 0u);
	m.result(stop) = 1;
	runner->join();
	release(m.vcpu);
}

constexpr ktap::Case cases[] = {
	{"at_each_instruction", at_each_instruction, 600},
	{"at_each_instruction_of_the_first_entry", at_each_instruction_of_the_first_entry, 300},
	{"at_each_instruction_of_the_wait", at_each_instruction_of_the_wait},
	{"at_random_times", at_random_times, 36000},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
