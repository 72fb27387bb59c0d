// SPDX-License-Identifier: GPL-2.0
//
// CPUs dedicated to one vCPU: taken from Linux and given back, guests with the interrupts of their CPU,
// kicks, and what goes wrong.

#include "dedicated.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <uapi/kvmpp.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <functional>
#include <map>
#include <memory>
#include <pthread.h>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using namespace dedicated;
namespace apic = guest::apic;

void taken_and_given_back()
{
	begin();
	ApicMachine m(apic::spin);

	equal("no CPU at first", get_cpu(m.vcpu), -1);
	dedicate(m.vcpu, last_cpu);
	equal("its CPU", get_cpu(m.vcpu), static_cast<int>(last_cpu));
	that("Linux does not have it", !is_online(last_cpu));
	release(m.vcpu);
	equal("none again", get_cpu(m.vcpu), -1);
	that("Linux has it back", is_online(last_cpu));
}

void guest_runs_there()
{
	begin();
	ApicMachine m(apic::cpuids);

	dedicate(m.vcpu, last_cpu);
	m.result(stop) = 1;
	m.vcpu.run_until_out(0x80, 1);
	equal("rounds", m.result(rounds), 1u);
	release(m.vcpu);
}

// A thousand ticks of the APIC's timer, and not an exit.
void take_ticks(uint64_t entry)
{
	begin();
	ApicMachine m(entry);
	constexpr uint64_t count = 1000;

	m.result(wanted) = ~0ul;
	m.result(period) = 5'000;
	dedicate(m.vcpu, last_cpu);
	equal("interrupts", passes_interrupts(last_cpu), true);
	Runner runner(m.vcpu);
	wait_for("the first ticks", [&] { return m.result(ticks) > 10; });
	const auto exits = exits_by_reason(last_cpu);
	const uint64_t before = m.result(ticks);
	wait_for("a thousand ticks", [&] { return m.result(ticks) >= before + count; });
	for (const auto &[reason, after] : exits_by_reason(last_cpu))
		if (const auto at = exits.find(reason);
		    after != (at == exits.end() ? 0 : at->second))
			expect::fail("there was an exit by %s", reason.c_str());
	// Only now it is to end, which is an exit.
	m.result(wanted) = 0;
	runner.join();
	release(m.vcpu);
}

void ticks_while_halted()
{
	take_ticks(apic::ticks);
}

void ticks_while_busy()
{
	take_ticks(apic::ticks_busy);
}

void kicked_out()
{
	begin();
	ApicMachine m(apic::spin);

	dedicate(m.vcpu, last_cpu);
	{
		Runner runner(m.vcpu);
		for (unsigned i = 1; i <= 100; i++) {
			runner.kick();
			wait_for("EINTR", [&] { return runner.interrupted() >= i; });
			const uint64_t before = m.result(rounds);
			wait_for("the guest goes on", [&] { return m.result(rounds) > before; });
		}
		m.result(stop) = 1;
		runner.join();
	}
	release(m.vcpu);
}

// IPIs between two vCPUs with a CPU each: the one that gets them does not exit.
void ipis_between_vcpus()
{
	begin(4);
	if (!no_ipi_broadcast())
		ktap::skip("no no_ipi_broadcast=1");
	ApicMachine m(apic::take_ipis);
	Vcpu second(m.vm, 1);
	constexpr uint64_t count = 1000;

	ApicMachine::enter(second, apic::send_ipis, second_stack);
	// To APIC id 0, physical, fixed.
	ApicMachine::set_registers(second, ipi_vector, GUEST_RESULTS + 8 * ipis);
	m.result(wanted) = count;
	dedicate(m.vcpu, last_cpu);
	dedicate(second, last_cpu - 1);
	Runner receiver(m.vcpu);
	wait_for("the receiver enters", [&] { return m.result(ready) != 0; });
	// The first ones bring in the pages that the handler uses.
	m.result(wanted) = 10;
	second.run_until_out(0x80, 1);
	const uint64_t exits = exits_on(last_cpu);
	ApicMachine::enter(second, apic::send_ipis, second_stack);
	ApicMachine::set_registers(second, ipi_vector, GUEST_RESULTS + 8 * ipis);
	m.result(ipis) = 0;
	m.result(wanted) = count;
	second.run_until_out(0x80, 1);
	equal("IPIs", m.result(ipis), count);
	equal("exits of the receiver", exits_on(last_cpu) - exits, 0u);
	m.result(stop) = 1;
	receiver.kick();
	usleep(10'000);
	// It is halted: one more wakes it.
	ApicMachine::enter(second, apic::send_ipi, second_stack);
	ApicMachine::set_registers(second, ipi_vector);
	second.run_until_out(0x80, 1);
	receiver.join();
	release(second);
	release(m.vcpu);
}

// What a guest may not send leaves to user space, and nothing is sent.
void icr_is_checked()
{
	begin();
	ApicMachine m(apic::send_ipi);
	Vcpu other(m.vm, 1);
	struct {
		const char *name;
		uint64_t icr;
		bool to_user;
	} constexpr writes[] = {
		{"fixed to itself", ipi_vector, false},
		{"fixed, shorthand self", ipi_vector | 1 << 18, false},
		{"fixed to a vCPU without a CPU", ipi_vector | uint64_t{1} << 32, true},
		{"fixed to all", ipi_vector | 2 << 18, true},
		{"fixed, broadcast id", ipi_vector | uint64_t{0xffffffff} << 32, true},
		{"fixed to nobody", ipi_vector | uint64_t{77} << 32, false},
		{"NMI to itself", 4 << 8, true},
		{"NMI to all but itself", 4 << 8 | 3 << 18, true},
		{"INIT to APIC id 0", 5 << 8 | 1 << 14, true},
		{"INIT to all but itself", 5 << 8 | 1 << 14 | 3 << 18, true},
		{"SIPI to APIC id 0", 6 << 8 | 8, true},
		{"SMI to APIC id 0", 2 << 8, true},
		{"vector 3", 3, true},
	};

	dedicate(m.vcpu, last_cpu);
	if (!passes_interrupts(last_cpu))
		ktap::skip("interrupts are not passed through");
	for (const auto &write : writes) {
		expect::note("%s", write.name);
		ApicMachine::enter(m.vcpu, apic::send_ipi);
		ApicMachine::set_registers(m.vcpu, write.icr);
		if (write.to_user) {
			m.vcpu.run_until(KVM_EXIT_X86_WRMSR);
			equal("index", m.vcpu.state().msr.index, 0x830u);
			equal("data", m.vcpu.state().msr.data, write.icr);
		}
		m.vcpu.run_until_out(0x80, 1);
	}
	release(m.vcpu);
}

// Where the host sends interrupts to all CPUs, the guest must not get them: under a storm of them.
void broadcasts_do_not_reach_the_guest()
{
	begin(4);
	ApicMachine m(apic::ticks_busy);
	const bool quiet = no_ipi_broadcast();

	dedicate(m.vcpu, last_cpu);
	equal("interrupts are passed through", passes_interrupts(last_cpu), quiet);
	if (!quiet)
		ApicMachine::enter(m.vcpu, apic::spin);
	m.result(wanted) = 3000;
	m.result(period) = 5'000;
	Runner runner(m.vcpu);
	// Threads of one process on all CPUs, of which one unmaps pages: TLB flushes to the others.
	std::atomic<bool> over = false;
	std::vector<std::thread> threads;
	for (unsigned cpu : host::online_cpus())
		threads.emplace_back([&over, cpu] {
			host::pin({cpu});
			while (!over) {
				Memory memory(0x1000);
				memory.at<uint64_t>(0) = 1;
			}
		});
	const uint64_t strays = number_of(last_cpu, "strays");
	if (quiet) {
		runner.join();
		equal("no other interrupt came to the guest", m.result(ipis), 0u);
		equal("strays", number_of(last_cpu, "strays"), strays);
	} else {
		wait_for("stray interrupts, which end where they come",
			 [&] { return number_of(last_cpu, "strays") >= strays + 100; });
		const uint64_t before = m.result(rounds);
		wait_for("the guest goes on", [&] { return m.result(rounds) > before; });
		equal("no interrupt came to the guest", m.result(ipis), 0u);
		m.result(stop) = 1;
		runner.join();
	}
	over = true;
	for (std::thread &thread : threads)
		thread.join();
	release(m.vcpu);
}

void bad_arguments()
{
	begin();
	ApicMachine m(apic::spin), other(apic::spin);
	const auto cpus = host::online_cpus();

	equal("no such CPU", set_cpu(m.vcpu, 4096), -EINVAL);
	equal("less than -1", set_cpu(m.vcpu, -2), -EINVAL);
	equal("-1 and there is none", set_cpu(m.vcpu, -1), -EINVAL);
	equal("CPU 0", set_cpu(m.vcpu, 0), -EBUSY);
	equal("a bad pointer", m.vcpu.fd().call(KVMPP_GET_DEDICATED_CPU, 8ul), -EFAULT);
	that("all as it was", host::online_cpus() == cpus);
	dedicate(m.vcpu, last_cpu);
	equal("the vCPU has one", set_cpu(m.vcpu, static_cast<int>(last_cpu)), -EBUSY);
	equal("another's", set_cpu(other.vcpu, static_cast<int>(last_cpu)), -EBUSY);
	equal("of the other", get_cpu(other.vcpu), -1);
	equal("online by hand", host::set_online(last_cpu, true), -EBUSY);
	that("still not online", !is_online(last_cpu));
	equal("its CPU", get_cpu(m.vcpu), static_cast<int>(last_cpu));
	equal("CPUs that could be", m.device.check_extension(KVMPP_CAP_DEDICATED_CPU),
	      static_cast<long>(cpus.size()) - 2);
	release(m.vcpu);
	equal("CPUs that could be", m.device.check_extension(KVMPP_CAP_DEDICATED_CPU),
	      static_cast<long>(cpus.size()) - 1);
}

void not_without_the_capability()
{
	begin();
	ApicMachine m(apic::spin);

	const pid_t pid = fork();
	if (pid == 0) {
		equal("setuid", syscall(SYS_setuid, 65534), 0);
		equal("SET", set_cpu(m.vcpu, static_cast<int>(last_cpu)), -EPERM);
		equal("release", set_cpu(m.vcpu, -1), -EPERM);
		_exit(0);
	}
	ktap::child_ok(pid);
	that("still online", is_online(last_cpu));
}

// A CPU that was offline is so again.
void offline_before_and_after()
{
	begin();
	ApicMachine m(apic::cpuids);

	equal("offline", host::set_online(last_cpu, false), 0);
	dedicate(m.vcpu, last_cpu);
	m.result(stop) = 1;
	m.vcpu.run_until_out(0x80, 1);
	release(m.vcpu);
	that("offline again", !is_online(last_cpu));
	equal("online", host::set_online(last_cpu, true), 0);
}

// SET and release on a vCPU that is in its guest, by another process.
void while_it_runs()
{
	begin();
	ApicMachine m(apic::cpuids);
	Runner runner(m.vcpu);

	for (unsigned round = 0; round < 5; round++) {
		wait_for("it runs", [&, before = m.result(rounds)] {
			return m.result(rounds) > before + 100;
		});
		const pid_t pid = fork();
		if (pid == 0) {
			equal("SET", set_cpu(m.vcpu, static_cast<int>(last_cpu)), 0);
			_exit(0);
		}
		ktap::child_ok(pid);
		wait_for("it runs there", [&] { return number_of(last_cpu, "stay") > 100; });
		const pid_t second = fork();
		if (second == 0) {
			equal("its CPU", get_cpu(m.vcpu), static_cast<int>(last_cpu));
			equal("release", set_cpu(m.vcpu, -1), 0);
			_exit(0);
		}
		ktap::child_ok(second);
		that("Linux has the CPU", is_online(last_cpu));
	}
	wait_for("it runs",
		 [&, before = m.result(rounds)] { return m.result(rounds) > before + 100; });
	m.result(stop) = 1;
	runner.join();
	equal("never interrupted", runner.interrupted(), 0u);
}

void killed()
{
	begin();
	const pid_t pid = fork();
	if (pid == 0) {
		ApicMachine m(apic::spin);
		dedicate(m.vcpu, last_cpu);
		m.vcpu.try_run();
		_exit(1);
	}
	wait_for("it runs there", [] { return line_of(last_cpu)["state"] == "running"; });
	kill(pid, SIGKILL);
	int status;
	waitpid(pid, &status, 0);
	that("killed", WIFSIGNALED(status));
	wait_for("Linux has the CPU", [] { return is_online(last_cpu); });
	equal("nobody has it", line_of(last_cpu).empty(), true);
	host::expect_vmx(false);
}

void files_closed()
{
	begin();
	{
		ApicMachine m(apic::cpuids);
		dedicate(m.vcpu, last_cpu);
		m.result(stop) = 1;
		m.vcpu.run_until_out(0x80, 1);
	}
	wait_for("Linux has the CPU", [] { return is_online(last_cpu); });
	host::expect_vmx(false);
	equal("rmmod", host::remove_unused_module("kvmpp"), 0);
	equal("insmod", host::insert_module("kvmpp"), 0);
}

// The guest's memory is taken away under it, on its CPU.
void memory_follows()
{
	begin();
	ApicMachine m(apic::spin);
	constexpr size_t page = 0x1000;

	dedicate(m.vcpu, last_cpu);
	Runner runner(m.vcpu);
	wait_for("it runs", [&] { return m.result(rounds) > 0; });
	for (unsigned i = 0; i < 200; i++) {
		// The page that it counts in, replaced by another with the same content.
		std::byte *const at = m.memory.data() + (GUEST_RESULTS & ~(page - 1));
		equal("madvise", madvise(at, page, MADV_DONTNEED), 0);
		wait_for("it counts in a new page", [&] { return m.result(rounds) > 0; });
	}
	m.result(stop) = 1;
	runner.join();
	release(m.vcpu);
}

// One that has halted there wakes up elsewhere in user space's hands.
void halted_when_released()
{
	begin();
	ApicMachine m(apic::halt_enabled);

	dedicate(m.vcpu, last_cpu);
	if (!passes_interrupts(last_cpu))
		ktap::skip("HLT exits where interrupts are not passed through");
	Runner runner(m.vcpu);
	wait_for("it runs", [] { return line_of(last_cpu)["state"] == "running"; });
	usleep(50'000);
	that("it is halted, without an exit", !runner.ended());
	release(m.vcpu);
	equal("exit", runner.join_any(), static_cast<uint32_t>(KVM_EXIT_HLT));
	m.vcpu.run_until_out(0x81, 1);
}

constexpr ktap::Case cases[] = {
	{"taken_and_given_back", taken_and_given_back},
	{"guest_runs_there", guest_runs_there},
	{"ticks_while_halted", ticks_while_halted},
	{"ticks_while_busy", ticks_while_busy},
	{"kicked_out", kicked_out},
	{"ipis_between_vcpus", ipis_between_vcpus},
	{"icr_is_checked", icr_is_checked},
	{"broadcasts_do_not_reach_the_guest", broadcasts_do_not_reach_the_guest},
	{"bad_arguments", bad_arguments},
	{"not_without_the_capability", not_without_the_capability},
	{"offline_before_and_after", offline_before_and_after},
	{"while_it_runs", while_it_runs},
	{"killed", killed},
	{"files_closed", files_closed},
	{"memory_follows", memory_follows},
	{"halted_when_released", halted_when_released},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
