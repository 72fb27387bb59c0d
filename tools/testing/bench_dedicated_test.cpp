// SPDX-License-Identifier: GPL-2.0
//
// What a dedicated CPU is worth: exits and instructions, counted by the emulator's test device, of the same
// guests on a CPU of their own and on KVM. Exits that must not be are a failure; all else is only said, in
// lines "# measured NAME VALUE...", of which scripts/bench makes a table.
//
// Several times something is measured until the guest's handler begins. The device looks at addresses where
// a trace of instructions begins, and an interrupt's delivery begins one: no --exact is needed.

#include "apic_machine.hpp"
#include "bochs.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "measured.hpp"

#include <uapi/kvmpp.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

namespace
{

using bochs::Stopwatch;
using expect::equal;
using expect::that;
using measured::Samples;
namespace apic = guest::apic;
using Result = ApicMachine::Result;

// CPU 0 is where dedicated CPUs call when they want Linux, so that what is measured there, too, is left alone.
constexpr unsigned linux_cpu = 0, thread_cpu = 1, second_cpu = 2, guest_cpu = 3;

// Of Linux; see its irq_vectors.h.
constexpr uint8_t local_timer_vector = 0xec, reschedule_vector = 0xfd,
		  call_function_single_vector = 0xfb;

// A tick each 3.1 ms of the emulated machine's time: Linux's own, each 4 ms, then come at all distances from it.
// How many ticks and IPIs are counted, and of how many the instructions are.
const unsigned events = measured::wanted("BENCH_EVENTS", 300);
const unsigned samples_wanted = measured::wanted("BENCH_SAMPLES", 20);

bool enough(const Samples &samples)
{
	return samples.count() >= samples_wanted;
}

bool dedicated()
{
	const char *place = std::getenv("BENCH_PLACE");
	return Device::is_kvmpp() && !(place && !std::strcmp(place, "ordinary"));
}

// The APIC of a CPU of its own counts 50 MHz, one in the kernel nanoseconds.
uint64_t tick_period()
{
	return dedicated() ? 155'000 : 3'100'000;
}

Irqchip irqchip()
{
	return dedicated() ? Irqchip::none : Irqchip::kernel;
}

void begin()
{
	measured::need_cpus(4);
	// This thread; those of vCPUs have their own.
	host::pin({second_cpu});
}

// For guests with interrupts.
void begin_with_apic()
{
	begin();
	if (dedicated() &&
	    host::read_file("/proc/cmdline").find("no_ipi_broadcast=1") == std::string::npos)
		ktap::skip("no no_ipi_broadcast=1");
	// With one vCPU on the second CPU.
	host::pin({linux_cpu});
}

// Has the vCPU on a CPU, where it is dedicated or not, and its thread running.
class Placed
{
public:
	Placed(Vcpu &vcpu, unsigned cpu)
		: runner_(dedicate(vcpu, cpu), dedicated() ? thread_cpu : cpu)
	{
	}

	Runner &runner() { return runner_; }

private:
	static Vcpu &dedicate(Vcpu &vcpu, unsigned cpu)
	{
		if (!dedicated())
			return vcpu;
		const long result = vcpu.fd().call(KVMPP_SET_DEDICATED_CPU, cpu);
		if (result)
			expect::fail("KVMPP_SET_DEDICATED_CPU %u: %s", cpu,
				     std::strerror(static_cast<int>(-result)));
		return vcpu;
	}

	Runner runner_;
};

// ---- Numbers

void say_ratio(const char *name, uint64_t what, uint64_t per)
{
	measured::say(name, static_cast<double>(what) / static_cast<double>(per));
}

// A stopwatch that goes on, and is asked so often that each of its results is seen by itself.
class Series
{
public:
	Series(unsigned cpu, Stopwatch::Start start, uint64_t stop) : watch_(cpu, start, stop) {}

	void look()
	{
		const Stopwatch::Result now = watch_.result();
		// Another one may have come between the device's registers: later, then.
		if (now.count == count_ || now.count != watch_.result().count)
			return;
		if (now.count == count_ + 1)
			samples_.add(now.sum - sum_);
		count_ = now.count;
		sum_ = now.sum;
	}
	uint32_t count() const { return count_; }
	Samples &samples() { return samples_; }

private:
	const Stopwatch watch_;
	uint32_t count_ = 0;
	uint64_t sum_ = 0;
	Samples samples_;
};

// Exits of all CPUs by HLT, as the hypervisor counts them.
uint64_t hlt_exits()
{
	if (!Device::is_kvmpp()) {
		uint64_t count = 0;
		std::ifstream("/sys/kernel/debug/kvm/halt_exits") >> count;
		return count;
	}
	return host::stats()["exit_hlt"];
}

void need_debugfs()
{
	// Also mounts it.
	host::have_debugfs();
	if (access("/sys/kernel/debug/kvm/halt_exits", R_OK) &&
	    access("/sys/kernel/debug/kvmpp/stats", R_OK))
		ktap::skip("no debugfs");
}

// Waits, without sleep, for the next one to be counted.
uint64_t next(const ApicMachine &machine, Result which)
{
	const uint64_t before = machine.now(which);
	// Far more than it can take.
	for (unsigned i = 0; i < 50'000'000; i++) {
		const uint64_t now = machine.now(which);
		if (now != before)
			return now;
		asm volatile("pause");
	}
	expect::fail("the guest does not go on");
}

// ---- The timer

// The guest's instructions that the handler is reached from do not matter: a tick comes at any of them.
void count_ticks(const char *name, uint64_t entry)
{
	begin_with_apic();
	need_debugfs();
	ApicMachine m(entry, irqchip());
	m.result(Result::wanted) = UINT32_MAX;
	m.result(Result::period) = tick_period();
	Placed placed(m.vcpu, guest_cpu);

	// The first ones bring in the pages that they use.
	wait_for("the first ticks", [&] { return m.now(Result::ticks) >= 10; });
	const uint64_t hlts = hlt_exits();
	const uint64_t first = next(m, Result::ticks), rounds = m.now(Result::rounds);
	const uint32_t exits = bochs::vm_exits(guest_cpu);
	wait_for(
		"the ticks", [&] { return m.now(Result::ticks) >= first + events; }, 60);
	const uint64_t ticks = next(m, Result::ticks) - first;
	const uint32_t more = bochs::vm_exits(guest_cpu) - exits;
	const uint64_t more_rounds = m.now(Result::rounds) - rounds, more_hlts = hlt_exits() - hlts;
	// Ticks that KVM has not had the time for come in a row.
	that("the guest does its work", more_rounds >= (dedicated() ? events : events / 2));
	if (dedicated())
		equal("exits", more, 0u);
	const std::string prefix = name;
	say_ratio((prefix + ".exits_per_tick").c_str(), more, ticks);
	expect::note("measured %s.exits_of_ticks %u %llu", name, more,
		     static_cast<unsigned long long>(ticks));
	if (entry == apic::ticks)
		say_ratio((prefix + ".hlt_exits_per_hlt").c_str(), more_hlts, more_rounds);
	// Only now it is to end, which is an exit.
	m.result(Result::wanted) = 0;
	placed.runner().join();
}

void ticks_computing()
{
	count_ticks("ticks_computing", apic::ticks_busy);
}

void ticks_halting()
{
	count_ticks("ticks_halting", apic::ticks);
}

// The stopwatch is set anew for each tick: when all of the last one is over, and late, so that few of the
// host's own come first.
void time_ticks(const char *name, uint64_t entry, Stopwatch::Start start)
{
	constexpr unsigned microseconds = 2'000;
	begin_with_apic();
	ApicMachine m(entry, irqchip());
	Samples samples;
	m.result(Result::wanted) = UINT32_MAX;
	m.result(Result::period) = tick_period();
	Placed placed(m.vcpu, guest_cpu);

	wait_for("the first ticks", [&] { return m.now(Result::ticks) >= 10; });
	for (unsigned i = 0; i < 4 * samples_wanted && !enough(samples); i++) {
		const uint64_t before = next(m, Result::ticks);
		measured::spin_microseconds(microseconds);
		const Stopwatch watch(guest_cpu, start, apic::tick);
		if (m.now(Result::ticks) != before)
			continue;
		next(m, Result::ticks);
		const Stopwatch::Result result = watch.result();
		if (result.count == 1)
			samples.add(result.sum);
	}
	that("as many as wanted were measured", enough(samples));
	samples.say((std::string(name) + ".arrival_to_handler").c_str());
	placed.runner().leave();
}

void tick_delay_computing()
{
	// On a CPU of Linux's the VMX-preemption timer does it, for both hypervisors.
	time_ticks("tick_delay_computing", apic::ticks_busy,
		   dedicated() ? Stopwatch::interrupt(ApicMachine::tick_vector)
			       : Stopwatch::Start::vm_exit);
}

// For kvm_intel with preemption_timer=0.
void tick_delay_computing_by_interrupt()
{
	if (Device::is_kvmpp())
		ktap::skip("for KVM");
	if (host::read_file("/sys/module/kvm_intel/parameters/preemption_timer") != "N\n")
		ktap::skip("KVM uses the preemption timer");
	time_ticks("tick_delay_computing_by_interrupt", apic::ticks_busy,
		   Stopwatch::interrupt(local_timer_vector));
}

void tick_delay_halting()
{
	time_ticks(
		"tick_delay_halting", apic::ticks,
		Stopwatch::interrupt(dedicated() ? ApicMachine::tick_vector : local_timer_vector));
}

// A guest that only computes: a millisecond for each event.
void computing()
{
	begin();
	ApicMachine m(apic::spin, irqchip());
	Placed placed(m.vcpu, guest_cpu);

	wait_for("it computes", [&] { return m.now(Result::rounds) > 0; });
	next(m, Result::rounds);
	const uint64_t rounds = m.now(Result::rounds);
	const uint32_t exits = bochs::vm_exits(guest_cpu);
	usleep(1'000 * events);
	const uint32_t more = bochs::vm_exits(guest_cpu) - exits;
	that("it goes on", m.now(Result::rounds) > rounds + 1'000 * events);
	if (dedicated())
		equal("exits", more, 0u);
	say_ratio("computing.exits_per_second", 1'000 * more, events);
	m.result(Result::stop) = 1;
	placed.runner().join();
}

// ---- IPIs

// The vCPU that gets them, and the one that sends each when the one before was counted.
class Ipis
{
public:
	explicit Ipis(uint64_t receivers_entry)
		: machine_(receivers_entry, irqchip()), second_(machine_.vm, 1),
		  receiver_(machine_.vcpu, guest_cpu)
	{
		ApicMachine::make_runnable(second_);
		wait_for("the receiver enters", [&] { return machine_.now(Result::ready) != 0; });
		// The first ones bring in the pages that they use.
		send(10, [] {});
	}

	// Looks on all the while.
	template <typename Look> void send(unsigned count, Look look)
	{
		// To APIC id 0.
		ApicMachine::enter(second_, apic::send_ipis, ApicMachine::second_stack,
				   ApicMachine::ipi_vector, GUEST_RESULTS + 8 * Result::ipis);
		machine_.result(Result::ipis) = 0;
		machine_.result(Result::wanted) = count;
		// Or the next one comes before the EOI of the last, and waits for that.
		machine_.result(Result::delay) = 3'000;
		if (!sender_taken_ && dedicated())
			equal("KVMPP_SET_DEDICATED_CPU",
			      second_.fd().call(KVMPP_SET_DEDICATED_CPU, second_cpu), 0);
		sender_taken_ = true;
		Runner sender(second_, dedicated() ? thread_cpu : second_cpu);
		while (!sender.ended())
			look();
		sender.join();
		equal("IPIs", machine_.now(Result::ipis), count);
	}

	Runner &receiver() { return receiver_.runner(); }

private:
	ApicMachine machine_;
	Vcpu second_;
	Placed receiver_;
	bool sender_taken_ = false;
};

void send_ipis(const char *name, uint64_t entry)
{
	begin_with_apic();
	Ipis ipis(entry);
	const std::string prefix = name;

	const uint32_t receivers = bochs::vm_exits(guest_cpu),
		       senders = bochs::vm_exits(second_cpu);
	ipis.send(events, [] {});
	const uint32_t of_receiver = bochs::vm_exits(guest_cpu) - receivers;
	const uint32_t of_sender = bochs::vm_exits(second_cpu) - senders;
	if (dedicated())
		equal("exits of the receiver", of_receiver, 0u);
	say_ratio((prefix + ".receivers_exits_per_ipi").c_str(), of_receiver, events);
	say_ratio((prefix + ".senders_exits_per_ipi").c_str(), of_sender, events);

	// What reaches the receiver's CPU: the interrupt itself, or one of Linux's, of which there are two.
	std::vector<uint8_t> vectors = {ApicMachine::ipi_vector};
	if (!dedicated())
		vectors = {reschedule_vector, call_function_single_vector};
	for (const uint8_t vector : vectors) {
		Series delay(guest_cpu, Stopwatch::interrupt(vector), apic::ipi);
		Series sender(second_cpu, Stopwatch::Start::vm_exit, Stopwatch::at_vm_entry);
		ipis.send(events, [&] {
			delay.look();
			sender.look();
		});
		expect::note("vector %#x began %u of %u", vector, delay.count(), events);
		if (delay.count() < events / 2)
			continue;
		delay.samples().say((prefix + ".arrival_to_handler").c_str());
		sender.samples().say((prefix + ".senders_exit").c_str());
		ipis.receiver().leave();
		return;
	}
	expect::fail("none of the vectors brings the IPIs");
}

void ipis_computing()
{
	send_ipis("ipis_computing", apic::take_ipis_busy);
}

void ipis_halting()
{
	send_ipis("ipis_halting", apic::take_ipis);
}

// ---- Kicks: a signal that has KVM_RUN return, and KVM_RUN again

void time_kicks(const char *name, const ApicMachine &m, const Runner &runner, uint64_t stop)
{
	Samples samples, threads, linuxs;
	const Stopwatch::Start start =
		dedicated() ? Stopwatch::Start::nmi : Stopwatch::interrupt(reschedule_vector);

	for (unsigned i = 0; i < 4 * samples_wanted && !enough(samples); i++) {
		const unsigned interrupted = runner.interrupted();
		const uint64_t thread = bochs::instructions(thread_cpu);
		const uint64_t linux = bochs::instructions(linux_cpu);
		const Stopwatch watch(guest_cpu, start, stop);
		runner.kick();
		while (runner.interrupted() == interrupted)
			asm volatile("pause");
		next(m, Result::rounds);
		// What was under way when it was seen may have been the last round before.
		next(m, Result::rounds);
		const Stopwatch::Result result = watch.result();
		threads.add(bochs::instructions(thread_cpu) - thread);
		linuxs.add(bochs::instructions(linux_cpu) - linux);
		if (result.count >= 1)
			samples.add(result.count == 1 ? result.sum : result.min);
		usleep(3'000);
	}
	that("as many as wanted were measured", enough(samples));
	samples.say((std::string("kicks.") + name).c_str());
	if (stop == Stopwatch::at_vm_entry && dedicated()) {
		threads.say("kicks.of_threads_cpu");
		linuxs.say("kicks.of_cpu_0");
	}
}

void kicks()
{
	begin();
	ApicMachine m(apic::spin, irqchip());
	Placed placed(m.vcpu, guest_cpu);

	next(m, Result::rounds);
	time_kicks("to_exit", m, placed.runner(), Stopwatch::at_vm_exit);
	time_kicks("to_entry", m, placed.runner(), Stopwatch::at_vm_entry);
	m.result(Result::stop) = 1;
	placed.runner().join();
}

constexpr ktap::Case cases[] = {
	{"ticks_computing", ticks_computing, 90},
	{"ticks_halting", ticks_halting, 90},
	{"tick_delay_computing", tick_delay_computing},
	{"tick_delay_computing_by_interrupt", tick_delay_computing_by_interrupt},
	{"tick_delay_halting", tick_delay_halting},
	{"computing", computing},
	{"ipis_computing", ipis_computing},
	{"ipis_halting", ipis_halting},
	{"kicks", kicks},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
