// SPDX-License-Identifier: GPL-2.0
//
// VMX that cannot be switched on, or by the user's wish is on at other times: with another
// hypervisor on the machine (the module vmx_hog), exclusive=0, enable_at_load=1.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "steady.hpp"

#include <cerrno>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;
namespace real = guest::real;

const char *const hog_directory = "/sys/module/vmx_hog/parameters/";

// A kvmpp of its own for each case, inserted after the hog: the hog's hotplug callback is first then.
void insert(const std::vector<std::string> &parameters = {})
{
	if (!Device::is_kvmpp())
		ktap::skip("not on %s", Device::path());
	// A failed case before this one may have left anything.
	for (unsigned cpu = 1; cpu < 64; cpu++)
		host::set_online(cpu, true);
	for (const char *module : {"kvmpp", "vmx_hog"})
		if (host::module_loaded(module))
			equal("rmmod", host::remove_unused_module(module), 0);
	if (host::insert_module("vmx_hog"))
		ktap::skip("vmx_hog cannot be inserted");
	equal("insertion", host::insert_module("kvmpp", parameters), 0);
}

void need_parameter(const char *name)
{
	if (Device::is_kvmpp() && !host::has_parameter("kvmpp", name))
		ktap::skip("kvmpp has no parameter %s", name);
}

int hog_takes(unsigned cpu)
{
	return host::write_file(std::string(hog_directory) + "cpu", std::to_string(cpu));
}

void hog_lets_go()
{
	equal("the hog lets go", host::write_file(std::string(hog_directory) + "cpu", "-1"), 0);
}

// Which CPUs have CR4.VMXE set, as "0-3", whoever did it.
void expect_vmxe(const std::string &cpus)
{
	std::string text = host::read_file(std::string(hog_directory) + "vmxe");
	that("vmxe can be read", !text.empty());
	text.pop_back();
	if (text != cpus)
		expect::fail("CR4.VMXE is set on CPUs \"%s\", expected \"%s\"", text.c_str(),
			     cpus.c_str());
}

std::string all_online()
{
	std::string text = host::read_file("/sys/devices/system/cpu/online");
	text.pop_back();
	return text;
}

unsigned last_cpu()
{
	return host::online_cpus().back();
}

void run_to_halt(Machine &machine)
{
	machine.vcpu.enter_real(real::halt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void a_vm_works()
{
	RealMachine machine(real::halt);
	for (const unsigned cpu : host::online_cpus()) {
		host::pin({cpu});
		run_to_halt(machine);
	}
	host::pin(host::online_cpus());
}

// ---- Another hypervisor

void failure_on_one_cpu_undoes_the_others()
{
	insert();
	unsigned told = 0;
	for (const unsigned cpu : host::online_cpus()) {
		equal("the hog takes a CPU", hog_takes(cpu), 0);
		expect_vmxe(std::to_string(cpu));
		host::Log log;
		Device device;
		equal("KVM_CREATE_VM", device.fd().call(KVM_CREATE_VM), -EBUSY);
		host::expect_vmx(false);
		expect_vmxe(std::to_string(cpu));
		const auto lines = log.take("kvmpp: CPU " + std::to_string(cpu));
		// Three in five seconds at most.
		if (told < 3)
			equal("lines in the log", lines.size(), 1u);
		told++;
		hog_lets_go();
		expect_vmxe("");
		a_vm_works();
		host::expect_vmx(false);
		expect_vmxe("");
	}
}

void every_cpu_taken()
{
	insert();
	for (const unsigned cpu : host::online_cpus())
		equal("the hog takes a CPU", hog_takes(cpu), 0);
	host::Log log;
	Device device;
	equal("KVM_CREATE_VM", device.fd().call(KVM_CREATE_VM), -EBUSY);
	equal("lines in the log", log.take("kvmpp: ").size(), 1u);
	expect_vmxe(all_online());
	hog_lets_go();
	a_vm_works();
}

// The reverse: what kvmpp has nobody else gets.
void hog_comes_second()
{
	insert();
	{
		SteadyGuest guest;
		expect_vmxe(all_online());
		for (const unsigned cpu : host::online_cpus())
			equal("the hog takes a CPU", hog_takes(cpu), -EBUSY);
		guest.check_progress();
	}
	host::expect_vmx(false);
	expect_vmxe("");
}

void cpu_that_cannot_stays_offline()
{
	insert();
	const unsigned cpu = last_cpu();
	if (cpu == 0)
		ktap::skip("one CPU only");
	{
		SteadyGuest guest;
		equal("offline", host::set_online(cpu, false), 0);
		const std::string others = all_online();
		// When it comes online the hog is there first.
		equal("the hog waits for the CPU", hog_takes(cpu), 0);
		for (unsigned i = 0; i < 3; i++) {
			host::Log log;
			equal("online", host::set_online(cpu, true), -EBUSY);
			// Linux 6.12 tries six times before it gives up with EBUSY.
			that("the log says why",
			     !log.take("kvmpp: CPU " + std::to_string(cpu)).empty());
			that("it is still offline", all_online() == others);
			host::expect_vmx(true);
			expect_vmxe(others);
			guest.check_progress();
		}
		guest.finish();
	}
	host::expect_vmx(false);
	equal("online without a VM", host::set_online(cpu, true), 0);
	expect_vmxe(std::to_string(cpu));
	{
		Device device;
		equal("KVM_CREATE_VM", device.fd().call(KVM_CREATE_VM), -EBUSY);
	}
	hog_lets_go();
	a_vm_works();
}

// The same, but then the hog goes: the CPU comes, and guests run there.
void cpu_comes_once_it_can()
{
	insert();
	const unsigned cpu = last_cpu();
	if (cpu == 0)
		ktap::skip("one CPU only");
	SteadyGuest guest;
	equal("offline", host::set_online(cpu, false), 0);
	equal("the hog waits for the CPU", hog_takes(cpu), 0);
	equal("online", host::set_online(cpu, true), -EBUSY);
	hog_lets_go();
	equal("online", host::set_online(cpu, true), 0);
	host::expect_vmx(true);
	expect_vmxe(all_online());
	host::pin({cpu}, guest.tid());
	guest.check_progress();
}

// ---- exclusive=0

void vmxe_clear_between_runs()
{
	need_parameter("exclusive");
	insert({"exclusive=0"});
	LongMachine machine(lm::peek);
	machine.at<uint64_t>(GUEST_SCRATCH) = 0x1234;
	expect_vmxe("");
	for (unsigned i = 0; i < 3; i++) {
		for (const unsigned cpu : host::online_cpus()) {
			host::pin({cpu});
			call(machine, lm::peek, 0, GUEST_SCRATCH);
			equal("what the guest reads", machine.vcpu.regs().rax, 0x1234u);
			expect_vmxe("");
			host::expect_vmx(false);
		}
	}
}

void two_share_the_machine_in_turn()
{
	need_parameter("exclusive");
	insert({"exclusive=0"});
	LongMachine machine(lm::peek);
	machine.at<uint64_t>(GUEST_SCRATCH) = 0x1234;
	const auto cpus = host::online_cpus();
	for (const unsigned cpu : cpus) {
		host::pin({cpu});
		call(machine, lm::peek, 0, GUEST_SCRATCH);
		kvm_sregs sregs;
		kvm_regs regs = machine.vcpu.regs();
		regs.rip = lm::peek;
		machine.vcpu.set_regs(regs);
		equal("the hog takes a CPU", hog_takes(cpu), 0);
		for (unsigned i = 0; i < 3; i++)
			equal("KVM_RUN on the hog's CPU", machine.vcpu.try_run(), -EBUSY);
		// Registers that are in the VMCS are out of reach, too.
		equal("KVM_GET_SREGS on the hog's CPU",
		      machine.vcpu.fd().call(KVM_GET_SREGS, &sregs), -EBUSY);
		expect_vmxe(std::to_string(cpu));
		if (cpus.size() > 1) {
			host::pin({cpu == cpus.front() ? cpus.back() : cpus.front()});
			machine.vcpu.run_until(KVM_EXIT_HLT);
			machine.vcpu.set_regs(regs);
			host::pin({cpu});
		}
		hog_lets_go();
		equal("RIP", machine.vcpu.regs().rip, lm::peek);
		call(machine, lm::peek, 0, GUEST_SCRATCH);
		equal("what the guest reads", machine.vcpu.regs().rax, 0x1234u);
	}
	expect_vmxe("");
}

// Guests take turns on the CPUs, which come and go.
void hotplug_without_exclusive()
{
	need_parameter("exclusive");
	insert({"exclusive=0"});
	const auto cpus = host::online_cpus();
	std::vector<std::unique_ptr<SteadyGuest>> guests;
	for (size_t i = 0; i < 2 * cpus.size(); i++)
		guests.push_back(std::make_unique<SteadyGuest>());
	const auto all_progress = [&] {
		for (const auto &guest : guests)
			guest->check_progress();
	};
	for (unsigned round = 0; round < 3 && cpus.size() > 1; round++) {
		host::pin({cpus.back()}, guests.front()->tid());
		guests.front()->check_progress();
		host::pin(cpus, guests.front()->tid());
		equal("offline", host::set_online(cpus.back(), false), 0);
		all_progress();
		equal("online", host::set_online(cpus.back(), true), 0);
		all_progress();
	}
	for (const auto &guest : guests)
		guest->finish();
	guests.clear();
	expect_vmxe("");
}

// A CPU comes online although the other one has it: nobody needs VMX there before a guest runs.
void cpu_of_the_hog_comes_online()
{
	need_parameter("exclusive");
	insert({"exclusive=0"});
	const unsigned cpu = last_cpu();
	if (cpu == 0)
		ktap::skip("one CPU only");
	RealMachine machine(real::halt);
	equal("offline", host::set_online(cpu, false), 0);
	equal("the hog waits for the CPU", hog_takes(cpu), 0);
	equal("online", host::set_online(cpu, true), 0);
	host::pin({cpu});
	equal("KVM_RUN on the hog's CPU", machine.vcpu.try_run(), -EBUSY);
	hog_lets_go();
	run_to_halt(machine);
}

// ---- enable_at_load=1

void on_from_load_to_removal()
{
	need_parameter("enable_at_load");
	insert({"enable_at_load=1"});
	const unsigned cpu = last_cpu();
	const auto check = [] {
		host::expect_vmx(true);
		expect_vmxe(all_online());
	};
	check();
	a_vm_works();
	check();
	if (cpu != 0) {
		equal("offline", host::set_online(cpu, false), 0);
		check();
		equal("online", host::set_online(cpu, true), 0);
		check();
	}
	{
		RealMachine machine(real::halt);
		run_to_halt(machine);
		equal("rmmod with a VM open", host::remove_module("kvmpp"), -EWOULDBLOCK);
		check();
	}
	equal("rmmod", host::remove_unused_module("kvmpp"), 0);
	expect_vmxe("");
	equal("insertion", host::insert_module("kvmpp"), 0);
	expect_vmxe("");
	a_vm_works();
}

void load_fails_where_a_cpu_is_taken()
{
	need_parameter("enable_at_load");
	insert();
	equal("rmmod", host::remove_unused_module("kvmpp"), 0);
	for (const unsigned cpu : host::online_cpus()) {
		equal("the hog takes a CPU", hog_takes(cpu), 0);
		that("insertion fails", host::insert_module("kvmpp", {"enable_at_load=1"}) != 0);
		that("the module is not there", !host::module_loaded("kvmpp"));
		expect_vmxe(std::to_string(cpu));
		hog_lets_go();
	}
	equal("insertion", host::insert_module("kvmpp"), 0);
	a_vm_works();
}

// Last, so that others find the machine as it was.
void hog_goes()
{
	insert();
	equal("the hog takes a CPU", hog_takes(last_cpu()), 0);
	equal("rmmod vmx_hog", host::remove_module("vmx_hog"), 0);
	a_vm_works();
}

constexpr ktap::Case cases[] = {
	{"failure_on_one_cpu_undoes_the_others", failure_on_one_cpu_undoes_the_others},
	{"every_cpu_taken", every_cpu_taken},
	{"hog_comes_second", hog_comes_second},
	{"cpu_that_cannot_stays_offline", cpu_that_cannot_stays_offline},
	{"cpu_comes_once_it_can", cpu_comes_once_it_can},
	{"vmxe_clear_between_runs", vmxe_clear_between_runs},
	{"two_share_the_machine_in_turn", two_share_the_machine_in_turn},
	{"hotplug_without_exclusive", hotplug_without_exclusive, 90},
	{"cpu_of_the_hog_comes_online", cpu_of_the_hog_comes_online},
	{"on_from_load_to_removal", on_from_load_to_removal},
	{"load_fails_where_a_cpu_is_taken", load_fails_where_a_cpu_is_taken},
	{"hog_goes", hog_goes},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
