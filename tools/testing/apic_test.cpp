// SPDX-License-Identifier: GPL-2.0
//
// Local APICs in the kernel: timers, IPIs, waiting in HLT and for INIT, on CPUs of Linux's and on dedicated
// ones; with the other interrupt controllers in user space or in the kernel.

#include "apic_machine.hpp"
#include "dedicated.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "lapic.hpp"

#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;

// In units of the guest's timer, a nanosecond each: in an emulator shorter ones leave the guest no time for its loop.
constexpr uint64_t usual_period = 2'000'000;
constexpr unsigned left = 5; // what the guests of lapic.S leave at GUEST_RESULTS

// With the guests of apic.S, or, where it says so, of lapic.S.
struct Local : ApicMachine {
	explicit Local(uint64_t entry, bool lapic = false, Irqchip irqchip = Irqchip::split)
		: ApicMachine(entry, irqchip)
	{
		if (lapic) {
			std::memcpy(&at<std::byte>(GUEST_IMAGE), guest::lapic::image().data(),
				    guest::lapic::image().size());
			set_gate64(0x40, guest::lapic::tick);
			set_gate64(0x41, guest::lapic::xapic_tick);
		}
	}
	void run_ticks(unsigned count, uint64_t length = usual_period)
	{
		result(wanted) = count;
		result(ApicMachine::period) = length;
		vcpu.run_until_out(0x80, 1);
		// KVM makes up for ticks that are late, one on the heels of the other: the guest takes them all before
		// it looks.
		if (Device::is_kvmpp())
			equal("ticks", now(ticks), count);
		else
			that("ticks", now(ticks) >= count);
	}
};

uint32_t mp_state(const Vcpu &vcpu)
{
	kvm_mp_state state{};
	equal("KVM_GET_MP_STATE", vcpu.fd().call(KVM_GET_MP_STATE, &state), 0);
	return state.mp_state;
}

void set_mp_state(const Vcpu &vcpu, uint32_t value)
{
	const kvm_mp_state state{value};
	equal("KVM_SET_MP_STATE", vcpu.fd().call(KVM_SET_MP_STATE, &state), 0);
}

uint32_t apic_register(const Vcpu &vcpu, unsigned offset)
{
	kvm_lapic_state state{};
	uint32_t value;
	equal("KVM_GET_LAPIC", vcpu.fd().call(KVM_GET_LAPIC, &state), 0);
	std::memcpy(&value, state.regs + offset, sizeof(value));
	return value;
}

void one_shot()
{
	Local m(guest::lapic::one_shot, true);
	m.run_ticks(20);
	equal("what is left of it", m.result(left), 0u);
}

void periodic_halted()
{
	Local(guest::apic::ticks).run_ticks(20);
}

void periodic_computing()
{
	constexpr const char *exits = "exit_preemption_timer";
	const bool counted = Device::is_kvmpp() && host::have_debugfs();
	const uint64_t before = counted ? host::stats()[exits] : 0;
	Local(guest::apic::ticks_busy).run_ticks(20);
	if (counted)
		that("exits by the VMX-preemption timer", host::stats()[exits] >= before + 10);
}

void with_all_in_the_kernel()
{
	Local(guest::apic::ticks, false, Irqchip::kernel).run_ticks(10);
}

void tsc_deadline()
{
	Local m(guest::lapic::deadline, true);
	m.vcpu.offer_host_cpuid(m.device, true, true);
	m.run_ticks(20, 1'000'000);
	equal("the deadline that has passed", m.result(left), 0u);
}

void xapic_by_mmio()
{
	Local m(guest::lapic::xapic_ticks, true);
	m.run_ticks(10);
	equal("version", m.result(left), 0x50014u);
	equal("nothing in service", apic_register(m.vcpu, 0x120), 0u);
}

// From one vCPU to the other, which halts or computes meanwhile.
void send_ipis(uint64_t receiver, unsigned count, std::optional<int> cpu = {})
{
	Local m(guest::apic::send_ipis);
	Vcpu second(m.vm, 1);
	ApicMachine::enter(second, receiver, ApicMachine::second_stack);
	set_mp_state(second, KVM_MP_STATE_RUNNABLE);
	if (cpu)
		equal("dedicated", dedicated::set_cpu(second, *cpu), 0);
	std::thread thread([&] { second.run_until_out(0x80, 1); });
	wait_for("the second vCPU's APIC is on", [&] { return m.now(ApicMachine::ready) == 1; });
	m.result(ApicMachine::wanted) = count;
	ApicMachine::enter(m.vcpu, guest::apic::send_ipis, GUEST_STACK,
			   uint64_t{1} << 32 | ApicMachine::ipi_vector,
			   GUEST_RESULTS + 8 * ApicMachine::ipis);
	m.vcpu.run_until_out(0x80, 1);
	equal("IPIs", m.now(ApicMachine::ipis), count);
	// One more, so that it looks.
	std::atomic_ref(m.result(ApicMachine::stop)).store(1);
	m.result(ApicMachine::wanted) = 1;
	ApicMachine::enter(m.vcpu, guest::apic::send_ipi, GUEST_STACK,
			   uint64_t{1} << 32 | ApicMachine::ipi_vector);
	m.vcpu.run_until_out(0x80, 1);
	thread.join();
}

void ipis_to_one_that_halts()
{
	send_ipis(guest::apic::take_ipis, 50);
}

void ipis_to_one_that_computes()
{
	send_ipis(guest::apic::take_ipis_busy, 50);
}

void init_and_startup()
{
	Local m(guest::lapic::start_other, true);
	Vcpu second(m.vm, 1);
	const unsigned char code[] = {
		0xb8, 0x34, 0x12, // mov $0x1234, %ax
		0xa3, 0x28, 0x70, // mov %ax, 0x7028: LEFT
		0xe6, 0x80, 0xf4, // out %al, $0x80; hlt
	};
	static_assert(GUEST_RESULTS + 8 * left == 0x7028);
	std::memcpy(&m.at<std::byte>(GUEST_SCRATCH), code, sizeof(code));
	equal("it waits", mp_state(second), uint32_t{KVM_MP_STATE_UNINITIALIZED});
	std::thread thread([&] {
		long result;
		// EAGAIN: INIT has come.
		while ((result = second.try_run()) == -EAGAIN) {
		}
		equal("KVM_RUN", result, 0);
	});
	kvm_regs regs = m.vcpu.regs();
	regs.rbx = GUEST_SCRATCH >> 12;
	m.vcpu.set_regs(regs);
	m.vcpu.run_until_out(0x80, 1);
	thread.join();
	equal("its exit", second.state().exit_reason, uint32_t{KVM_EXIT_IO});
	equal("CS", second.sregs().cs.base, uint64_t{GUEST_SCRATCH});
	equal("it runs", mp_state(second), uint32_t{KVM_MP_STATE_RUNNABLE});
}

void signal_ends_hlt()
{
	Local m(guest::apic::halt_enabled);
	m.vcpu.state().immediate_exit = 0;
	{
		Runner runner(m.vcpu, host::online_cpus().front());
		usleep(20'000);
		runner.leave();
		that("it came out", runner.interrupted() > 0 || runner.ended());
	}
	equal("it has halted", mp_state(m.vcpu), uint32_t{KVM_MP_STATE_HALTED});
}

void level_ends_are_told()
{
	Local m(guest::apic::take_ipis);
	struct {
		kvm_irq_routing header;
		kvm_irq_routing_entry entry;
	} routing = {};
	routing.header.nr = 1;
	routing.entry.gsi = 5;
	routing.entry.type = KVM_IRQ_ROUTING_MSI;
	routing.entry.u.msi.address_lo = 0xfee00000;
	routing.entry.u.msi.data = 0x8000 | ApicMachine::ipi_vector;
	equal("KVM_SET_GSI_ROUTING", m.vm.fd().call(KVM_SET_GSI_ROUTING, &routing), 0);
	std::thread thread([&] { m.vcpu.run_until(KVM_EXIT_IOAPIC_EOI); });
	wait_for("its APIC is on", [&] { return m.now(ApicMachine::ready) == 1; });
	kvm_msi msi = {};
	msi.address_lo = 0xfee00000;
	msi.data = 0x8000 | ApicMachine::ipi_vector;
	equal("KVM_SIGNAL_MSI", m.vm.fd().call(KVM_SIGNAL_MSI, &msi), 1);
	thread.join();
	equal("vector", m.vcpu.state().eoi.vector, ApicMachine::ipi_vector);
}

void on_a_cpu_of_its_own()
{
	dedicated::begin();
	const int cpu = static_cast<int>(dedicated::last_cpu);
	Local m(guest::apic::ticks);
	equal("dedicated", dedicated::set_cpu(m.vcpu, cpu), 0);
	m.run_ticks(20);
	equal("released", dedicated::set_cpu(m.vcpu, -1), 0);
	send_ipis(guest::apic::take_ipis, 30, cpu);
	send_ipis(guest::apic::take_ipis_busy, 30, cpu);
}

constexpr ktap::Case cases[] = {
	{"one_shot", one_shot},
	{"periodic_halted", periodic_halted},
	{"periodic_computing", periodic_computing},
	{"tsc_deadline", tsc_deadline},
	{"xapic_by_mmio", xapic_by_mmio},
	{"with_all_in_the_kernel", with_all_in_the_kernel},
	{"ipis_to_one_that_halts", ipis_to_one_that_halts},
	{"ipis_to_one_that_computes", ipis_to_one_that_computes},
	{"init_and_startup", init_and_startup},
	{"signal_ends_hlt", signal_ends_hlt},
	{"level_ends_are_told", level_ends_are_told},
	{"on_a_cpu_of_its_own", on_a_cpu_of_its_own},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
