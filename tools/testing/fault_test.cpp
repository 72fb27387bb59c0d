// SPDX-License-Identifier: GPL-2.0
//
// Each allocation, and each access to user memory, that an ioctl makes fails in turn: the ioctl says
// so, nothing has changed, and the same again works. Needs a kernel with fault injection: debug-6.1.

#include "dedicated.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;
namespace real = guest::real;

// More than any call here needs.
constexpr unsigned enough = 400;

// The calling thread's n-th allocation, or access to user memory, from now on fails.
class Injection
{
public:
	explicit Injection(unsigned n) { write(n); }
	Injection(const Injection &) = delete;
	Injection &operator=(const Injection &) = delete;
	~Injection() { write(0); }

	// How many more it would have taken, 0 if it has failed.
	static unsigned left()
	{
		char text[16] = {};
		// Giving us the number is an access to user memory, too: the last that was left.
		if (pread(file(), text, sizeof(text) - 1, 0) <= 0)
			return 1;
		return static_cast<unsigned>(std::strtoul(text, nullptr, 10));
	}

private:
	static int file()
	{
		static const int fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
		return fd;
	}
	static void write(unsigned n)
	{
		const std::string text = std::to_string(n);
		const auto length = static_cast<ssize_t>(text.size());
		// This, too, is an access to user memory: what was left from before may fail it.
		that("fail-nth can be set",
		     pwrite(file(), text.data(), text.size(), 0) == length ||
			     pwrite(file(), text.data(), text.size(), 0) == length);
	}
};

void prepare()
{
	const std::string debugfs = "/sys/kernel/debug/";
	if (access("/proc/thread-self/fail-nth", F_OK))
		ktap::skip("the kernel has no fault injection");
	// Opens what it needs now, not in the middle of a case.
	const Injection none(0);
	host::have_debugfs();
	// Those of GFP_KERNEL as well, without a stack dump in the log for each.
	for (const char *const kind : {"failslab", "fail_page_alloc"})
		equal(kind, host::write_file(debugfs + kind + "/ignore-gfp-wait", "N"), 0);
	equal("min-order", host::write_file(debugfs + "fail_page_alloc/min-order", "0"), 0);
	equal("ignore-gfp-highmem",
	      host::write_file(debugfs + "fail_page_alloc/ignore-gfp-highmem", "N"), 0);
	for (const char *const kind : {"failslab", "fail_page_alloc", "fail_usercopy"})
		equal(kind, host::write_file(debugfs + kind + "/verbose", "0"), 0);
}

void check_vmx(bool on)
{
	if (Device::is_kvmpp())
		host::expect_vmx(on);
}

int free_descriptor()
{
	const int fd = dup(0);
	that("dup", fd >= 0);
	close(fd);
	return fd;
}

struct Attempt {
	long result; // or -errno
	bool injected;
};

template <typename Call> Attempt try_with(unsigned n, Call call)
{
	const Injection injection(n);
	const long result = call();
	return {result, Injection::left() == 0};
}

bool is_clean(long error)
{
	return error == -ENOMEM || error == -EFAULT;
}

// Calls it with the first, second, ... one failing until it needs no more; each round between
// before(), which makes what it needs, and after(failed), which looks at what it has left. What
// fails may be something that the kernel can do without.
template <typename Before, typename Call, typename After>
void fail_each(const char *what, Before before, Call call, After after)
{
	unsigned failed = 0;
	for (unsigned n = 1; n < enough; n++) {
		before();
		const int free_before = free_descriptor();
		const Attempt attempt = try_with(n, call);
		if (attempt.result < 0 && !(attempt.injected && is_clean(attempt.result)))
			expect::fail("%s with number %u failing: %s%s", what, n,
				     std::strerror(static_cast<int>(-attempt.result)),
				     attempt.injected ? "" : ", although none did");
		if (attempt.result < 0) {
			failed++;
			that("no descriptor is lost", free_descriptor() <= free_before);
		}
		after(attempt.result);
		if (!attempt.injected) {
			expect::note("%s: %u of %u made it fail", what, failed, n - 1);
			return;
		}
	}
	expect::fail("%s never passes", what);
}

void create_vm()
{
	prepare();
	Device device;
	fail_each(
		"KVM_CREATE_VM", [] {}, [&] { return device.fd().call(KVM_CREATE_VM); },
		[&](long result) {
			if (result >= 0)
				close(static_cast<int>(result));
			check_vmx(false);
		});
	Vm vm(device);
	check_vmx(true);
}

void create_vcpu()
{
	prepare();
	Device device;
	std::optional<Vm> vm;
	fail_each(
		"KVM_CREATE_VCPU", [&] { vm.emplace(device); },
		[&] { return vm->fd().call(KVM_CREATE_VCPU, 1ul); },
		[&](long result) {
			if (result >= 0) {
				close(static_cast<int>(result));
				return;
			}
			// The id is still to be had.
			Vcpu vcpu(*vm, 1);
		});
}

void set_memory()
{
	prepare();
	Device device;
	Vm vm(device);
	Memory memory(0x4000);
	constexpr uint64_t here = 0x10000, there = 0x20000;
	const auto exists_at = [&](uint64_t gpa) {
		const long result = vm.try_set_memory(7, gpa, 0x1000, memory.data());
		if (result == 0)
			vm.set_memory(7, 0, 0, nullptr);
		else
			equal("a slot's overlap", result, -EEXIST);
		return result != 0;
	};
	const auto put = [&](uint64_t gpa) {
		if (exists_at(here) || exists_at(there))
			vm.set_memory(1, 0, 0, nullptr);
		if (gpa)
			vm.set_memory(1, gpa, memory.size(), memory.data());
	};
	fail_each(
		"a slot that comes", [&] { put(0); },
		[&] { return vm.try_set_memory(1, here, memory.size(), memory.data()); },
		[&](long result) { equal("it is there", exists_at(here), result == 0); });
	fail_each(
		"a slot that moves", [&] { put(here); },
		[&] { return vm.try_set_memory(1, there, memory.size(), memory.data()); },
		[&](long result) {
			equal("it is where it was", exists_at(here), result != 0);
			equal("it is where it should be", exists_at(there), result == 0);
		});
	fail_each(
		"a slot that goes", [&] { put(here); },
		[&] { return vm.try_set_memory(1, 0, 0, nullptr); },
		[&](long result) { equal("it is there", exists_at(here), result != 0); });
}

void map_run()
{
	prepare();
	RealMachine machine(real::halt);
	const size_t size = machine.device.run_size();
	void *address = nullptr;
	fail_each(
		"mmap of kvm_run", [] {},
		[&] {
			address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED,
				       machine.vcpu.fd().get(), 0);
			return address == MAP_FAILED ? -errno : 0;
		},
		[&](long result) {
			if (result == 0)
				munmap(address, size);
		});
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

// The first run of a guest that writes to a page that nobody has touched: tables of the EPT and of
// the VMM, and its page.
void first_run()
{
	prepare();
	constexpr uint64_t address = GUEST_SCRATCH + 0x5000;
	std::optional<LongMachine> machine;
	fail_each(
		"KVM_RUN",
		[&] {
			machine.emplace(lm::poke);
			kvm_regs regs = machine->vcpu.regs();
			regs.rip = lm::poke;
			regs.rax = 0x1234;
			regs.rbx = address;
			machine->vcpu.set_regs(regs);
		},
		[&] { return machine->vcpu.try_run(); },
		[&](long result) {
			if (result < 0)
				machine->vcpu.run_until(KVM_EXIT_HLT);
			equal("exit_reason", machine->vcpu.state().exit_reason, KVM_EXIT_HLT);
			equal("what the guest wrote", machine->at<uint64_t>(address), 0x1234u);
			machine.reset();
			check_vmx(false);
		});
}

void registers()
{
	prepare();
	RealMachine machine(real::halt);
	kvm_sregs sregs = machine.vcpu.sregs();
	kvm_regs regs = machine.vcpu.regs();
	const Fd &fd = machine.vcpu.fd();
	const auto unchanged = [&](long) {
		equal("CR2", machine.vcpu.sregs().cr2, sregs.cr2);
		equal("RAX", machine.vcpu.regs().rax, regs.rax);
	};
	fail_each(
		"KVM_GET_REGS", [] {}, [&] { return fd.call(KVM_GET_REGS, &regs); }, unchanged);
	fail_each(
		"KVM_GET_SREGS", [] {}, [&] { return fd.call(KVM_GET_SREGS, &sregs); }, unchanged);
	kvm_regs new_regs = regs;
	new_regs.rax = 0x1234;
	fail_each(
		"KVM_SET_REGS", [] {}, [&] { return fd.call(KVM_SET_REGS, &new_regs); },
		[&](long result) {
			equal("RAX", machine.vcpu.regs().rax, result ? regs.rax : 0x1234u);
		});
	kvm_sregs new_sregs = sregs;
	new_sregs.cr2 = 0x5678;
	fail_each(
		"KVM_SET_SREGS", [] {}, [&] { return fd.call(KVM_SET_SREGS, &new_sregs); },
		[&](long result) {
			equal("CR2", machine.vcpu.sregs().cr2, result ? sregs.cr2 : 0x5678u);
		});
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

// Nothing that an end needs may fail.
void ends()
{
	prepare();
	std::unique_ptr<RealMachine> machine;
	const auto unmap = [&] {
		return munmap(&machine->vcpu.state(), machine->device.run_size()) ? -errno : 0;
	};
	fail_each(
		"the last reference to a VM that has run",
		[&] {
			machine = std::make_unique<RealMachine>(real::halt);
			machine->vcpu.run_until(KVM_EXIT_HLT);
		},
		[&] {
			machine->vcpu.fd().close();
			machine->vm.fd().close();
			return unmap();
		},
		[&](long result) {
			// The mapping is the last reference to the vCPU.
			if (result < 0)
				equal("munmap", unmap(), 0);
			check_vmx(false);
			// Its destructors would unmap again what may be something else by then.
			(void)machine.release();
		});
}

// What SET takes: the CPU's memory, the page tables, and what Linux needs to go without the CPU.
void dedicate()
{
	dedicated::begin();
	prepare();
	std::optional<dedicated::ApicMachine> machine;
	const unsigned cpu = dedicated::last_cpu;
	fail_each(
		"KVMPP_SET_DEDICATED_CPU", [&] { machine.emplace(guest::apic::cpuids); },
		[&] { return dedicated::set_cpu(machine->vcpu, static_cast<int>(cpu)); },
		[&](long result) {
			equal("its CPU", dedicated::get_cpu(machine->vcpu),
			      result ? -1 : static_cast<int>(cpu));
			equal("Linux has the CPU", dedicated::is_online(cpu), result != 0);
			// It runs, here or there.
			machine->result(dedicated::stop) = 1;
			machine->vcpu.run_until_out(0x80, 1);
			machine.reset();
			check_vmx(false);
			that("Linux has the CPU", dedicated::is_online(cpu));
		});
}

// The first run there: the vCPU's second bitmap, and all that a first run needs anywhere.
void first_dedicated_run()
{
	dedicated::begin();
	prepare();
	std::optional<dedicated::ApicMachine> machine;
	const unsigned cpu = dedicated::last_cpu;
	fail_each(
		"KVM_RUN on a CPU of its own",
		[&] {
			machine.emplace(guest::apic::cpuids);
			machine->result(dedicated::stop) = 1;
			dedicated::dedicate(machine->vcpu, cpu);
		},
		[&] { return machine->vcpu.try_run(); },
		[&](long result) {
			equal("its CPU", dedicated::get_cpu(machine->vcpu), static_cast<int>(cpu));
			if (result < 0)
				machine->vcpu.run_until_out(0x80, 1);
			equal("exit_reason", machine->vcpu.state().exit_reason, KVM_EXIT_IO);
			equal("rounds of the guest", machine->result(dedicated::rounds), 1u);
			machine.reset();
			check_vmx(false);
			that("Linux has the CPU", dedicated::is_online(cpu));
		});
}

// Of a load's hundreds the last ones: those of the module's own start, and a few of the loader after it.
void module_load()
{
	if (!Device::is_kvmpp())
		ktap::skip("not on %s", Device::path());
	prepare();
	equal("rmmod", host::remove_unused_module("kvmpp"), 0);
	utsname name;
	uname(&name);
	const std::string path = std::string("/lib/modules/") + name.release + "/extra/kvmpp.ko";
	const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
	that("the module's file can be opened", file.get() >= 0);
	const auto load = [&] {
		return syscall(SYS_finit_module, file.get(), "", 0) ? -errno : 0l;
	};

	constexpr unsigned many = 1'000'000;
	unsigned all;
	{
		const Injection injection(many);
		equal("load", load(), 0);
		all = many - Injection::left();
	}
	equal("rmmod", host::remove_module("kvmpp"), 0);

	// As many as the module's start needs at the least: its CPUs' pages, hotplug, debugfs, the device.
	constexpr unsigned failures = 24;
	unsigned failed = 0, n = all + 8;
	for (; failed < failures; n--) {
		that("a failure among the last makes the load fail", n > all / 2);
		const Attempt attempt = try_with(n, load);
		if (attempt.result < 0) {
			that("a load fails for the injected failure only", attempt.injected);
			equal("the load's error", attempt.result, -ENOMEM);
			failed++;
		} else {
			equal("rmmod", host::remove_module("kvmpp"), 0);
		}
		that("the module is gone", !host::module_loaded("kvmpp"));
		that("the device is gone", access(Device::path(), F_OK) != 0);
	}
	expect::note("%u of the last %u of %u made it fail", failed, all - n, all);
	equal("load", load(), 0);
	RealMachine machine(real::halt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

// What has been lost in the cases before, as kmemleak sees it. In Bochs a scan takes six minutes of its
// clock.
void nothing_leaked()
{
	const char *const kmemleak = "/sys/kernel/debug/kmemleak";
	host::have_debugfs();
	// Reports come at the second scan that finds no reference.
	if (host::write_file(kmemleak, "scan"))
		ktap::skip("the kernel has no kmemleak");
	equal("scan", host::write_file(kmemleak, "scan"), 0);
	const std::string leaks = host::read_file(kmemleak);
	if (leaks.find("kvmpp") != std::string::npos)
		expect::fail("%.400s", leaks.c_str());
}

// In Bochs debug-6.1 is slow, and its clock runs.
constexpr ktap::Case cases[] = {
	{"create_vm", create_vm, 120},
	{"create_vcpu", create_vcpu, 120},
	{"set_memory", set_memory, 120},
	{"map_run", map_run, 120},
	{"first_run", first_run, 240},
	{"registers", registers, 120},
	{"ends", ends, 120},
	{"dedicate", dedicate, 1200},
	{"first_dedicated_run", first_dedicated_run, 1200},
	{"module_load", module_load, 600},
	{"nothing_leaked", nothing_leaked, 1800},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
