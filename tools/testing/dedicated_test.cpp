// SPDX-License-Identifier: GPL-2.0
//
// CPUs dedicated to one vCPU: taken from Linux and given back, guests with the interrupts of their CPU,
// kicks, and what goes wrong.

#include "apic.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <uapi/kvmpp.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <memory>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
namespace apic = guest::apic;

// What guest/apic.S has at GUEST_RESULTS.
enum Result { ticks, wanted, period, ipis, rounds, stop };

constexpr unsigned tick_vector = 0x40, ipi_vector = 0x50;

long set_cpu(const Vcpu &vcpu, int cpu)
{
	return vcpu.fd().call(KVMPP_SET_DEDICATED_CPU, static_cast<unsigned long>(cpu));
}

int get_cpu(const Vcpu &vcpu)
{
	int cpu = -2;
	equal("KVMPP_GET_DEDICATED_CPU", vcpu.fd().call(KVMPP_GET_DEDICATED_CPU, &cpu), 0);
	return cpu;
}

bool is_online(unsigned cpu)
{
	for (const unsigned other : host::online_cpus())
		if (other == cpu)
			return true;
	return false;
}

unsigned last_cpu;

// The machine as it is to be found and left: all CPUs online.
void begin()
{
	if (!Device::is_kvmpp())
		ktap::skip("not on %s", Device::path());
	const auto cpus = host::online_cpus();
	if (cpus.size() < 2)
		ktap::skip("one CPU only");
	last_cpu = cpus.back();
}

// guest/apic.S at one of its entries.
struct ApicMachine : Machine {
	explicit ApicMachine(uint64_t entry) : Machine(guest::apic::image())
	{
		prepare_long();
		set_gate64(tick_vector, apic::tick);
		set_gate64(ipi_vector, apic::ipi);
		vcpu.enter_long(entry);
		kvm_sregs s = vcpu.sregs();
		s.idt.base = GUEST_IDT;
		s.idt.limit = 256 * 16 - 1;
		vcpu.set_sregs(s);
	}
};

void dedicate(const Vcpu &vcpu, unsigned cpu)
{
	const long result = set_cpu(vcpu, static_cast<int>(cpu));
	if (result)
		expect::fail("KVMPP_SET_DEDICATED_CPU %u: %s", cpu, std::strerror(static_cast<int>(-result)));
}

void release(const Vcpu &vcpu)
{
	equal("release", set_cpu(vcpu, -1), 0);
}

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

constexpr ktap::Case cases[] = {
	{"taken_and_given_back", taken_and_given_back},
	{"guest_runs_there", guest_runs_there},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
