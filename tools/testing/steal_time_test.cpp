// SPDX-License-Identifier: GPL-2.0
//
// KVM's MSRs but for kvmclock's, without an APIC in the kernel; and steal time, under a thread that has to
// share its CPU.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;

constexpr uint32_t async_pf_enable = 0x4b564d02, steal_time = 0x4b564d03, pv_eoi = 0x4b564d04,
		   async_pf_interrupt = 0x4b564d06, async_pf_acknowledge = 0x4b564d07;
constexpr uint32_t all[] = {async_pf_enable, steal_time, pv_eoi, async_pf_interrupt,
			    async_pf_acknowledge};
constexpr uint64_t nowhere = GUEST_MMIO;

// struct kvm_steal_time
struct Record {
	uint64_t steal;
	uint32_t version, flags;
	uint8_t preempted, pad8[3];
	uint32_t pad[11];
};

// struct kvm_msrs of one.
struct OneMsr {
	uint32_t count = 1, pad = 0;
	kvm_msr_entry entry{};
};

long set(const Machine &machine, uint32_t index, uint64_t value)
{
	OneMsr msr{.entry = {.index = index, .reserved = 0, .data = value}};
	return machine.vcpu.fd().call(KVM_SET_MSRS, &msr);
}

uint64_t get(const Machine &machine, uint32_t index)
{
	OneMsr msr{.entry = {.index = index, .reserved = 0, .data = ~0ul}};
	equal("KVM_GET_MSRS", machine.vcpu.fd().call(KVM_GET_MSRS, &msr), 1);
	return msr.entry.data;
}

void msrs_of_the_vmm()
{
	LongMachine machine(lm::msr_read);
	for (const uint32_t index : all)
		equal("at first", get(machine, index), 0u);
	equal("steal time", set(machine, steal_time, GUEST_SCRATCH | 1), 1);
	for (unsigned reserved = 1; reserved < 6; reserved++)
		equal("reserved", set(machine, steal_time, GUEST_SCRATCH | 1 | 1u << reserved), 0);
	equal("as it was", get(machine, steal_time), GUEST_SCRATCH | 1u);
	equal("nowhere", set(machine, steal_time, nowhere | 1), 1);
	equal("off", set(machine, steal_time, 0), 1);

	equal("EOI", set(machine, pv_eoi, GUEST_SCRATCH | 5), 1);
	equal("reserved", set(machine, pv_eoi, GUEST_SCRATCH | 3), 0);
	equal("reserved", set(machine, pv_eoi, GUEST_SCRATCH | 2), 0);
	equal("nowhere", set(machine, pv_eoi, nowhere | 1), 0);
	equal("as it was", get(machine, pv_eoi), GUEST_SCRATCH | 5u);
	equal("nowhere, and off", set(machine, pv_eoi, nowhere), 1);

	equal("async #PF, off", set(machine, async_pf_enable, 0), 1);
	equal("async #PF, on", set(machine, async_pf_enable, GUEST_SCRATCH | 1), 0);
	equal("its interrupt", set(machine, async_pf_interrupt, 0xec), 0);
	equal("its interrupt", set(machine, async_pf_interrupt, 0), 0);
	equal("acknowledge", set(machine, async_pf_acknowledge, 1), 1);
	equal("reads as 0", get(machine, async_pf_acknowledge), 0u);
}

Raise refused(uint32_t index, uint64_t value)
{
	return {"WRMSR",
		lm::write_msr,
		lm::write_msr_at,
		13,
		0,
		{.rax = value & 0xffffffff, .rcx = index, .rdx = value >> 32}};
}

void msrs_of_the_guest()
{
	LongMachine machine(lm::msr_read);
	const Msrs msrs(machine);
	msrs.write(steal_time, GUEST_SCRATCH | 1);
	msrs.write(pv_eoi, (GUEST_SCRATCH + 0x100) | 1);
	msrs.write(async_pf_enable, 0);
	msrs.write(async_pf_acknowledge, 1);
	equal("steal time", msrs.read(steal_time), GUEST_SCRATCH | 1u);
	equal("EOI", msrs.read(pv_eoi), (GUEST_SCRATCH + 0x100) | 1u);
	equal("no exception", machine.fault().count, 0u);
	that("told", machine.at<Record>(GUEST_SCRATCH).version > 0);
	equal("no EOI to be left out", machine.at<uint8_t>(GUEST_SCRATCH + 0x100), 0);
	for (const Raise &raise : {refused(steal_time, GUEST_SCRATCH | 3), refused(pv_eoi, 2),
				   refused(pv_eoi, nowhere | 1), refused(async_pf_enable, 1),
				   refused(async_pf_interrupt, 0xec)})
		expect_fault(raise);
}

void are_in_the_list()
{
	Device device;
	std::vector<uint32_t> list(1024);
	list[0] = static_cast<uint32_t>(list.size() - 1);
	equal("KVM_GET_MSR_INDEX_LIST", device.fd().call(KVM_GET_MSR_INDEX_LIST, list.data()), 0);
	for (const uint32_t index : all) {
		unsigned count = 0;
		for (uint32_t i = 1; i <= list[0]; i++)
			count += list[i] == index;
		equal("in the list", count, 1u);
	}
}

// Nanoseconds that the calling thread has waited for a CPU.
uint64_t waited()
{
	unsigned long long ran = 0, delay = 0;
	const std::string text = host::read_file("/proc/thread-self/schedstat");
	equal("schedstat", std::sscanf(text.c_str(), "%llu %llu", &ran, &delay), 2);
	return delay;
}

void under_contention()
{
	const auto cpus = host::online_cpus();
	if (cpus.size() < 2)
		ktap::skip("one CPU only");
	LongMachine machine(lm::await);
	const volatile Record &record = machine.at<Record>(GUEST_SCRATCH);
	auto &stop = machine.at<uint64_t>(GUEST_SCRATCH + 0x100);
	std::atomic<bool> started{false}, done{false};
	uint64_t waited_before = 0, waited_after = 0, told_first = 0;
	equal("on", set(machine, steal_time, GUEST_SCRATCH | 1), 1);
	host::pin({cpus[0]});
	std::thread vcpu([&] {
		host::pin({cpus[1]});
		call(machine, lm::await, 0, GUEST_SCRATCH + 0x100, 0);
		told_first = record.steal;
		waited_before = waited();
		started = true;
		call(machine, lm::await, 0, GUEST_SCRATCH + 0x100, 1);
		waited_after = waited();
	});
	while (!started)
		usleep(1000);
	std::thread other([&] {
		host::pin({cpus[1]});
		while (!done)
			;
	});
	bool preempted = false;
	for (unsigned i = 0; i < 2000 && !(preempted && record.steal > told_first + 5'000'000);
	     i++) {
		preempted = preempted || record.preempted == 1;
		usleep(1000);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
	vcpu.join();
	done = true;
	other.join();
	host::pin(cpus);
	const uint64_t stolen = record.steal - told_first;
	expect::note("stolen %llu us", static_cast<unsigned long long>(stolen / 1000));
	that("it was seen to be preempted", preempted);
	equal("it runs", record.preempted, 0);
	equal("version", record.version % 2, 0u);
	that("something is stolen", stolen >= 5'000'000);
	that("not more than it has waited", stolen <= waited_after);
	that("it has waited", waited_after - waited_before >= 5'000'000);
}

constexpr ktap::Case cases[] = {
	{"msrs_of_the_vmm", msrs_of_the_vmm},
	{"msrs_of_the_guest", msrs_of_the_guest},
	{"are_in_the_list", are_in_the_list},
	{"under_contention", under_contention},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
