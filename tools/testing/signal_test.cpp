// SPDX-License-Identifier: GPL-2.0
//
// Signals: they end KVM_RUN, never a guest's work; and a killed VMM leaves nothing behind.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <pthread.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;
namespace real = guest::real;

// A handler must exist for the signal to interrupt; what it does is the test's.
kvm_run *exit_request;

void on_signal(int)
{
	if (exit_request)
		exit_request->immediate_exit = 1;
}

void handle(int signal)
{
	struct sigaction action {
	};
	action.sa_handler = on_signal;
	that("sigaction", !sigaction(signal, &action, nullptr));
}

// SIGALRM after the given time, and from then on at that interval.
void set_timer(long microseconds, bool repeat)
{
	handle(SIGALRM);
	itimerval timer{};
	timer.it_value.tv_usec = microseconds;
	if (repeat)
		timer.it_interval.tv_usec = microseconds;
	that("setitimer", !setitimer(ITIMER_REAL, &timer, nullptr));
}

// What guest/real.S's "sum" computes.
uint32_t sum_of(uint32_t rounds)
{
	uint32_t sum = 0;
	for (uint32_t i = 1; i <= rounds; i++) {
		sum += i;
		sum = sum << 1 | sum >> 31;
		sum ^= i;
	}
	return sum;
}

void start_sum(Machine &machine, uint32_t rounds)
{
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = real::sum;
	regs.rdi = rounds;
	machine.vcpu.set_regs(regs);
}

void check_sum(Machine &machine, uint32_t rounds)
{
	equal("the guest's sum", machine.vcpu.regs().rax, sum_of(rounds));
	equal("the guest's counter", machine.vcpu.regs().rcx, rounds + 1);
}

void ends_spin()
{
	RealMachine machine(real::spin);
	set_timer(50'000, false);
	equal("KVM_RUN", machine.vcpu.try_run(), -EINTR);
	equal("exit reason", machine.vcpu.state().exit_reason, KVM_EXIT_INTR);
	const uint32_t counted = machine.at<uint32_t>(GUEST_RESULTS);
	that("the guest has run", counted > 0);
	set_timer(50'000, false);
	equal("KVM_RUN again", machine.vcpu.try_run(), -EINTR);
	that("the guest has gone on", machine.at<uint32_t>(GUEST_RESULTS) > counted);
}

// Signals the VMM blocks do not concern KVM_RUN, unless by KVM_SET_SIGNAL_MASK.
void blocked()
{
	constexpr uint32_t rounds = 2'000'000;
	RealMachine machine(real::sum);
	start_sum(machine, rounds);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	that("sigprocmask", !sigprocmask(SIG_BLOCK, &set, nullptr));
	set_timer(1'000, true);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	check_sum(machine, rounds);
}

void pending_before_run()
{
	RealMachine machine(real::spin);
	// Not <linux/kvm.h>'s kvm_signal_mask, for lib/vm.cpp's reason: it has another size in C++.
	constexpr unsigned long set_signal_mask = _IOW(KVMIO, 0x8b, uint32_t);
	struct [[gnu::packed]] {
		uint32_t length = 8;
		uint64_t set = 0;
	} const none_blocked;
	if (machine.vcpu.fd().call(set_signal_mask, &none_blocked) != 0)
		ktap::skip("no KVM_SET_SIGNAL_MASK");
	handle(SIGUSR1);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	that("sigprocmask", !sigprocmask(SIG_BLOCK, &set, nullptr));
	that("raise", !raise(SIGUSR1));
	equal("KVM_RUN", machine.vcpu.try_run(), -EINTR);
	equal("exit reason", machine.vcpu.state().exit_reason, KVM_EXIT_INTR);
	equal("the guest has not run", machine.at<uint32_t>(GUEST_RESULTS), 0u);
}

bool immediate_exit_offered(const Device &device)
{
	return device.check_extension(KVM_CAP_IMMEDIATE_EXIT) > 0;
}

void immediate_exit()
{
	RealMachine machine(real::spin);
	if (!immediate_exit_offered(machine.device))
		ktap::skip("no KVM_CAP_IMMEDIATE_EXIT");
	machine.vcpu.state().immediate_exit = 1;
	equal("KVM_RUN", machine.vcpu.try_run(), -EINTR);
	equal("the guest has not run", machine.at<uint32_t>(GUEST_RESULTS), 0u);
	equal("RIP", machine.vcpu.regs().rip, real::spin);
	equal("immediate_exit stays", machine.vcpu.state().immediate_exit, 1);
	// The way VMMs use it: the handler sets it, so that a signal just before KVM_RUN counts.
	machine.vcpu.state().immediate_exit = 0;
	exit_request = &machine.vcpu.state();
	handle(SIGUSR1);
	raise(SIGUSR1);
	equal("KVM_RUN after the signal", machine.vcpu.try_run(), -EINTR);
	equal("the guest has not run", machine.at<uint32_t>(GUEST_RESULTS), 0u);
}

// How VMMs bring an I/O in flight to its end before they save the state.
void immediate_exit_completes_io()
{
	RealMachine machine(real::in_sizes);
	if (!immediate_exit_offered(machine.device))
		ktap::skip("no KVM_CAP_IMMEDIATE_EXIT");
	machine.vcpu.run_until(KVM_EXIT_IO);
	kvm_run &state = machine.vcpu.state();
	reinterpret_cast<uint8_t *>(&state)[state.io.data_offset] = 0x42;
	state.immediate_exit = 1;
	equal("KVM_RUN", machine.vcpu.try_run(), -EINTR);
	equal("EAX", machine.vcpu.regs().rax, 0xaaaaaa42u);
	equal("the next instruction was not begun", machine.at<uint32_t>(GUEST_RESULTS), 0u);
	state.immediate_exit = 0;
	machine.vcpu.run_until(KVM_EXIT_IO);
	equal("what the guest stored", machine.at<uint32_t>(GUEST_RESULTS), 0xaaaaaa42u);
}

void timer_storm()
{
	constexpr uint32_t rounds = 4'000'000;
	RealMachine machine(real::sum);
	start_sum(machine, rounds);
	set_timer(2'000, true);
	unsigned interrupted = 0;
	for (;;) {
		const long result = machine.vcpu.try_run();
		if (result == 0)
			break;
		equal("KVM_RUN", result, -EINTR);
		equal("exit reason", machine.vcpu.state().exit_reason, KVM_EXIT_INTR);
		// State that goes out and in again is the same state.
		machine.vcpu.set_regs(machine.vcpu.regs());
		machine.vcpu.set_sregs(machine.vcpu.sregs());
		interrupted++;
	}
	equal("exit reason", machine.vcpu.state().exit_reason, KVM_EXIT_HLT);
	check_sum(machine, rounds);
	that("signals have come", interrupted > 3);
}

void kicked_by_thread()
{
	constexpr uint32_t rounds = 3'000'000;
	RealMachine machine(real::sum);
	start_sum(machine, rounds);
	handle(SIGUSR1);
	std::atomic<bool> done = false;
	const pthread_t runner = pthread_self();
	std::thread kicker([&] {
		while (!done) {
			pthread_kill(runner, SIGUSR1);
			usleep(1'000);
		}
	});
	unsigned interrupted = 0;
	while (machine.vcpu.try_run() == -EINTR)
		interrupted++;
	done = true;
	kicker.join();
	equal("exit reason", machine.vcpu.state().exit_reason, KVM_EXIT_HLT);
	check_sum(machine, rounds);
	that("kicks have come", interrupted > 0);
}

// The exit of another thread or process waits for no guest.
void wait_dead(pid_t child)
{
	for (unsigned i = 0; i < 500; i++) {
		int status;
		if (waitpid(child, &status, WNOHANG) == child) {
			that("the child died by SIGKILL",
			     WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
			return;
		}
		usleep(10'000);
	}
	expect::fail("the child is not gone 5 s after SIGKILL");
}

void check_vmx_off()
{
	if (!Device::is_kvmpp())
		return;
	for (const auto &[cpu, state] : host::cpu_states())
		if (state.vmx_on || state.loaded)
			expect::fail("CPU %u: VMX %s, %u VMCSs loaded", cpu,
				     state.vmx_on ? "on" : "off", state.loaded);
}

void killed()
{
	for (unsigned round = 0; round < 5; round++) {
		const pid_t child = fork();
		if (child == 0) {
			RealMachine machine(real::spin);
			Vcpu second(machine.vm, 1);
			second.enter_real(real::spin);
			std::thread other([&] { second.try_run(); });
			machine.vcpu.try_run();
			_exit(1);
		}
		usleep(200'000);
		kill(child, SIGKILL);
		wait_dead(child);
		check_vmx_off();
		RealMachine machine(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
	}
}

void stopped_and_continued()
{
	const pid_t child = fork();
	if (child == 0) {
		constexpr uint32_t rounds = 6'000'000;
		RealMachine machine(real::sum);
		start_sum(machine, rounds);
		// SIGSTOP needs no handler, and KVM_RUN is not restarted after SIGCONT.
		long result;
		do
			result = machine.vcpu.try_run();
		while (result == -EINTR);
		equal("KVM_RUN", result, 0);
		check_sum(machine, rounds);
		_exit(0);
	}
	for (unsigned round = 0; round < 4; round++) {
		usleep(60'000);
		kill(child, SIGSTOP);
		int status;
		that("waitpid", waitpid(child, &status, WUNTRACED) == child);
		if (!WIFSTOPPED(status)) {
			equal("the child's status", status, 0);
			return;
		}
		kill(child, SIGCONT);
	}
	ktap::child_ok(child);
}

constexpr ktap::Case cases[] = {
	{"ends_spin", ends_spin},
	{"blocked", blocked},
	{"pending_before_run", pending_before_run},
	{"immediate_exit", immediate_exit},
	{"immediate_exit_completes_io", immediate_exit_completes_io},
	{"timer_storm", timer_storm},
	{"kicked_by_thread", kicked_by_thread},
	{"killed", killed},
	{"stopped_and_continued", stopped_and_continued},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
