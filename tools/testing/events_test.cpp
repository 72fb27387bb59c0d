// SPDX-License-Identifier: GPL-2.0
//
// What user space sends into a guest: interrupts, NMIs, the state of both, a debugger's steps and
// breakpoints; and signals that KVM_RUN lets in. On CPUs of Linux, and the same on a CPU of the vCPU's own.

#include "dedicated.hpp"
#include "events.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <cerrno>
#include <csignal>
#include <pthread.h>

namespace
{

using expect::equal;
using expect::that;
namespace ev = guest::events;

constexpr unsigned vector = 0x20;
// Result places.
enum Result { interrupts, nmis, breakpoints, debugs };

struct EventMachine : Machine {
	explicit EventMachine(uint64_t entry) : Machine(ev::image())
	{
		dedicated::place(*this);
		vcpu.enter_real(entry);
		set_vector(1, ev::on_debug);
		set_vector(2, ev::on_nmi);
		set_vector(3, ev::on_breakpoint);
		set_vector(vector, ev::on_interrupt);
	}
	void set_vector(unsigned number, uint64_t handler) const
	{
		at<uint32_t>(4 * number) = static_cast<uint32_t>(handler);
	}
	uint16_t count(Result which) const { return at<uint16_t>(GUEST_RESULTS + 8 * which); }
	long interrupt(unsigned number) const
	{
		kvm_interrupt interrupt{.irq = number};
		return vcpu.fd().call(KVM_INTERRUPT, &interrupt);
	}
	void expect_rip(uint64_t rip) const { equal("RIP", vcpu.regs().rip, rip); }
	kvm_vcpu_events events() const
	{
		kvm_vcpu_events events{};
		equal("KVM_GET_VCPU_EVENTS", vcpu.fd().call(KVM_GET_VCPU_EVENTS, &events), 0);
		return events;
	}
	long try_set_events(const kvm_vcpu_events &events) const
	{
		return vcpu.fd().call(KVM_SET_VCPU_EVENTS, &events);
	}
	void debug(uint32_t control, const kvm_guest_debug_arch &arch = {}) const
	{
		const kvm_guest_debug debug{.control = control, .pad = 0, .arch = arch};
		equal("KVM_SET_GUEST_DEBUG", vcpu.fd().call(KVM_SET_GUEST_DEBUG, &debug), 0);
	}
	void expect_debug(uint64_t pc, uint32_t exception, uint64_t dr6)
	{
		vcpu.run_until(KVM_EXIT_DEBUG);
		const auto &debug = vcpu.state().debug.arch;
		equal("where it stopped", debug.pc, pc);
		equal("the exception", debug.exception, exception);
		if (exception == 1)
			equal("DR6", debug.dr6, dr6 | 0xffff0ff0);
		expect_rip(pc);
	}
};

void capabilities()
{
	const Device device;
	for (const unsigned long cap : {KVM_CAP_MP_STATE, KVM_CAP_USER_NMI, KVM_CAP_VCPU_EVENTS,
					KVM_CAP_SET_GUEST_DEBUG, KVM_CAP_X86_ROBUST_SINGLESTEP})
		equal("a capability", device.check_extension(cap), 1);
	equal("KVM_CAP_SET_GUEST_DEBUG2", device.check_extension(KVM_CAP_SET_GUEST_DEBUG2),
	      0x1f0003);
}

void interrupt_wakes()
{
	EventMachine machine(ev::halts);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	machine.expect_rip(ev::woken);
	that("the flag", machine.vcpu.state().if_flag);
	that("it is ready", machine.vcpu.state().ready_for_interrupt_injection);
	equal("KVM_INTERRUPT", machine.interrupt(vector), 0);
	equal("interrupt_bitmap", machine.vcpu.sregs().interrupt_bitmap[0], uint64_t{1} << vector);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("interrupts", machine.count(interrupts), 1);
	that("the flag is clear", !machine.vcpu.state().if_flag);
	that("it is not ready", !machine.vcpu.state().ready_for_interrupt_injection);
	equal("interrupt_bitmap", machine.vcpu.sregs().interrupt_bitmap[0], 0u);
}

void interrupt_refused()
{
	EventMachine machine(ev::halts);
	equal("vector 256", machine.interrupt(256), -EINVAL);
	equal("no memory", machine.vcpu.fd().call(KVM_INTERRUPT), -EFAULT);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("interrupts", machine.count(interrupts), 0);
}

void interrupt_by_sregs()
{
	EventMachine machine(ev::halts);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.interrupt_bitmap[0] = uint64_t{1} << vector;
	machine.vcpu.set_sregs(sregs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("interrupts", machine.count(interrupts), 1);
}

void window()
{
	EventMachine machine(ev::closed_then_open);
	machine.vcpu.run_until_out(0x80, 1);
	that("it is not ready", !machine.vcpu.state().ready_for_interrupt_injection);
	machine.vcpu.state().request_interrupt_window = 1;
	machine.vcpu.run_until(KVM_EXIT_IRQ_WINDOW_OPEN);
	machine.expect_rip(ev::open);
	that("it is ready", machine.vcpu.state().ready_for_interrupt_injection);
	machine.vcpu.state().request_interrupt_window = 0;
	equal("KVM_INTERRUPT", machine.interrupt(vector), 0);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("interrupts", machine.count(interrupts), 1);
}

// It stays open, and is told of again, until nobody asks any more.
void window_is_told_of_each_time()
{
	EventMachine machine(ev::closed_then_open);
	machine.vcpu.state().request_interrupt_window = 1;
	machine.vcpu.run_until_out(0x80, 1);
	for (int i = 0; i < 3; i++) {
		machine.vcpu.run_until(KVM_EXIT_IRQ_WINDOW_OPEN);
		machine.expect_rip(ev::open);
	}
	machine.vcpu.state().request_interrupt_window = 0;
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

// Without an APIC in the kernel CR8 is what user space last said; a lower one than before it is told of.
void task_priority()
{
	LongMachine machine(guest::longmode::cr8_down);
	dedicated::place(machine);
	machine.vcpu.run_until(KVM_EXIT_SET_TPR);
	equal("kvm_run's CR8", machine.vcpu.state().cr8, 3u);
	machine.vcpu.state().cr8 = 7;
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("the guest's CR8", machine.vcpu.regs().rbx, 7u);
}

void nmi_at_once()
{
	EventMachine machine(ev::closed_then_open);
	machine.vcpu.run_until_out(0x80, 1);
	equal("KVM_NMI", machine.vcpu.fd().call(KVM_NMI), 0);
	machine.vcpu.run_until_out(0x81, 1);
	equal("NMIs", machine.count(nmis), 1);
	that("they are blocked", machine.events().nmi.masked);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("NMIs", machine.count(nmis), 1);
	that("they are not blocked", !machine.events().nmi.masked);
}

// One is delivered, one waits for its IRET, more are lost.
void nmis_wait()
{
	EventMachine machine(ev::closed_then_open);
	machine.vcpu.run_until_out(0x80, 1);
	for (int i = 0; i < 5; i++)
		equal("KVM_NMI", machine.vcpu.fd().call(KVM_NMI), 0);
	that("one is pending", machine.events().nmi.pending == 1);
	machine.vcpu.run_until_out(0x81, 1);
	machine.vcpu.run_until_out(0x81, 1);
	// In the handler: one more, and no more.
	for (int i = 0; i < 5; i++)
		equal("KVM_NMI", machine.vcpu.fd().call(KVM_NMI), 0);
	machine.vcpu.run_until_out(0x81, 1);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("NMIs", machine.count(nmis), 3);
}

void nmi_and_interrupt()
{
	EventMachine machine(ev::halts);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("KVM_NMI", machine.vcpu.fd().call(KVM_NMI), 0);
	equal("KVM_INTERRUPT", machine.interrupt(vector), 0);
	machine.vcpu.run_until_out(0x81, 1);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("interrupts", machine.count(interrupts), 1);
	equal("NMIs", machine.count(nmis), 1);
}

void nmi_in_shadow()
{
	EventMachine machine(ev::halts);
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = ev::in_shadow;
	regs.rflags = 0x202;
	machine.vcpu.set_regs(regs);
	kvm_vcpu_events events = machine.events();
	events.flags = KVM_VCPUEVENT_VALID_SHADOW;
	events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	equal("KVM_SET_VCPU_EVENTS", machine.try_set_events(events), 0);
	equal("the shadow", machine.events().interrupt.shadow, KVM_X86_SHADOW_INT_STI);
	equal("KVM_NMI", machine.vcpu.fd().call(KVM_NMI), 0);
	machine.vcpu.run_until_out(0x81, 1);
	equal("where the NMI came", machine.at<uint16_t>(machine.vcpu.regs().rsp), ev::open);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void events_round_trip()
{
	EventMachine machine(ev::halts);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	kvm_vcpu_events events = machine.events();
	equal("flags", events.flags,
	      KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		      KVM_VCPUEVENT_VALID_SMM);
	events.nmi.pending = 1;
	events.nmi.masked = 1;
	events.exception.injected = 1;
	events.exception.nr = 13;
	events.exception.has_error_code = 1;
	events.exception.error_code = 0x18;
	equal("KVM_SET_VCPU_EVENTS", machine.try_set_events(events), 0);
	const kvm_vcpu_events again = machine.events();
	that("an exception", again.exception.injected);
	equal("vector", again.exception.nr, 13);
	equal("error code", again.exception.error_code, 0x18u);
	that("an NMI is pending", again.nmi.pending);
	that("and blocked", again.nmi.masked);
	// The #GP is delivered, in real mode without its error code; the NMI waits until its IRET.
	machine.set_vector(13, ev::on_debug);
	machine.vcpu.run_until_out(0x81, 1);
	equal("exceptions", machine.count(debugs), 1);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void events_refused()
{
	EventMachine machine(ev::halts);
	const kvm_vcpu_events good = machine.events();
	kvm_vcpu_events bad = good;
	bad.flags |= 0x100;
	equal("an unknown flag", machine.try_set_events(bad), -EINVAL);
	bad = good;
	bad.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
	equal("a payload", machine.try_set_events(bad), -EINVAL);
	bad = good;
	bad.exception.injected = 1;
	bad.exception.nr = 32;
	equal("vector 32", machine.try_set_events(bad), -EINVAL);
	bad.exception.nr = 2;
	equal("vector 2", machine.try_set_events(bad), -EINVAL);
}

void mp_state()
{
	EventMachine machine(ev::halts);
	kvm_mp_state state{.mp_state = 77};
	equal("KVM_GET_MP_STATE", machine.vcpu.fd().call(KVM_GET_MP_STATE, &state), 0);
	equal("the state", state.mp_state, KVM_MP_STATE_RUNNABLE);
	equal("runnable", machine.vcpu.fd().call(KVM_SET_MP_STATE, &state), 0);
	for (const uint32_t other : {KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED,
				     KVM_MP_STATE_HALTED, KVM_MP_STATE_SIPI_RECEIVED, 77}) {
		state.mp_state = other;
		equal("any other", machine.vcpu.fd().call(KVM_SET_MP_STATE, &state), -EINVAL);
	}
}

// ---- The debugger

constexpr uint32_t stepping = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
constexpr uint64_t dr6_bs = 1 << 14;

void single_steps()
{
	EventMachine machine(ev::steps);
	machine.debug(stepping);
	machine.expect_debug(ev::step1, 1, dr6_bs);
	that("the guest's TF is clear", !(machine.vcpu.regs().rflags & 0x100));
	machine.debug(stepping);
	machine.expect_debug(ev::step2, 1, dr6_bs);
	machine.debug(stepping);
	machine.vcpu.run_until_out(0x80, 1);
	machine.expect_debug(ev::step3, 1, dr6_bs);
	machine.debug(stepping);
	machine.expect_debug(ev::step4, 1, dr6_bs);
	machine.debug(stepping);
	machine.expect_debug(ev::step5, 1, dr6_bs);
	machine.debug(stepping);
	machine.expect_debug(ev::step6, 1, dr6_bs);
	machine.debug(stepping);
	machine.expect_debug(ev::step7, 1, dr6_bs);
	machine.debug(0);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	that("TF is clear", !(machine.vcpu.regs().rflags & 0x100));
	equal("the guest's exceptions", machine.count(debugs), 0);
}

void software_breakpoint()
{
	EventMachine machine(ev::breaks);
	machine.debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP);
	machine.expect_debug(ev::break_at, 3, 0);
	// It is the guest's own.
	machine.debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_INJECT_BP);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("the guest's breakpoints", machine.count(breakpoints), 1);
	// Without a debugger no exit is seen.
	machine.debug(0);
	machine.vcpu.enter_real(ev::breaks);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("the guest's breakpoints", machine.count(breakpoints), 2);
}

void hardware_breakpoints()
{
	EventMachine machine(ev::breaks);
	kvm_guest_debug_arch arch{};
	arch.debugreg[0] = ev::after_break;
	// The word that is written, of two bytes.
	arch.debugreg[1] = GUEST_RESULTS + 0x40;
	arch.debugreg[7] = 0x600 | 2 | 8 | 0x500000;
	machine.debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, arch);
	machine.expect_debug(ev::after_break, 1, 1);
	equal("DR7", machine.vcpu.state().debug.arch.dr7, arch.debugreg[7]);
	equal("the guest's breakpoints", machine.count(breakpoints), 1);
	arch.debugreg[7] &= ~uint64_t{2};
	machine.debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, arch);
	machine.vcpu.run_until(KVM_EXIT_DEBUG);
	equal("DR6", machine.vcpu.state().debug.arch.dr6, 0xffff0ff0u | 2);
	machine.debug(0);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void debug_exception_for_the_guest()
{
	EventMachine machine(ev::breaks);
	machine.debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_DB);
	const kvm_guest_debug again{.control = KVM_GUESTDBG_INJECT_DB, .pad = 0, .arch = {}};
	equal("one is pending", machine.vcpu.fd().call(KVM_SET_GUEST_DEBUG, &again), -EBUSY);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("the guest's exceptions", machine.count(debugs), 1);
}

void blocked_while_stepping()
{
	EventMachine machine(ev::steps);
	equal("KVM_NMI", machine.vcpu.fd().call(KVM_NMI), 0);
	machine.debug(stepping | KVM_GUESTDBG_BLOCKIRQ);
	machine.expect_debug(ev::step1, 1, dr6_bs);
	equal("NMIs", machine.count(nmis), 0);
	machine.debug(0);
	machine.vcpu.run_until_out(0x81, 1);
	equal("NMIs", machine.count(nmis), 1);
}

// ---- Signals

void signal_mask()
{
	EventMachine machine(ev::spins);
	// struct kvm_signal_mask with a set, which is all clear.
	struct {
		uint32_t length;
		uint8_t set[8];
	} argument{.length = 4, .set = {}};
	equal("another length", machine.vcpu.fd().call(KVM_SET_SIGNAL_MASK, &argument), -EINVAL);
	argument.length = 8;
	equal("KVM_SET_SIGNAL_MASK", machine.vcpu.fd().call(KVM_SET_SIGNAL_MASK, &argument), 0);
	// Blocked but in KVM_RUN: it interrupts that, is not taken, and stays.
	sigset_t usr1, old, pending;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	that("pthread_sigmask", !pthread_sigmask(SIG_BLOCK, &usr1, &old));
	pthread_kill(pthread_self(), SIGUSR1);
	equal("KVM_RUN", machine.vcpu.try_run(), -EINTR);
	equal("exit reason", machine.vcpu.state().exit_reason, KVM_EXIT_INTR);
	that("sigpending", !sigpending(&pending) && sigismember(&pending, SIGUSR1));
	sigset_t now;
	that("the mask is back", !pthread_sigmask(SIG_BLOCK, nullptr, &now) &&
					 sigismember(&now, SIGUSR1) && !sigismember(&now, SIGUSR2));
	int signal;
	that("sigwait", !sigwait(&usr1, &signal) && signal == SIGUSR1);
	equal("no mask", machine.vcpu.fd().call(KVM_SET_SIGNAL_MASK), 0);
}

constexpr ktap::Case cases[] = {
	{"capabilities", capabilities},
	{"interrupt_wakes", interrupt_wakes},
	{"interrupt_refused", interrupt_refused},
	{"interrupt_by_sregs", interrupt_by_sregs},
	{"window", window},
	{"window_is_told_of_each_time", window_is_told_of_each_time},
	{"task_priority", task_priority},
	{"nmi_at_once", nmi_at_once},
	{"nmis_wait", nmis_wait},
	{"nmi_and_interrupt", nmi_and_interrupt},
	{"nmi_in_shadow", nmi_in_shadow},
	{"events_round_trip", events_round_trip},
	{"events_refused", events_refused},
	{"mp_state", mp_state},
	{"single_steps", single_steps},
	{"software_breakpoint", software_breakpoint},
	{"hardware_breakpoints", hardware_breakpoints},
	{"debug_exception_for_the_guest", debug_exception_for_the_guest},
	{"blocked_while_stepping", blocked_while_stepping},
	{"signal_mask", signal_mask},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
