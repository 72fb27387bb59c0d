// SPDX-License-Identifier: GPL-2.0
//
// Interrupts, NMIs and exceptions from user space, sent as QEMU does without an APIC in the kernel, into a
// vCPU that moves meanwhile: from one CPU of Linux to another, and to a CPU of its own and back. The guest
// counts what comes, and none of it may be lost or come twice.

#include "dedicated.hpp"
#include "events.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "vm.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <functional>
#include <pthread.h>
#include <random>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
namespace ev = guest::events;

// What guest/events.S has at COUNTS.
enum Count { stop, rounds, breakpoints, int_ns, debugs, nmis, interrupts };
constexpr unsigned first_vector = 0x20, vectors = 4, int_n_vector = 0x30;

struct InjectionMachine : Machine {
	InjectionMachine() : Machine(ev::image())
	{
		vcpu.offer_host_cpuid(device, false);
		vcpu.enter_real(ev::rounds);
		set_vector(1, ev::counts_debug);
		set_vector(2, ev::counts_nmi);
		set_vector(3, ev::counts_breakpoint);
		set_vector(int_n_vector, ev::counts_int_n);
		constexpr uint64_t handlers[vectors] = {
			ev::counts_interrupt0, ev::counts_interrupt1, ev::counts_interrupt2,
			ev::counts_interrupt3};
		for (unsigned i = 0; i < vectors; i++)
			set_vector(first_vector + i, handlers[i]);
	}
	void set_vector(unsigned number, uint64_t handler) const
	{
		at<uint32_t>(4 * number) = static_cast<uint32_t>(handler);
	}
	uint32_t &place(unsigned index) const
	{
		return at<uint32_t>(GUEST_RESULTS + 0x100 + 4 * index);
	}
	uint32_t count(unsigned index) const
	{
		return std::atomic_ref(place(index)).load(std::memory_order_relaxed);
	}
	uint32_t all_interrupts() const
	{
		uint32_t sum = 0;
		for (unsigned i = 0; i < vectors; i++)
			sum += count(interrupts + i);
		return sum;
	}
};

// The vCPU's thread, which alone talks to it, and one that wants things sent and kicks that one.
class Injection
{
public:
	Injection()
	{
		struct sigaction action = {};
		action.sa_handler = [](int) {};
		sigaction(SIGUSR1, &action, nullptr);
		thread_ = std::thread([this] { run(); });
		dedicated::wait_for("the thread starts", [this] { return tid_ != 0; });
		sender_ = std::thread([this] { send(); });
	}

	InjectionMachine &machine() { return machine_; }
	int tid() const { return tid_; }

	// The guest goes on, and takes what it is sent.
	void check_progress() const
	{
		const uint32_t round = machine_.count(rounds),
			       interrupt = machine_.all_interrupts(), nmi = machine_.count(nmis);
		dedicated::wait_for("the guest goes on", [&] {
			return machine_.count(rounds) >= round + 3 &&
			       machine_.all_interrupts() >= interrupt + 3 &&
			       machine_.count(nmis) > nmi;
		});
	}

	// All that was sent has come, once.
	void finish()
	{
		over_ = true;
		sender_.join();
		dedicated::wait_for("what was sent comes", [this] {
			return machine_.all_interrupts() == interrupts_wanted_ &&
			       machine_.count(nmis) == nmis_wanted_;
		});
		std::atomic_ref(machine_.place(stop)).store(1);
		pthread_kill(handle_, SIGUSR1);
		thread_.join();
		for (unsigned i = 0; i < vectors; i++)
			equal("interrupts of a vector", machine_.count(interrupts + i),
			      (interrupts_wanted_ + vectors - 1 - i) / vectors);
		equal("NMIs", machine_.count(nmis), nmis_wanted_.load());
		equal("debug exceptions", machine_.count(debugs), debugs_);
		equal("breakpoints", machine_.count(breakpoints), machine_.count(rounds));
		equal("INT n", machine_.count(int_ns), machine_.count(rounds));
		that("there were exceptions", debugs_ >= 20);
		that("it was told of windows and of HLT", windows_ > 0 && halts_ > 0);
		expect::note(
			"%u rounds, %u interrupts, %u NMIs, %u exceptions, %u windows, %u halts",
			machine_.count(rounds), interrupts_wanted_.load(), nmis_wanted_.load(),
			debugs_, windows_, halts_);
	}

private:
	bool interrupt_waits() const { return interrupts_wanted_ != interrupts_sent_; }

	// What QEMU does before KVM_RUN.
	void before_run()
	{
		kvm_run &state = machine_.vcpu.state();
		const Fd &fd = machine_.vcpu.fd();

		if (nmis_wanted_ != nmis_sent_) {
			equal("KVM_NMI", fd.call(KVM_NMI), 0);
			nmis_sent_ = nmis_wanted_;
		}
		if (state.ready_for_interrupt_injection) {
			// The one before has been delivered, and has returned.
			equal("interrupts so far", machine_.all_interrupts(), interrupts_sent_);
			if (exception_wanted_.exchange(false)) {
				const kvm_guest_debug debug{
					.control = KVM_GUESTDBG_INJECT_DB, .pad = 0, .arch = {}};
				equal("KVM_SET_GUEST_DEBUG", fd.call(KVM_SET_GUEST_DEBUG, &debug),
				      0);
				debugs_++;
			} else if (interrupt_waits()) {
				kvm_interrupt interrupt{.irq = first_vector +
							       interrupts_sent_ % vectors};
				equal("KVM_INTERRUPT", fd.call(KVM_INTERRUPT, &interrupt), 0);
				interrupts_sent_++;
			}
		}
		state.request_interrupt_window = interrupt_waits();
	}

	void run()
	{
		kvm_run &state = machine_.vcpu.state();

		handle_ = pthread_self();
		tid_ = static_cast<int>(syscall(SYS_gettid));
		for (;;) {
			before_run();
			const long result = machine_.vcpu.try_run();
			if (result == -EINTR)
				continue;
			equal("KVM_RUN", result, 0);
			if (state.exit_reason == KVM_EXIT_IO)
				return;
			if (state.exit_reason == KVM_EXIT_IRQ_WINDOW_OPEN) {
				windows_++;
				that("it is ready", state.ready_for_interrupt_injection);
				continue;
			}
			equal("exit reason", state.exit_reason, KVM_EXIT_HLT);
			halts_++;
			while (!interrupt_waits() && nmis_wanted_ == nmis_sent_ &&
			       !machine_.count(stop))
				usleep(100);
		}
	}

	void send()
	{
		std::mt19937 random(1);
		bool executable = false;

		while (!over_) {
			// What the guest has not taken is not sent again: of NMIs one may be pending.
			if (interrupts_wanted_ < machine_.all_interrupts() + 3)
				interrupts_wanted_++;
			if (nmis_wanted_ == machine_.count(nmis))
				nmis_wanted_++;
			// Of each kind one is to be what waits when the vCPU moves.
			exception_wanted_ = random() % 4 == 0;
			// The page of the stack is to be mapped anew, in the middle of a delivery.
			executable = !executable;
			equal("mprotect",
			      mprotect(machine_.memory.data() + GUEST_STACK - 0x1000, 0x1000,
				       PROT_READ | PROT_WRITE | (executable ? PROT_EXEC : 0)),
			      0);
			pthread_kill(handle_, SIGUSR1);
			usleep(random() % 500);
		}
	}

	InjectionMachine machine_;
	std::atomic<uint32_t> interrupts_wanted_ = 0, nmis_wanted_ = 0;
	std::atomic<bool> exception_wanted_ = false, over_ = false;
	// The vCPU's thread's.
	uint32_t interrupts_sent_ = 0, nmis_sent_ = 0, debugs_ = 0;
	unsigned windows_ = 0, halts_ = 0;
	std::atomic<pthread_t> handle_;
	std::atomic<int> tid_ = 0;
	std::thread thread_, sender_;
};

void moved_by_affinity()
{
	const auto cpus = host::online_cpus();
	if (cpus.size() < 2)
		ktap::skip("one CPU only");
	Injection injection;
	for (unsigned round = 0; round < 100; round++) {
		host::pin({cpus[round % cpus.size()]}, injection.tid());
		injection.check_progress();
	}
	injection.finish();
}

void moved_to_its_own_cpu_and_back()
{
	dedicated::begin();
	Injection injection;
	const Vcpu &vcpu = injection.machine().vcpu;
	for (unsigned round = 0; round < 100; round++) {
		dedicated::dedicate(vcpu, dedicated::last_cpu);
		injection.check_progress();
		that("its APIC is not the guest's",
		     dedicated::line_of(dedicated::last_cpu)["passthrough"] == "no");
		// What Linux sends to its CPUs does not come here.
		if (dedicated::no_ipi_broadcast() || host::online_cpus().size() < 3)
			equal("strays", dedicated::number_of(dedicated::last_cpu, "strays"), 0u);
		dedicated::release(vcpu);
		injection.check_progress();
	}
	injection.finish();
}

constexpr ktap::Case cases[] = {
	{"moved_by_affinity", moved_by_affinity, 120},
	{"moved_to_its_own_cpu_and_back", moved_to_its_own_cpu_and_back, 240},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
