// SPDX-License-Identifier: GPL-2.0
//
// CPUs that a vCPU has for its own: the ioctls, what the module says of such CPUs, guests that use their
// local APIC, and threads in KVM_RUN.
#pragma once

#include "apic.hpp"
#include "expect.hpp"
#include "vm.hpp"

#include <atomic>
#include <csignal>
#include <map>
#include <string>
#include <thread>

namespace dedicated
{

// What guest/apic.S has at GUEST_RESULTS.
enum Result {
	ticks,
	wanted,
	period,
	ipis,
	rounds,
	stop,
	ready,
	quiet,
	order, // eight places
	tsc = 16,
	backwards,
	largest_step,
	turn,
};

constexpr unsigned tick_vector = 0x40, ipi_vector = 0x50;
constexpr uint64_t second_stack = GUEST_STACK - 0x800;

// The highest CPU, after begin().
extern unsigned last_cpu;
// The machine as it is to be found and left: all CPUs online. Skips where there are too few, or on KVM.
void begin(unsigned cpus = 2);
bool no_ipi_broadcast();

// 0 or -errno.
long set_cpu(const Vcpu &vcpu, int cpu);
int get_cpu(const Vcpu &vcpu);
void dedicate(const Vcpu &vcpu, unsigned cpu);
void release(const Vcpu &vcpu);

// With DEDICATED in the environment the vCPU gets a CPU of its own. Interrupts and HLT exit there, too: its CPUID
// has no x2APIC, as QEMU's has none without an APIC in the kernel.
void place(const Machine &machine);

bool is_online(unsigned cpu);
// VM exits on a CPU since the module came in.
uint64_t exits_on(unsigned cpu);
std::map<std::string, uint64_t> exits_by_reason(unsigned cpu);
// The line of debugfs's `dedicated` for a CPU, by names; empty when Linux has it.
std::map<std::string, std::string> line_of(unsigned cpu);
uint64_t number_of(unsigned cpu, const char *name);
bool passes_interrupts(unsigned cpu);

using expect::wait_for;

// guest/apic.S at one of its entries.
struct ApicMachine : Machine {
	explicit ApicMachine(uint64_t entry);
	// A second vCPU wants a stack of its own.
	static void enter(const Vcpu &vcpu, uint64_t entry, uint64_t stack = GUEST_STACK);
	static void set_registers(const Vcpu &vcpu, uint64_t rbx, uint64_t rsi = 0);
};

// A thread in KVM_RUN, over and over while signals interrupt it.
class Runner
{
public:
	// @watched is looked at each time a signal has ended KVM_RUN.
	explicit Runner(Vcpu &vcpu, const uint64_t *watched = nullptr);
	// Has it leave, if it has not ended.
	~Runner();
	void kick() const { pthread_kill(tid_, SIGUSR1); }
	unsigned interrupted() const { return interrupted_; }
	uint64_t watched() const { return seen_; }
	// It has taken note of a signal, and waits until the guest is out.
	bool is_leaving() const;
	bool ended() const { return ended_; }
	// What KVM_RUN returned, 0 or -errno, and the exit's reason: once it has ended.
	long result() const { return result_; }
	uint32_t reason() const { return reason_; }
	// Waits for a port access, and is done.
	void join();
	// For whatever exit; its reason.
	uint32_t join_any();

private:
	void loop();

	Vcpu &vcpu_;
	const uint64_t *const watched_;
	std::atomic<uint64_t> seen_ = 0;
	std::atomic<pthread_t> tid_;
	std::atomic<int> number_;
	std::atomic<bool> started_ = false, ended_ = false, leave_ = false;
	std::atomic<unsigned> interrupted_ = 0;
	long result_ = 0;
	uint32_t reason_ = 0;
	std::thread thread_;
};

} // namespace dedicated
