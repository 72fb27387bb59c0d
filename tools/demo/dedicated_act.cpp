// SPDX-License-Identifier: GPL-2.0
//
// Act two, on a host of four or more CPUs: a CPU leaves Linux for a guest, which has its interrupts
// without exits, is kicked, and is killed. Beside it, all the time, a guest that only computes on an
// ordinary CPU: it cannot take ticks, since kvmpp has no APIC for it.

#include "dedicated.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "steps.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <sched.h>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
using namespace steps;
using namespace dedicated;
namespace apic = guest::apic;

constexpr uint64_t events = 1000;
constexpr unsigned kicks = 100;
// What the guest's timer counts down from.
constexpr uint64_t timer_period = 5'000;
// Where this program is, the guest with an ordinary CPU, who sends IPIs, who takes them.
struct Roles {
	unsigned program, ordinary, sender, dedicated;
};

using Clock = std::chrono::steady_clock;

// dedicated::wait_for() for what comes at once: without timers of high resolution a sleep takes
// milliseconds.
template <typename Condition> void soon(const char *what, Condition condition)
{
	const auto deadline = Clock::now() + std::chrono::seconds(20);
	while (!condition()) {
		if (Clock::now() > deadline)
			expect::fail("not within 20 s: %s", what);
		sched_yield();
	}
}

std::string linux_has()
{
	std::string text = host::read_file("/sys/devices/system/cpu/online");
	while (!text.empty() && text.back() == '\n')
		text.pop_back();
	return text;
}

// Exits on a CPU.
struct Exits {
	uint64_t all = 0, interrupts = 0, nmis = 0;

	static Exits on(unsigned cpu)
	{
		Exits exits;
		for (const auto &[reason, count] : exits_by_reason(cpu)) {
			exits.all += count;
			if (reason == "external_interrupt")
				exits.interrupts += count;
			else if (reason == "exception_nmi")
				exits.nmis += count;
		}
		return exits;
	}

	Exits since(const Exits &before) const
	{
		return {all - before.all, interrupts - before.interrupts, nmis - before.nmis};
	}
};

// A span of time, and the exits on both CPUs in it.
class Span
{
public:
	explicit Span(const Roles &cpus)
		: cpus_(cpus), start_(Clock::now()), ordinary_(Exits::on(cpus.ordinary)),
		  dedicated_(Exits::on(cpus.dedicated))
	{
	}

	struct Result {
		long ms;
		Exits ordinary, dedicated;
	};

	Result end() const
	{
		const Exits dedicated = Exits::on(cpus_.dedicated).since(dedicated_);
		const Exits ordinary = Exits::on(cpus_.ordinary).since(ordinary_);
		const auto time = Clock::now() - start_;
		return {std::chrono::duration_cast<std::chrono::milliseconds>(time).count(),
			ordinary, dedicated};
	}

private:
	const Roles &cpus_;
	const Clock::time_point start_;
	const Exits ordinary_, dedicated_;
};

// What the process with the guests tells the one that kills it.
struct Report {
	int step;
	Span::Result ticks, ipis, kicks;
};

// Each time after the guest has gone on since the last.
void kick_out(const Runner &runner, const ApicMachine &machine)
{
	const unsigned before = runner.interrupted();
	for (unsigned i = 1; i <= kicks; i++) {
		runner.kick();
		soon("EINTR", [&] { return runner.interrupted() >= before + i; });
		const uint64_t last = machine.result(rounds);
		soon("the guest goes on", [&] { return machine.result(rounds) > last; });
	}
	equal("KVM_RUN interrupted", runner.interrupted() - before, kicks);
}

void send_ipis(ApicMachine &machine, Vcpu &sender, uint64_t count)
{
	machine.result(ipis) = 0;
	machine.result(wanted) = count;
	ApicMachine::enter(sender, apic::send_ipis, second_stack);
	// To APIC id 0, physical, fixed.
	ApicMachine::set_registers(sender, ipi_vector, GUEST_RESULTS + 8 * ipis);
	sender.run_until_out(0x80, 1);
	equal("IPIs the guest has taken", machine.result(ipis), count);
}

// The process that is killed: goes through its steps, reports, and lets its guests run on.
[[noreturn]] void run_guests(const Roles &cpus, int report_to)
{
	Report report;

	begin("guest on an ordinary CPU");
	ApicMachine beside(apic::spin);
	host::pin({cpus.ordinary});
	Runner ordinary(beside.vcpu);
	host::pin({cpus.program});
	soon("it computes", [&] { return beside.result(rounds) > 0; });
	seen("on CPU %u, computing, for comparison", cpus.ordinary);

	begin("CPU leaves Linux");
	ApicMachine machine(apic::ticks_busy);
	std::string before = linux_has();
	dedicate(machine.vcpu, cpus.dedicated);
	that("it is not online", !is_online(cpus.dedicated));
	that("the guest has its interrupts", passes_interrupts(cpus.dedicated));
	seen("online %s before, %s now; CPU %u is for one vCPU alone", before.c_str(),
	     linux_has().c_str(), cpus.dedicated);

	begin("guest takes ticks there");
	machine.result(wanted) = ~0ul;
	machine.result(period) = timer_period;
	auto runner = std::make_unique<Runner>(machine.vcpu);
	// The first ones bring in the pages that it uses.
	soon("the first ticks", [&] { return machine.result(ticks) > 10; });
	const uint64_t first = machine.result(ticks);
	const Span tick_span(cpus);
	soon("the ticks", [&] { return machine.result(ticks) >= first + events; });
	report.ticks = tick_span.end();
	equal("exits", report.ticks.dedicated.all, 0u);
	that("host's tick on the ordinary CPU", report.ticks.ordinary.interrupts > 0);
	machine.result(wanted) = 0;
	runner->join();
	seen("%llu of its own timer, %llu exits; computing on CPU %u meanwhile: %llu exits",
	     (unsigned long long)events, (unsigned long long)report.ticks.dedicated.all,
	     cpus.ordinary, (unsigned long long)report.ticks.ordinary.all);

	begin("another CPU leaves Linux");
	Vcpu second(machine.vm, 1);
	before = linux_has();
	dedicate(second, cpus.sender);
	that("it is not online", !is_online(cpus.sender));
	seen("online %s before, %s now; CPU %u is for the VM's second vCPU", before.c_str(),
	     linux_has().c_str(), cpus.sender);

	begin("guest receives IPIs");
	machine.result(ready) = 0;
	ApicMachine::enter(machine.vcpu, apic::take_ipis_busy);
	runner = std::make_unique<Runner>(machine.vcpu);
	soon("the guest's APIC is on", [&] { return machine.result(ready) != 0; });
	send_ipis(machine, second, 10);
	const Span ipi_span(cpus);
	send_ipis(machine, second, events);
	report.ipis = ipi_span.end();
	equal("exits of the receiver", report.ipis.dedicated.all, 0u);
	seen("%llu from CPU %u to CPU %u, each taken before the next, %llu exits of the receiver",
	     (unsigned long long)events, cpus.sender, cpus.dedicated,
	     (unsigned long long)report.ipis.dedicated.all);

	begin("guest kicked out");
	const Span kick_span(cpus);
	kick_out(*runner, machine);
	kick_out(ordinary, beside);
	report.kicks = kick_span.end();
	that("NMIs have ended it", report.kicks.dedicated.nmis > 0);
	equal("interrupts that did", report.kicks.dedicated.interrupts, 0u);
	seen("%u signals, KVM_RUN ended with EINTR %u times, the guest went on each time", kicks,
	     runner->interrupted());

	report.step = number();
	equal("write", write(report_to, &report, sizeof(report)),
	      static_cast<ssize_t>(sizeof(report)));
	for (;;)
		pause();
}

void print_column(const char *name, uint64_t ordinary, uint64_t dedicated)
{
	std::printf("    %-22s%12llu%12llu\n", name, (unsigned long long)ordinary,
		    (unsigned long long)dedicated);
}

void print_span(const std::string &name, const Span::Result &span)
{
	std::printf("  %s, %ld ms\n", name.c_str(), span.ms);
	print_column("VM exits", span.ordinary.all, span.dedicated.all);
	print_column("  external_interrupt", span.ordinary.interrupts, span.dedicated.interrupts);
	print_column("  exception_nmi", span.ordinary.nmis, span.dedicated.nmis);
}

void print_table(const Roles &cpus, const Report &report)
{
	const std::string count = std::to_string(events);
	std::printf("\n  %-24s%12s%12s\n", "", "ordinary", "dedicated");
	std::printf("  %-24s%11s%u%11s%u\n", "", "CPU ", cpus.ordinary, "CPU ", cpus.dedicated);
	print_span(count + " ticks to the dedicated one's guest", report.ticks);
	print_span(count + " IPIs to the dedicated one's guest", report.ipis);
	print_span(std::to_string(kicks) + " kicks to each", report.kicks);
	std::printf("\n");
}

// Where a thread's sleeps end by that CPU's timer, and it computes in between; returns how many.
unsigned run_linux_thread(unsigned cpu)
{
	unsigned slept = 0;
	std::thread([&] {
		host::pin({cpu});
		const auto until = Clock::now() + std::chrono::milliseconds(5);
		while (Clock::now() < until)
			;
		while (slept < 10 && host::current_cpu() == cpu && !usleep(1'000))
			slept++;
	}).join();
	return slept;
}

} // namespace

void dedicated_act()
{
	const auto cpus = host::online_cpus();

	begin("module in again");
	that("there are four CPUs", cpus.size() >= 4);
	that("no_ipi_broadcast=1", no_ipi_broadcast());
	module_in();
	const size_t last = cpus.size() - 1;
	const Roles roles{cpus[0], cpus[1], cpus[last - 1], cpus[last]};
	const std::string before = linux_has();
	seen("kvmpp loaded, VMX off (CPUs %s)", list(cpus).c_str());

	int pipe_ends[2];
	equal("pipe", pipe(pipe_ends), 0);
	const pid_t vmm = fork();
	if (vmm == 0)
		run_guests(roles, pipe_ends[1]);
	close(pipe_ends[1]);
	Report report;
	if (read(pipe_ends[0], &report, sizeof(report)) != sizeof(report)) {
		// It has said why.
		waitpid(vmm, nullptr, 0);
		_exit(1);
	}
	close(pipe_ends[0]);
	continue_after(report.step);

	begin("its process killed");
	equal("in the guest", line_of(roles.dedicated)["state"] == "running", true);
	equal("kill -9", kill(vmm, SIGKILL), 0);
	int status = 0;
	equal("waitpid", waitpid(vmm, &status, 0), vmm);
	that("it died of the signal", WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	wait_for("Linux has all CPUs", [&] { return host::online_cpus() == cpus; });
	that("nobody has the CPU", line_of(roles.dedicated).empty());
	wait_for("VMX is off", [] {
		for (const auto &[cpu, state] : host::cpu_states())
			if (state.vmx_on)
				return false;
		return true;
	});
	check_vmx(false);
	seen("kill -9 while the guest ran; online %s as before, VMX off", linux_has().c_str());
	that("online as before", linux_has() == before);

	begin("Linux runs on it");
	const unsigned slept = run_linux_thread(roles.dedicated);
	equal("sleeps on it", slept, 10u);
	seen("a thread computes on CPU %u, and its timer woke it %u times", roles.dedicated, slept);

	begin("module out");
	module_out();
	seen("kvmpp and /dev/kvmpp are gone");

	print_table(roles, report);
}
