// SPDX-License-Identifier: GPL-2.0
#include "apic_machine.hpp"

#include "expect.hpp"
#include "host.hpp"

#include <cerrno>
#include <unistd.h>

ApicMachine::ApicMachine(uint64_t entry, Irqchip irqchip)
	: Machine(guest::apic::image(), GUEST_MEMORY, irqchip)
{
	prepare_long();
	for (unsigned vector = 0x20; vector < 0x100; vector++)
		set_gate64(vector, guest::apic::ipi);
	set_gate64(tick_vector, guest::apic::tick);
	enter(vcpu, entry);
}

void ApicMachine::enter(const Vcpu &vcpu, uint64_t entry, uint64_t stack, uint64_t rbx,
			uint64_t rsi)
{
	vcpu.enter_long(entry);
	kvm_sregs s = vcpu.sregs();
	s.idt.base = GUEST_IDT;
	s.idt.limit = 256 * 16 - 1;
	vcpu.set_sregs(s);
	kvm_regs r = vcpu.regs();
	r.rsp = stack;
	r.rbx = rbx;
	r.rsi = rsi;
	vcpu.set_regs(r);
}

void ApicMachine::make_runnable(const Vcpu &vcpu)
{
	const kvm_mp_state state{KVM_MP_STATE_RUNNABLE};
	expect::equal("KVM_SET_MP_STATE", vcpu.fd().call(KVM_SET_MP_STATE, &state), 0);
}

uint64_t ApicMachine::now(Result which) const
{
	return std::atomic_ref(result(which)).load();
}

Runner::Runner(Vcpu &vcpu, unsigned cpu) : vcpu_(vcpu), cpu_(cpu)
{
	struct sigaction action = {};
	action.sa_handler = on_kick;
	sigaction(SIGUSR1, &action, nullptr);
	thread_ = std::thread([this] { loop(); });
	thread_id_ = thread_.native_handle();
	wait_for("the thread starts", [this] { return started_.load(); });
}

void Runner::loop()
{
	host::pin({cpu_});
	started_ = true;
	for (;;) {
		result_ = vcpu_.try_run();
		if (result_ != -EINTR || leave_)
			break;
		interrupted_++;
	}
	ended_ = true;
}

void Runner::join()
{
	thread_.join();
	expect::equal("KVM_RUN", result_, 0);
	if (vcpu_.state().exit_reason != KVM_EXIT_IO)
		expect::fail("KVM_RUN ended with %s at RIP %#llx",
			     exit_name(vcpu_.state().exit_reason), vcpu_.regs().rip);
	expect::equal("port", vcpu_.state().io.port, 0x80);
}

void Runner::leave()
{
	if (!thread_.joinable())
		return;
	leave_ = true;
	// The first signal may come before it is in KVM_RUN.
	while (!ended_) {
		kick();
		usleep(1'000);
	}
	thread_.join();
}
