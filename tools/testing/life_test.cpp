// SPDX-License-Identifier: GPL-2.0
//
// VMCSs and VMX operation over a host's life: guests moved between CPUs, CPUs taken offline and
// back, VMs made and gone meanwhile, the module removed. After each case kvmpp must say that no CPU
// is in VMX operation, and no VMCS on any CPU's list.
//
// Most cases run on stock KVM as well, which shows that a case asks nothing impossible; what
// concerns kvmpp's own files is skipped there.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <memory>
#include <pthread.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;
namespace real = guest::real;

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

void kvmpp_only()
{
	if (!Device::is_kvmpp())
		ktap::skip("not on %s", Device::path());
}

std::vector<unsigned> all_cpus;

void two_cpus()
{
	// A failed case before this one may have left some offline.
	for (unsigned cpu = 1; cpu < 64; cpu++)
		host::set_online(cpu, true);
	all_cpus = host::online_cpus();
	if (all_cpus.size() < 2)
		ktap::skip("one CPU only");
}

unsigned last_cpu()
{
	return all_cpus.back();
}

void offline(unsigned cpu)
{
	equal("CPU offline", host::set_online(cpu, false), 0);
}

void online(unsigned cpu)
{
	equal("CPU online", host::set_online(cpu, true), 0);
}

void check_vmx(bool on)
{
	if (Device::is_kvmpp())
		host::expect_vmx(on);
}

// The CPU on whose list the only VMCS is, or -1.
int cpu_of_vmcs()
{
	int found = -1;
	for (const auto &[cpu, state] : host::cpu_states()) {
		if (state.loaded == 0)
			continue;
		equal("VMCSs loaded", state.loaded, 1u);
		equal("another CPU with a VMCS", found, -1);
		found = static_cast<int>(cpu);
	}
	return found;
}

// A thread which runs the guest "sum" over and over, and checks it each time.
class Runner
{
public:
	explicit Runner(uint32_t rounds = 300'000)
		: rounds_(rounds), wanted_(sum_of(rounds)), machine_(real::sum),
		  thread_([this] { loop(); })
	{
		while (tid_ == 0)
			usleep(1'000);
	}

	~Runner() { stop(); }

	void stop()
	{
		stop_ = true;
		if (thread_.joinable())
			thread_.join();
	}

	int tid() const { return tid_; }
	unsigned finished() const { return finished_; }

	// The guest must make progress from now on.
	void check_progress() const
	{
		const unsigned before = finished_;
		for (unsigned i = 0; i < 1000; i++) {
			if (finished_ >= before + 2)
				return;
			usleep(10'000);
		}
		expect::fail("the guest makes no progress");
	}

private:
	void loop()
	{
		tid_ = static_cast<int>(syscall(SYS_gettid));
		while (!stop_) {
			kvm_regs regs = machine_.vcpu.regs();
			regs.rip = real::sum;
			regs.rdi = rounds_;
			machine_.vcpu.set_regs(regs);
			machine_.vcpu.run_until(KVM_EXIT_HLT);
			equal("the guest's sum", machine_.vcpu.regs().rax, wanted_);
			finished_++;
		}
	}

	const uint32_t rounds_, wanted_;
	RealMachine machine_;
	std::atomic<bool> stop_ = false;
	std::atomic<int> tid_ = 0;
	std::atomic<unsigned> finished_ = 0;
	std::thread thread_;
};

void vmx_follows_vms()
{
	kvmpp_only();
	check_vmx(false);
	const auto before = host::stats();
	{
		Device device;
		check_vmx(false);
		Vm first(device);
		check_vmx(true);
		{
			Vm second(device);
			check_vmx(true);
		}
		check_vmx(true);
		Vcpu vcpu(first);
		check_vmx(true);
	}
	check_vmx(false);
	auto after = host::stats();
	auto earlier = before;
	const auto cpus = host::online_cpus().size();
	equal("vmx_enables", after["vmx_enables"] - earlier["vmx_enables"], cpus);
	equal("vmx_disables", after["vmx_disables"] - earlier["vmx_disables"], cpus);
}

void moved_by_affinity()
{
	two_cpus();
	{
		Runner runner;
		for (unsigned round = 0; round < 60; round++) {
			host::pin({all_cpus[round % all_cpus.size()]}, runner.tid());
			usleep(5'000);
		}
		runner.check_progress();
	}
	check_vmx(false);
}

void vmcs_follows_thread()
{
	kvmpp_only();
	two_cpus();
	RealMachine machine(real::halt);
	auto before = host::stats();
	for (unsigned round = 0; round < 10; round++) {
		const unsigned cpu = all_cpus[round % all_cpus.size()];
		host::pin({cpu});
		machine.vcpu.enter_real(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		equal("the VMCS's CPU", cpu_of_vmcs(), static_cast<int>(cpu));
	}
	auto after = host::stats();
	that("vmclears_move counts the moves",
	     after["vmclears_move"] - before["vmclears_move"] >= 9);
}

void cpu_offline_under_guest()
{
	two_cpus();
	{
		Runner runner;
		for (unsigned round = 0; round < 4; round++) {
			// Put it on the CPU, but let it go elsewhere.
			host::pin({last_cpu()}, runner.tid());
			runner.check_progress();
			host::pin(all_cpus, runner.tid());
			offline(last_cpu());
			check_vmx(true);
			runner.check_progress();
			online(last_cpu());
			check_vmx(true);
			runner.check_progress();
		}
	}
	check_vmx(false);
}

// The thread may run nowhere else: the kernel moves it all the same, and widens its mask.
void cpu_offline_under_pinned_guest()
{
	two_cpus();
	{
		Runner runner;
		host::pin({last_cpu()}, runner.tid());
		runner.check_progress();
		offline(last_cpu());
		runner.check_progress();
		online(last_cpu());
		runner.check_progress();
	}
	check_vmx(false);
}

// A VMCS that is loaded on the CPU while its vCPU does not run.
void cpu_offline_under_idle_vmcs()
{
	two_cpus();
	{
		LongMachine machine(lm::peek);
		machine.at<uint64_t>(GUEST_SCRATCH) = 0x1234;
		host::pin({last_cpu()});
		call(machine, lm::peek, 0, GUEST_SCRATCH);
		host::pin({all_cpus.front()});
		if (Device::is_kvmpp())
			equal("the VMCS's CPU", cpu_of_vmcs(), static_cast<int>(last_cpu()));
		const uint64_t swept = Device::is_kvmpp() ? host::stats()["vmclears_offline"] : 0;
		offline(last_cpu());
		if (Device::is_kvmpp()) {
			equal("the VMCS's CPU", cpu_of_vmcs(), -1);
			equal("vmclears_offline", host::stats()["vmclears_offline"], swept + 1);
		}
		// State that was in the VMCS only must have reached memory.
		call(machine, lm::peek, 0, GUEST_SCRATCH);
		equal("what the guest reads", machine.vcpu.regs().rax, 0x1234u);
		online(last_cpu());
		host::pin({last_cpu()});
		call(machine, lm::peek, 0, GUEST_SCRATCH);
		equal("what the guest reads", machine.vcpu.regs().rax, 0x1234u);
	}
	check_vmx(false);
}

// An idle VMCS whose VM goes while its last CPU is offline; and a VM made and gone meanwhile.
void vm_gone_while_cpu_offline()
{
	two_cpus();
	{
		RealMachine machine(real::halt);
		host::pin({last_cpu()});
		machine.vcpu.run_until(KVM_EXIT_HLT);
		host::pin({all_cpus.front()});
		offline(last_cpu());
	}
	check_vmx(false);
	{
		RealMachine machine(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		check_vmx(true);
	}
	online(last_cpu());
	check_vmx(false);
}

void cpu_offline_before_first_vm()
{
	two_cpus();
	offline(last_cpu());
	{
		RealMachine machine(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		check_vmx(true);
		online(last_cpu());
		check_vmx(true);
		host::pin({last_cpu()});
		machine.vcpu.enter_real(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
	}
	check_vmx(false);
}

void last_cpu_stays()
{
	const auto cpus = host::online_cpus();
	{
		Runner runner;
		for (size_t i = cpus.size() - 1; i > 0; i--)
			offline(cpus[i]);
		// CPU 0 has no such file on most kernels; where it has, the last one says EBUSY.
		const int result = host::set_online(cpus.front(), false);
		if (result != -EBUSY && result != -ENOENT && result != -EACCES && result != -EPERM)
			expect::fail("taking the last CPU offline gives %d", result);
		runner.check_progress();
		for (size_t i = 1; i < cpus.size(); i++)
			online(cpus[i]);
		runner.check_progress();
	}
	check_vmx(false);
}

void vms_come_and_go_under_hotplug()
{
	two_cpus();
	{
		Runner runner(50'000);
		std::atomic<bool> stop = false;
		std::thread maker([&] {
			while (!stop) {
				RealMachine machine(real::halt);
				machine.vcpu.run_until(KVM_EXIT_HLT);
			}
		});
		for (unsigned round = 0; round < 5; round++) {
			offline(last_cpu());
			usleep(10'000);
			online(last_cpu());
			usleep(10'000);
		}
		stop = true;
		maker.join();
		runner.check_progress();
	}
	check_vmx(false);
}

// First VMs and last VMs while a CPU comes and goes: VMX on and off race with hotplug.
void first_and_last_vm_under_hotplug()
{
	two_cpus();
	std::atomic<bool> stop = false;
	std::thread maker([&] {
		while (!stop) {
			RealMachine machine(real::halt);
			machine.vcpu.run_until(KVM_EXIT_HLT);
		}
	});
	for (unsigned round = 0; round < 5; round++) {
		offline(last_cpu());
		online(last_cpu());
	}
	stop = true;
	maker.join();
	check_vmx(false);
}

void killed_under_hotplug()
{
	two_cpus();
	for (unsigned round = 0; round < 3; round++) {
		const pid_t child = fork();
		if (child == 0) {
			RealMachine machine(real::spin);
			Vcpu second(machine.vm, 1);
			second.enter_real(real::spin);
			std::thread other([&] { second.try_run(); });
			machine.vcpu.try_run();
			_exit(1);
		}
		usleep(100'000);
		offline(last_cpu());
		kill(child, SIGKILL);
		online(last_cpu());
		int status;
		that("waitpid", waitpid(child, &status, 0) == child);
		check_vmx(false);
	}
}

void more_vcpus_than_cpus()
{
	two_cpus();
	{
		Runner first, second, third;
		offline(last_cpu());
		first.check_progress();
		second.check_progress();
		third.check_progress();
		online(last_cpu());
		first.check_progress();
		second.check_progress();
		third.check_progress();
	}
	check_vmx(false);
}

// What a VM takes it gives back: pages, tables, the VMCS, pins on the VMM's memory.
void memory_given_back()
{
	const auto free_kib = [] {
		const std::string text = host::read_file("/proc/meminfo");
		return std::stol(text.substr(text.find("MemFree:") + 8));
	};
	const auto make = [](unsigned count) {
		for (unsigned i = 0; i < count; i++) {
			LongMachine machine(lm::poke);
			call(machine, lm::poke, i, GUEST_SCRATCH + i % 16 * 0x1000);
		}
	};
	// Caches fill at first; what is lost for good is lost in each round.
	constexpr unsigned count = 60;
	constexpr long page_each_kib = count * 4;
	long lost = 0;
	for (unsigned round = 0; round < 5; round++) {
		const long before = free_kib();
		make(count);
		lost = before - free_kib();
		if (lost < page_each_kib / 2)
			return;
	}
	expect::fail("%u VMs have taken %ld KiB for good", count, lost);
}

// ---- vCPUs that go before their VM

void run_sum(Vcpu &vcpu)
{
	constexpr uint32_t rounds = 1000;
	static const uint32_t wanted = sum_of(rounds);
	vcpu.enter_real(real::sum);
	kvm_regs regs = vcpu.regs();
	regs.rdi = rounds;
	vcpu.set_regs(regs);
	vcpu.run_until(KVM_EXIT_HLT);
	equal("the guest's sum", vcpu.regs().rax, wanted);
}

void close_in_thread(std::unique_ptr<Vcpu> vcpu)
{
	std::thread([&] { vcpu.reset(); }).join();
}

// The child has the file and the mapping, too; what it does last is to end.
void close_in_child(std::unique_ptr<Vcpu> vcpu)
{
	int go[2];
	equal("pipe", pipe(go), 0);
	const pid_t child = fork();
	if (child == 0) {
		char byte;
		close(go[1]);
		_exit(read(go[0], &byte, 1) == 0 ? 0 : 1);
	}
	close(go[0]);
	vcpu.reset();
	close(go[1]);
	ktap::child_ok(child);
}

unsigned vmcss_loaded()
{
	unsigned sum = 0;
	for (const auto &[cpu, state] : host::cpu_states())
		sum += state.loaded;
	return sum;
}

// One id again and again, with other vCPUs of the VM running. KVM gives an id once in a VM's life.
void vcpus_added_and_removed()
{
	kvmpp_only();
	constexpr unsigned rounds = 300;
	{
		RealMachine machine(real::halt);
		Vcpu second(machine.vm, 1);
		std::atomic<bool> stop = false;
		std::atomic<unsigned> runs[2] = {};
		std::thread threads[2];
		for (unsigned i = 0; i < 2; i++)
			threads[i] = std::thread([&, i] {
				for (; !stop; runs[i]++)
					run_sum(i ? second : machine.vcpu);
			});
		for (unsigned round = 0; round < rounds; round++) {
			auto vcpu = std::make_unique<Vcpu>(machine.vm, 1023);
			equal("the id twice", machine.vm.fd().call(KVM_CREATE_VCPU, 1023), -EEXIST);
			run_sum(*vcpu);
			if (round % 16 == 0)
				close_in_child(std::move(vcpu));
			else if (round % 4 == 0)
				close_in_thread(std::move(vcpu));
			vcpu.reset();
			// One that moves from CPU to CPU may be counted on both: each CPU's number is of another moment.
			expect::wait_for("its VMCS is gone", [] { return vmcss_loaded() <= 2; });
		}
		stop = true;
		for (std::thread &thread : threads)
			thread.join();
		that("the others have run meanwhile", runs[0] > 0 && runs[1] > 0);
	}
	check_vmx(false);
}

// Two threads that want the same id, and close it at once when they have it.
void vcpus_added_by_two()
{
	kvmpp_only();
	two_cpus();
	{
		RealMachine machine(real::halt);
		std::atomic<unsigned> made = 0;
		const auto race = [&] {
			for (unsigned i = 0; i < 150; i++) {
				Fd vcpu(static_cast<int>(machine.vm.fd().call(KVM_CREATE_VCPU, 7)));
				if (vcpu.get() >= 0)
					made++;
			}
		};
		std::thread other(race);
		race();
		other.join();
		that("the id was had", made > 0);
		Vcpu last(machine.vm, 7);
		run_sum(last);
	}
	check_vmx(false);
}

// The mapping holds the vCPU as its descriptor did, and its memory beyond the VM's descriptor.
void kvm_run_outlives_its_descriptor()
{
	kvmpp_only();
	{
		Device device;
		Vm vm(device);
		Fd vcpu(static_cast<int>(vm.fd().call(KVM_CREATE_VCPU, 3)));
		that("KVM_CREATE_VCPU", vcpu.get() >= 0);
		constexpr size_t page = 0x1000;
		// kvm_run, a port's data, and the VM's ring of coalesced writes.
		equal("the pages of it", device.run_size(), 3 * page);
		void *mapping =
			mmap(nullptr, 3 * page, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(), 0);
		that("kvm_run can be mapped", mapping != MAP_FAILED);
		auto &state = *static_cast<volatile kvm_run *>(mapping);
		auto *port_data = static_cast<volatile uint8_t *>(mapping) + page;
		auto *ring = port_data + page;
		state.cr8 = 5;
		vcpu.close();
		equal("the id again", vm.fd().call(KVM_CREATE_VCPU, 3), -EEXIST);
		// What was touched, and what is for the first time.
		equal("kvm_run's CR8", state.cr8, 5u);
		*port_data = 7;
		equal("a port's data", *port_data, 7u);
		// A part of it is no less.
		equal("munmap", munmap(mapping, page), 0);
		equal("the id again", vm.fd().call(KVM_CREATE_VCPU, 3), -EEXIST);
		check_vmx(true);
		vm.fd().close();
		check_vmx(true);
		equal("a port's data", *port_data, 7u);
		equal("munmap", munmap(const_cast<uint8_t *>(port_data), page), 0);
		check_vmx(true);
		equal("the ring", *ring, 0u);
		equal("munmap", munmap(const_cast<uint8_t *>(ring), page), 0);
		check_vmx(false);
	}
	{
		Device device;
		Vm vm(device);
		{
			Vcpu vcpu(vm, 3);
			vcpu.fd().close();
			equal("the id again", vm.fd().call(KVM_CREATE_VCPU, 3), -EEXIST);
		}
		Vcpu again(vm, 3);
		check_vmx(true);
	}
	check_vmx(false);
}

void vm_goes_after_its_last_vcpu()
{
	for (const bool vm_first : {true, false}) {
		RealMachine machine(real::halt);
		auto second = std::make_unique<Vcpu>(machine.vm, 1);
		if (vm_first)
			machine.vm.fd().close();
		run_sum(*second);
		second.reset();
		check_vmx(true);
		run_sum(machine.vcpu);
		check_vmx(true);
	}
	check_vmx(false);
}

// ---- The module

void module_stays_while_used()
{
	kvmpp_only();
	{
		Device device;
		equal("rmmod with the device open", host::remove_module("kvmpp"), -EWOULDBLOCK);
	}
	{
		Fd vm;
		{
			Device device;
			vm = Fd(static_cast<int>(device.fd().call(KVM_CREATE_VM)));
			that("KVM_CREATE_VM", vm.get() >= 0);
		}
		equal("rmmod with a VM open", host::remove_module("kvmpp"), -EWOULDBLOCK);
		Fd vcpu(static_cast<int>(vm.call(KVM_CREATE_VCPU)));
		that("KVM_CREATE_VCPU", vcpu.get() >= 0);
		vm.close();
		equal("rmmod with a vCPU open", host::remove_module("kvmpp"), -EWOULDBLOCK);
		void *const run = mmap(nullptr, 0x1000, PROT_READ, MAP_SHARED, vcpu.get(), 0);
		that("kvm_run can be mapped", run != MAP_FAILED);
		vcpu.close();
		equal("rmmod with kvm_run mapped", host::remove_module("kvmpp"), -EWOULDBLOCK);
		munmap(run, 0x1000);
	}
	check_vmx(false);
	equal("rmmod", host::remove_unused_module("kvmpp"), 0);
	that("the device is gone", access(Device::path(), F_OK) != 0);
	equal("insert again", host::insert_module("kvmpp"), 0);
	RealMachine machine(real::halt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void module_out_and_in()
{
	kvmpp_only();
	for (unsigned round = 0; round < 5; round++) {
		{
			RealMachine machine(real::halt);
			machine.vcpu.run_until(KVM_EXIT_HLT);
		}
		equal("rmmod", host::remove_unused_module("kvmpp"), 0);
		equal("insert", host::insert_module("kvmpp"), 0);
		check_vmx(false);
	}
}

// kvmpp with the parameter, for as long as this lives.
class Reinserted
{
public:
	explicit Reinserted(const char *parameter)
	{
		equal("rmmod", host::remove_unused_module("kvmpp"), 0);
		equal("insert", host::insert_module("kvmpp", {parameter}), 0);
	}
	~Reinserted()
	{
		host::remove_unused_module("kvmpp");
		host::insert_module("kvmpp");
	}
};

void remove_kvm()
{
	equal("rmmod kvm_intel", host::remove_module("kvm_intel"), 0);
	host::remove_module("kvm");
}

void run_once()
{
	RealMachine machine(real::halt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

// There is one crash hook, and kvm_intel has it when it comes first. Linux 6.1's is in VMX operation
// while it has a VM; from 6.12 on it is from its load.
void kvm_intel_came_first()
{
	kvmpp_only();
	if (host::insert_module("kvm_intel"))
		ktap::skip("kvm_intel cannot be inserted");
	{
		Device device;
		equal("KVM_CREATE_VM", device.fd().call(KVM_CREATE_VM), -EBUSY);
		check_vmx(false);
	}
	{
		Reinserted kvmpp("allow_no_crash_hook=1");
		Fd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
		that("/dev/kvm can be opened", kvm.get() >= 0);
		{
			Fd vm(static_cast<int>(kvm.call(KVM_CREATE_VM)));
			that("kvm_intel makes a VM", vm.get() >= 0);
			Device device;
			equal("KVM_CREATE_VM", device.fd().call(KVM_CREATE_VM), -EBUSY);
			check_vmx(false);
		}
		kvm.close();
		equal("crash_hook", host::stats()["crash_hook"], 0u);
		remove_kvm();
		run_once();
		equal("crash_hook", host::stats()["crash_hook"], 1u);
	}
	run_once();
}

// And the reverse: kvm_intel must find kvmpp's VMX operation, not break it.
void kvmpp_came_first()
{
	kvmpp_only();
	{
		RealMachine machine(real::halt);
		that("kvm_intel is kept from the crash hook", host::insert_module("kvm_intel"));
		machine.vcpu.enter_real(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		equal("crash_hook", host::stats()["crash_hook"], 1u);
	}
	Reinserted kvmpp("allow_no_crash_hook=1");
	RealMachine machine(real::halt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	// From 6.12 on the insertion itself fails.
	if (host::insert_module("kvm_intel") == 0) {
		Fd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
		that("/dev/kvm can be opened", kvm.get() >= 0);
		equal("KVM_CREATE_VM of kvm_intel", kvm.call(KVM_CREATE_VM), -EBUSY);
		kvm.close();
		equal("crash_hook", host::stats()["crash_hook"], 0u);
		remove_kvm();
	}
	// Also where its init failed.
	equal("crash_hook", host::stats()["crash_hook"], 1u);
	check_vmx(true);
	machine.vcpu.enter_real(real::halt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

// ---- What is shown of it

void loaded_vmcss_are_shown()
{
	kvmpp_only();
	RealMachine machine(real::halt);
	Vcpu second(machine.vm, 7);
	host::pin({all_cpus.empty() ? 0 : all_cpus.front()});
	machine.vcpu.run_until(KVM_EXIT_HLT);
	const std::string text = host::read_file("/sys/kernel/debug/kvmpp/cpus");
	const std::string mine = " process " + std::to_string(getpid()) + " vcpu ";
	that("the vCPU that ran", text.find(mine + "0 launched\n") != std::string::npos);
	that("not the one that did not", text.find(mine + "7") == std::string::npos);
}

// From debugfs's exits, "cpu 1 io 4711" a line.
uint64_t exits_of_all_cpus(const std::string &reason)
{
	std::istringstream text(host::read_file("/sys/kernel/debug/kvmpp/exits"));
	std::string word, name;
	unsigned cpu;
	uint64_t count, sum = 0;
	while (text >> word >> cpu >> name >> count)
		sum += name == reason ? count : 0;
	that("a line of debugfs's exits is as documented", text.eof());
	return sum;
}

void exits_are_counted()
{
	kvmpp_only();
	auto before = host::stats();
	const uint64_t before_by_cpu = exits_of_all_cpus("cpuid");
	LongMachine machine(lm::identify);
	for (unsigned i = 0; i < 10; i++)
		call(machine, lm::identify);
	auto after = host::stats();
	equal("exits of all CPUs", exits_of_all_cpus("cpuid") - before_by_cpu, 10u);
	equal("exit_cpuid", after["exit_cpuid"] - before["exit_cpuid"], 10u);
	equal("exit_hlt", after["exit_hlt"] - before["exit_hlt"], 10u);
	uint64_t sum = 0;
	for (const auto &[name, value] : after)
		if (name.starts_with("exit_"))
			sum += value;
	equal("exits_total", after["exits_total"], sum);
}

void tracepoints_tell()
{
	kvmpp_only();
	const std::string tracing = "/sys/kernel/tracing";
	// Fails where it is mounted.
	mount("tracefs", tracing.c_str(), "tracefs", 0, nullptr);
	if (host::write_file(tracing + "/events/kvmpp/enable", "1"))
		ktap::skip("this kernel has no tracepoints");
	host::write_file(tracing + "/trace", "");
	run_once();
	host::write_file(tracing + "/events/kvmpp/enable", "0");
	const std::string trace = host::read_file(tracing + "/trace");
	const std::string vcpu = " process=" + std::to_string(getpid()) + " ";
	for (const std::string &event :
	     {std::string("kvmpp_vmx_on: cpu="), std::string("kvmpp_vmx_off: cpu="),
	      std::string("kvmpp_vmcs_load: cpu="), std::string("kvmpp_vmcs_clear: cpu="), vcpu,
	      std::string("vcpu=0 cause=free")})
		if (trace.find(event) == std::string::npos)
			expect::fail("the trace lacks \"%s\"", event.c_str());
}

constexpr ktap::Case cases[] = {
	{"vmx_follows_vms", vmx_follows_vms},
	{"moved_by_affinity", moved_by_affinity},
	{"vmcs_follows_thread", vmcs_follows_thread},
	{"cpu_offline_under_guest", cpu_offline_under_guest, 60},
	{"cpu_offline_under_pinned_guest", cpu_offline_under_pinned_guest},
	{"cpu_offline_under_idle_vmcs", cpu_offline_under_idle_vmcs},
	{"vm_gone_while_cpu_offline", vm_gone_while_cpu_offline},
	{"cpu_offline_before_first_vm", cpu_offline_before_first_vm},
	{"last_cpu_stays", last_cpu_stays},
	{"vms_come_and_go_under_hotplug", vms_come_and_go_under_hotplug, 60},
	{"first_and_last_vm_under_hotplug", first_and_last_vm_under_hotplug, 60},
	{"killed_under_hotplug", killed_under_hotplug},
	{"more_vcpus_than_cpus", more_vcpus_than_cpus},
	{"memory_given_back", memory_given_back, 90},
	{"vcpus_added_and_removed", vcpus_added_and_removed, 120},
	{"vcpus_added_by_two", vcpus_added_by_two, 60},
	{"kvm_run_outlives_its_descriptor", kvm_run_outlives_its_descriptor},
	{"vm_goes_after_its_last_vcpu", vm_goes_after_its_last_vcpu},
	{"exits_are_counted", exits_are_counted},
	{"loaded_vmcss_are_shown", loaded_vmcss_are_shown},
	{"tracepoints_tell", tracepoints_tell},
	{"module_stays_while_used", module_stays_while_used},
	{"module_out_and_in", module_out_and_in, 60},
	// Inserting kvm_intel takes the emulated machine a quarter of a minute.
	{"kvm_intel_came_first", kvm_intel_came_first, 120},
	{"kvmpp_came_first", kvmpp_came_first, 120},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
