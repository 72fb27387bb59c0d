// SPDX-License-Identifier: GPL-2.0
//
// Guests with a local APIC in x2APIC mode (guest/apic.S): that of a CPU of their own on kvmpp, on KVM the one
// in the kernel.
#pragma once

#include "apic.hpp"
#include "expect.hpp"
#include "vm.hpp"

#include <atomic>
#include <csignal>
#include <cstdint>
#include <pthread.h>
#include <thread>

// At one of its entries, with the vectors of the timer and of IPIs.
struct ApicMachine : Machine {
	// Places at GUEST_RESULTS.
	enum Result { ticks, wanted, period, ipis, rounds, stop, ready, delay };

	static constexpr unsigned tick_vector = 0x40, ipi_vector = 0x50;
	static constexpr uint64_t second_stack = GUEST_STACK - 0x800;

	explicit ApicMachine(uint64_t entry, Irqchip irqchip = wanted_irqchip());
	static Irqchip wanted_irqchip()
	{
		return Device::is_kvmpp() ? Irqchip::none : Irqchip::kernel;
	}

	// A vCPU wants a stack of its own; RBX and RSI are for the guest's entry.
	static void enter(const Vcpu &vcpu, uint64_t entry, uint64_t stack = GUEST_STACK,
			  uint64_t rbx = 0, uint64_t rsi = 0);
	// In the kernel's APIC all but the first wait for INIT and SIPI.
	static void make_runnable(const Vcpu &vcpu);

	// What the guest has there now.
	uint64_t now(Result which) const;
};

using expect::wait_for;

// A thread on one CPU that runs a vCPU, and again when a signal has interrupted that.
class Runner
{
public:
	Runner(Vcpu &vcpu, unsigned cpu);
	Runner(const Runner &) = delete;
	Runner &operator=(const Runner &) = delete;
	~Runner() { leave(); }

	// The signal's handler, which does nothing: where user space is first again.
	static void on_kick(int) {}
	// Sends the signal.
	void kick() const { pthread_kill(thread_id_, SIGUSR1); }
	unsigned interrupted() const { return interrupted_; }
	// KVM_RUN has returned with something else.
	bool ended() const { return ended_; }
	// Waits for that, which must be an exit for port 0x80.
	void join();
	// Has it out, if it is in still.
	void leave();

private:
	void loop();

	Vcpu &vcpu_;
	const unsigned cpu_;
	std::atomic<bool> started_ = false, ended_ = false, leave_ = false;
	std::atomic<unsigned> interrupted_ = 0;
	long result_ = 0;
	std::thread thread_;
	pthread_t thread_id_;
};
