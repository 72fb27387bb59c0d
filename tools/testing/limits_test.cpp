// SPDX-License-Identifier: GPL-2.0
//
// What a VMM can take of the machine: where that ends, it is told so, and what it has goes on; and what the
// kernel holds for it is charged to its memory cgroup.

#include "cgroup.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <memory>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;
namespace real = guest::real;

constexpr size_t kib = 1024, mib = 1024 * kib, gib = 1024 * mib;

// ---- Files

void files()
{
	RealMachine machine(real::halt);
	rlimit limit;
	that("getrlimit", getrlimit(RLIMIT_NOFILE, &limit) == 0);
	const int next = dup(0);
	close(next);
	const rlim_t before = limit.rlim_cur;
	limit.rlim_cur = static_cast<rlim_t>(next);
	that("setrlimit", setrlimit(RLIMIT_NOFILE, &limit) == 0);
	equal("KVM_CREATE_VM", machine.device.fd().call(KVM_CREATE_VM), -EMFILE);
	equal("KVM_CREATE_VCPU", machine.vm.fd().call(KVM_CREATE_VCPU, 1ul), -EMFILE);
	limit.rlim_cur = before;
	that("setrlimit", setrlimit(RLIMIT_NOFILE, &limit) == 0);
	// The id is still to be had, and the VM that came to nothing has left VMX as it was.
	Vcpu second(machine.vm, 1);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	if (Device::is_kvmpp())
		host::expect_vmx(true);
}

// ---- Memory

const Cgroup &cgroup()
{
	static const Cgroup one("limits");
	return one;
}

// In a process of the cgroup's, which Linux does not kill when there is no more memory, if it is not to.
void in_cgroup(bool may_be_killed, const std::function<void()> &life)
{
	const pid_t pid = fork();
	that("fork", pid >= 0);
	if (pid == 0) {
		if (!may_be_killed)
			equal("oom_score_adj",
			      host::write_file("/proc/self/oom_score_adj", "-1000"), 0);
		cgroup().enter();
		life();
		_exit(0);
	}
	if (!may_be_killed) {
		ktap::child_ok(pid);
		return;
	}
	int status = 0;
	that("waitpid", waitpid(pid, &status, 0) == pid);
	that("who takes more than there is, is killed",
	     WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

void need_cgroup()
{
	if (!Cgroup::is_there())
		ktap::skip("this kernel does not account memory to cgroups");
	cgroup().set_limit("max");
}

// How much more the kernel holds after it; counters lag behind by some pages a CPU.
void expect_charged(const char *what, size_t wanted, const std::function<void()> &take)
{
	const long before = cgroup().kernel_kib();
	take();
	const long more = cgroup().kernel_kib() - before;
	expect::note("%s: %ld KiB", what, more);
	if (more < static_cast<long>(wanted / kib * 3 / 4))
		expect::fail("%s: %ld KiB of %zu are charged", what, more, wanted / kib);
}

// More than the machine has, to be touched here and there.
std::byte *map_much(size_t size)
{
	void *const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	that("memory can be mapped", memory != MAP_FAILED);
	return static_cast<std::byte *>(memory);
}

void charged()
{
	need_cgroup();
	in_cgroup(false, [] {
		constexpr unsigned vcpus = 60;
		RealMachine machine(real::halt);
		std::vector<std::unique_ptr<Vcpu>> others;
		// Registers, CPUID, FPU state, VMCS, bitmaps, pages that user space sees.
		expect_charged("60 vCPUs", vcpus * 28 * kib, [&] {
			for (unsigned id = 1; id <= vcpus; id++)
				others.push_back(std::make_unique<Vcpu>(machine.vm, id));
		});
		constexpr size_t size = 32 * gib;
		std::byte *const memory = map_much(size);
		expect_charged("a dirty log of 32 GiB", 2 * (size / 4096 / 8), [&] {
			machine.vm.set_memory(1, gib, size, memory, KVM_MEM_LOG_DIRTY_PAGES);
		});
	});
	in_cgroup(false, [] {
		constexpr size_t size = gib, step = 2 * mib;
		LongMachine machine(lm::poke);
		std::byte *const memory = map_much(size);
		madvise(memory, size, MADV_NOHUGEPAGE);
		machine.vm.set_memory(1, gib, size, memory);
		// The VMM's own page tables, which are charged as well.
		for (size_t at = 0; at < size; at += step)
			memory[at] = std::byte{1};
		expect_charged("an EPT of 512 tables", size / step * 4 * kib, [&] {
			for (size_t at = 0; at < size; at += step)
				call(machine, lm::poke, at, gib + at);
		});
		equal("what the guest wrote", *reinterpret_cast<uint64_t *>(memory + step), step);
	});
	equal("KiB left", cgroup().wait_for_less(256) < 256, true);
}

// The VMM has no more: it is told so, what it has goes on, and with more memory so does the rest.
void no_more_memory()
{
	need_cgroup();
	in_cgroup(false, [] {
		RealMachine machine(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		cgroup().set_limit("4M");
		std::vector<Fd> vcpus;
		vcpus.reserve(1023);
		long result = 0;
		for (unsigned long id = 1; id < 1023; id++) {
			result = machine.vm.fd().call(KVM_CREATE_VCPU, id);
			if (result < 0)
				break;
			vcpus.emplace_back(static_cast<int>(result));
		}
		expect::note("%zu vCPUs in 4 MiB", vcpus.size());
		equal("KVM_CREATE_VCPU", result, -ENOMEM);
		const unsigned long refused = vcpus.size() + 1;
		equal("KVM_CREATE_VM", machine.device.fd().call(KVM_CREATE_VM), -ENOMEM);
		machine.vcpu.enter_real(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		cgroup().set_limit("max");
		Vcpu more(machine.vm, refused);
		more.enter_real(real::halt);
		more.run_until(KVM_EXIT_HLT);
	});
	equal("KiB left", cgroup().wait_for_less(256) < 256, true);
	if (Device::is_kvmpp())
		host::expect_vmx(false);
}

void killed_for_memory()
{
	need_cgroup();
	cgroup().set_limit("6M");
	in_cgroup(true, [] {
		RealMachine machine(real::halt);
		for (unsigned long id = 1; id < 1023; id++)
			machine.vm.fd().call(KVM_CREATE_VCPU, id);
	});
	cgroup().set_limit("max");
	equal("KiB left", cgroup().wait_for_less(256) < 256, true);
	if (Device::is_kvmpp())
		host::expect_vmx(false);
}

constexpr ktap::Case cases[] = {
	{"files", files},
	{"charged", charged, 120},
	{"no_more_memory", no_more_memory, 120},
	{"killed_for_memory", killed_for_memory, 120},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
