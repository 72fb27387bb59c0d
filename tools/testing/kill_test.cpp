// SPDX-License-Identifier: GPL-2.0
//
// kill -9 of a VMM, whatever it is doing at that moment: it is gone soon, and with it its VMs, VMX
// and every VMCS, and a CPU that it had for its own is Linux's. The moments are swept over what the VMM
// does, not random.

#include "cgroup.hpp"
#include "dedicated.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <uapi/kvmpp.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;
namespace real = guest::real;

// KILL_SHARE=N: the N-th part of the kills, for a slow machine.
unsigned share_of(unsigned kills)
{
	const char *text = std::getenv("KILL_SHARE");
	return std::max(kills / (text ? std::max(std::atoi(text), 1) : 1), 1u);
}

std::chrono::microseconds longest_death{};

// A process that says when it has begun, and is killed.
class Victim
{
public:
	using Life = void (*)(std::atomic<unsigned> &begun);

	explicit Victim(Life life)
	{
		void *page = mmap(nullptr, sizeof(*begun_), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		that("memory can be mapped", page != MAP_FAILED);
		begun_ = new (page) std::atomic<unsigned>(0);
		pid_ = fork();
		that("fork", pid_ >= 0);
		if (pid_ == 0) {
			life(*begun_);
			_exit(1);
		}
	}
	Victim(const Victim &) = delete;
	Victim &operator=(const Victim &) = delete;
	~Victim() { munmap(begun_, sizeof(*begun_)); }

	// Until life() has counted so far.
	void wait_for(unsigned begun) const
	{
		for (unsigned i = 0; *begun_ < begun; i++) {
			that("the VMM begins", i < 10'000);
			usleep(1'000);
		}
	}
	// Returns when it is gone.
	void die() const
	{
		const auto start = Clock::now();
		equal("kill", kill(pid_, SIGKILL), 0);
		int status = 0;
		while (waitpid(pid_, &status, WNOHANG) == 0) {
			that("a killed VMM is gone within 5 s", Clock::now() - start < 5s);
			usleep(500);
		}
		that("the VMM lived until it was killed",
		     WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		longest_death = std::max(longest_death,
					 std::chrono::duration_cast<std::chrono::microseconds>(
						 Clock::now() - start));
	}
	unsigned begun() const { return *begun_; }

private:
	std::atomic<unsigned> *begun_;
	pid_t pid_;
};

void check_nothing_left()
{
	if (Device::is_kvmpp())
		host::expect_vmx(false);
}

void tell_longest_death()
{
	expect::note("gone within %lld us", (long long)longest_death.count());
}

// Kills at moments spread evenly over the time from the beginning on.
void sweep(Victim::Life life, unsigned kills, unsigned microseconds, unsigned begun = 1)
{
	kills = share_of(kills);
	for (unsigned i = 0; i < kills; i++) {
		const Victim victim(life);
		victim.wait_for(begun);
		usleep(microseconds * i / kills);
		victim.die();
		check_nothing_left();
	}
	tell_longest_death();
}

void making_vms()
{
	sweep(
		[](std::atomic<unsigned> &begun) {
			Device device;
			begun = 1;
			for (;;)
				Vm vm(device);
		},
		40, 8'000);
}

// Without another VM each of these is the first one, which switches VMX on, and the last.
void making_vms_while_there_is_one()
{
	{
		RealMachine machine(real::halt);
		for (unsigned i = 0; i < 20; i++) {
			const Victim victim([](std::atomic<unsigned> &begun) {
				Device device;
				begun = 1;
				for (;;)
					Vm vm(device);
			});
			victim.wait_for(1);
			usleep(200 * i);
			victim.die();
		}
		machine.vcpu.run_until(KVM_EXIT_HLT);
	}
	check_nothing_left();
	tell_longest_death();
}

void making_vcpus()
{
	sweep(
		[](std::atomic<unsigned> &begun) {
			for (;;) {
				Device device;
				Vm vm(device);
				begun = 1;
				for (unsigned id = 0; id < 20; id++)
					Vcpu vcpu(vm, id);
			}
		},
		40, 8'000);
}

// The first KVM_RUN, with all that it faults in.
void first_run()
{
	sweep(
		[](std::atomic<unsigned> &begun) {
			for (;;) {
				RealMachine machine(real::halt);
				begun = 1;
				machine.vcpu.run_until(KVM_EXIT_HLT);
			}
		},
		30, 6'000);
}

void running_on_each_cpu()
{
	for (const unsigned cpu : host::online_cpus()) {
		for (unsigned i = 0; i < 3; i++) {
			host::pin({cpu});
			const Victim victim([](std::atomic<unsigned> &begun) {
				RealMachine machine(real::spin);
				begun = 1;
				machine.vcpu.try_run();
			});
			host::pin(host::online_cpus());
			victim.wait_for(1);
			usleep(3'000 + 1'700 * i);
			victim.die();
			check_nothing_left();
		}
	}
	tell_longest_death();
}

// Threads of one VM, one for each CPU and one that shares a CPU.
void run_everywhere(std::atomic<unsigned> &begun)
{
	const auto cpus = host::online_cpus();
	RealMachine machine(real::spin);
	std::vector<std::thread> threads;
	for (unsigned i = 0; i <= cpus.size(); i++) {
		threads.emplace_back([&, i] {
			host::pin({cpus[i % cpus.size()]});
			Vcpu vcpu(machine.vm, 1 + i);
			vcpu.enter_real(real::spin);
			begun++;
			vcpu.try_run();
		});
	}
	for (std::thread &thread : threads)
		thread.join();
}

void running_on_all_cpus()
{
	const auto cpus = static_cast<unsigned>(host::online_cpus().size());
	sweep(run_everywhere, 8, 20'000, cpus + 1);
}

// Slots come, move and go under a running vCPU.
void changing_slots()
{
	sweep(
		[](std::atomic<unsigned> &begun) {
			RealMachine machine(real::spin);
			std::thread runner([&] { machine.vcpu.try_run(); });
			Memory memory(0x10000);
			begun = 1;
			for (;;) {
				machine.vm.set_memory(1, 0x100000, memory.size(), memory.data());
				machine.vm.set_memory(1, 0x200000, memory.size(), memory.data());
				machine.vm.set_memory(1, 0, 0, nullptr);
			}
		},
		30, 40'000);
}

// Pages leave the guest as it touches them.
void losing_pages()
{
	sweep(
		[](std::atomic<unsigned> &begun) {
			RealMachine machine(real::spin);
			std::thread runner([&] { machine.vcpu.try_run(); });
			begun = 1;
			for (;;)
				madvise(machine.memory.data() + GUEST_RESULTS, 0x1000,
					MADV_DONTNEED);
		},
		30, 10'000);
}

// Somewhere between the first and the last of what is done to take a CPU offline, or back: also
// while threads of the VMM find VMX off and wait for a CPU where it is on.
void as_a_cpu_goes_or_comes()
{
	const auto cpus = host::online_cpus();
	if (cpus.size() < 2)
		ktap::skip("one CPU only");
	const unsigned kills = share_of(16);
	// How long each takes, with a VM like the ones to be killed.
	std::chrono::microseconds takes[2];
	{
		const Victim victim(run_everywhere);
		victim.wait_for(static_cast<unsigned>(cpus.size()) + 1);
		for (const bool online : {false, true}) {
			const auto start = Clock::now();
			equal("offline or online", host::set_online(cpus.back(), online), 0);
			takes[online] = std::chrono::duration_cast<std::chrono::microseconds>(
				Clock::now() - start);
		}
		victim.die();
	}
	for (unsigned i = 0; i < kills; i++) {
		for (const bool online : {false, true}) {
			// Made anew each time, so that it has a thread on each CPU that is there.
			const Victim victim(run_everywhere);
			victim.wait_for(static_cast<unsigned>(host::online_cpus().size()) + 1);
			int result = 1;
			std::thread hotplug(
				[&] { result = host::set_online(cpus.back(), online); });
			usleep(static_cast<unsigned>(takes[online].count()) * i / kills);
			victim.die();
			hotplug.join();
			equal("offline or online", result, 0);
			check_nothing_left();
		}
	}
	expect::note("offline took %lld us, online %lld us", (long long)takes[0].count(),
		     (long long)takes[1].count());
	tell_longest_death();
}

void send_fd(int socket, int fd)
{
	char byte = 0;
	iovec data{&byte, 1};
	alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
	msghdr message{};
	message.msg_iov = &data;
	message.msg_iovlen = 1;
	message.msg_control = control;
	message.msg_controllen = sizeof(control);
	cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	equal("sendmsg", sendmsg(socket, &message, 0), 1);
}

int receive_fd(int socket)
{
	char byte;
	iovec data{&byte, 1};
	alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
	msghdr message{};
	message.msg_iov = &data;
	message.msg_iovlen = 1;
	message.msg_control = control;
	message.msg_controllen = sizeof(control);
	equal("recvmsg", recvmsg(socket, &message, 0), 1);
	const cmsghdr *header = CMSG_FIRSTHDR(&message);
	that("a descriptor came", header && header->cmsg_type == SCM_RIGHTS);
	int fd;
	std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

int sockets[2];

// The vCPU outlives its VMM, with its VM, but nobody can run it.
void vcpu_passed_on()
{
	equal("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	for (unsigned i = 0; i < 6; i++) {
		{
			const Victim victim([](std::atomic<unsigned> &begun) {
				RealMachine machine(real::spin);
				send_fd(sockets[1], machine.vcpu.fd().get());
				begun = 1;
				machine.vcpu.try_run();
			});
			const Fd vcpu(receive_fd(sockets[0]));
			victim.wait_for(1);
			usleep(1'000 * i);
			equal("KVM_RUN in another process", vcpu.call(KVM_RUN), -EIO);
			victim.die();
			if (Device::is_kvmpp())
				host::expect_vmx(true);
			equal("KVM_RUN after the VMM's end", vcpu.call(KVM_RUN), -EIO);
			kvm_regs regs;
			equal("KVM_GET_REGS", vcpu.call(KVM_GET_REGS, &regs), -EIO);
			if (Device::is_kvmpp())
				equal("rmmod", host::remove_module("kvmpp"), -EWOULDBLOCK);
		}
		check_nothing_left();
	}
}

// Nobody has received the message yet: the file is in the socket only.
void vcpu_on_its_way()
{
	equal("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	const Victim victim([](std::atomic<unsigned> &begun) {
		RealMachine machine(real::spin);
		send_fd(sockets[1], machine.vcpu.fd().get());
		begun = 1;
		machine.vcpu.try_run();
	});
	victim.wait_for(1);
	victim.die();
	if (Device::is_kvmpp())
		host::expect_vmx(true);
	close(sockets[0]);
	close(sockets[1]);
	check_nothing_left();
}

// A child of the VMM has all its files, and the shared page mapped.
void vcpu_inherited()
{
	for (unsigned i = 0; i < 6; i++) {
		const Victim victim([](std::atomic<unsigned> &begun) {
			RealMachine machine(real::spin);
			const pid_t child = fork();
			if (child == 0)
				pause();
			begun = static_cast<unsigned>(child);
			machine.vcpu.try_run();
		});
		victim.wait_for(1);
		const auto child = static_cast<pid_t>(victim.begun());
		usleep(1'000 * i);
		victim.die();
		if (Device::is_kvmpp())
			host::expect_vmx(true);
		equal("kill of the child", kill(child, SIGKILL), 0);
		check_nothing_left();
	}
}

const Cgroup &victims()
{
	static const Cgroup cgroup("victims");
	return cgroup;
}

// Linux accounts what a VM takes to its VMM's cgroup: what is left there is lost.
void expect_memory_back(Victim::Life life, unsigned kills)
{
	if (!Cgroup::is_there())
		ktap::skip("this kernel does not account memory to cgroups");
	const long page_each_kib = kills * 4;
	long highest = 0;
	for (unsigned i = 0; i < kills; i++) {
		const Victim victim(life);
		victim.wait_for(1);
		usleep(200 * i);
		highest = std::max(highest, victims().kernel_kib());
		victim.die();
	}
	check_nothing_left();
	const long left = victims().wait_for_less(page_each_kib / 2);
	if (left >= page_each_kib / 2)
		expect::fail("%ld KiB of %u killed VMMs are left, %ld KiB at most", left, kills,
			     highest);
	expect::note("%ld KiB at most, %ld KiB left", highest, left);
}

void memory_given_back()
{
	expect_memory_back(
		[](std::atomic<unsigned> &begun) {
			victims().enter();
			RealMachine machine(real::spin);
			Vcpu second(machine.vm, 1);
			begun = 1;
			machine.vcpu.try_run();
		},
		40);
}

// ---- With a CPU of its own

void check_cpu_is_back(unsigned cpu = dedicated::last_cpu)
{
	check_nothing_left();
	dedicated::wait_for("Linux has the CPU", [cpu] { return dedicated::is_online(cpu); });
	that("nobody has it", dedicated::line_of(cpu).empty());
}

// What SET, a run there, and the way back take.
struct Times {
	unsigned set, run, release;
};

Times measure_dedicating()
{
	const auto since = [](Clock::time_point start) {
		return static_cast<unsigned>(
			std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start)
				.count());
	};
	dedicated::ApicMachine m(guest::apic::cpuids);
	m.result(dedicated::stop) = 1;
	auto start = Clock::now();
	dedicated::dedicate(m.vcpu, dedicated::last_cpu);
	Times times{};
	times.set = since(start);
	start = Clock::now();
	m.vcpu.run_until_out(0x80, 1);
	times.run = since(start);
	start = Clock::now();
	dedicated::release(m.vcpu);
	times.release = since(start);
	expect::note("SET takes %u us, a run %u us, release %u us", times.set, times.run,
		     times.release);
	return times;
}

// Over the CPU's way from Linux, the guest's first run there, and the way back.
void taking_a_cpu()
{
	dedicated::begin();
	const Times times = measure_dedicating();
	const unsigned kills = share_of(30);
	for (unsigned i = 0; i < kills; i++) {
		const Victim victim([](std::atomic<unsigned> &begun) {
			dedicated::ApicMachine m(guest::apic::cpuids);
			m.result(dedicated::stop) = 1;
			begun = 1;
			for (;;) {
				dedicated::dedicate(m.vcpu, dedicated::last_cpu);
				m.vcpu.run_until_out(0x80, 1);
				dedicated::ApicMachine::enter(m.vcpu, guest::apic::cpuids);
				dedicated::release(m.vcpu);
			}
		});
		victim.wait_for(1);
		usleep((times.set + times.run + times.release) * i / kills);
		victim.die();
		check_cpu_is_back();
	}
	tell_longest_death();
}

// In KVM_RUN there: a guest that computes, one that exits all the time, one that has halted; and each again
// while another thread does SET and release.
void running_on_its_own_cpu()
{
	dedicated::begin();
	static uint64_t entry;
	static bool moves;
	for (const bool moving : {false, true})
		for (const uint64_t e :
		     {guest::apic::spin, guest::apic::cpuids, guest::apic::halt_enabled}) {
			entry = e;
			moves = moving;
			const unsigned kills = share_of(moving ? 12 : 4);
			for (unsigned i = 0; i < kills; i++) {
				const Victim victim([](std::atomic<unsigned> &begun) {
					dedicated::ApicMachine m(entry);
					dedicated::dedicate(m.vcpu, dedicated::last_cpu);
					std::thread mover([&] {
						while (moves) {
							dedicated::release(m.vcpu);
							dedicated::dedicate(m.vcpu,
									    dedicated::last_cpu);
						}
					});
					begun = 1;
					for (;;)
						m.vcpu.try_run();
				});
				victim.wait_for(1);
				usleep((moving ? 10'000 : 2'000) * i);
				victim.die();
				check_cpu_is_back();
			}
		}
	tell_longest_death();
}

// Of another process that gives the vCPU a CPU and takes it away. The VMM is not disturbed.
void giving_a_cpu_to_another()
{
	dedicated::begin();
	const Times times = measure_dedicating();
	static dedicated::ApicMachine *vmm;
	dedicated::ApicMachine m(guest::apic::cpuids);
	vmm = &m;
	{
		dedicated::Runner runner(m.vcpu);
		const unsigned kills = share_of(20);
		for (unsigned i = 0; i < kills; i++) {
			const Victim victim([](std::atomic<unsigned> &begun) {
				begun = 1;
				for (;;) {
					dedicated::dedicate(vmm->vcpu, dedicated::last_cpu);
					dedicated::release(vmm->vcpu);
				}
			});
			victim.wait_for(1);
			usleep((times.set + times.release) * i / kills);
			victim.die();
			const int cpu = dedicated::get_cpu(m.vcpu);
			equal("either it has the CPU or Linux",
			      dedicated::is_online(dedicated::last_cpu), cpu == -1);
			dedicated::wait_for(
				"the guest goes on", [&, before = m.result(dedicated::rounds)] {
					return m.result(dedicated::rounds) > before + 10;
				});
			if (cpu != -1)
				dedicated::release(m.vcpu);
		}
		m.result(dedicated::stop) = 1;
		runner.join();
		equal("never interrupted", runner.interrupted(), 0u);
	}
	that("Linux has the CPU", dedicated::is_online(dedicated::last_cpu));
	tell_longest_death();
}

// Two processes at the same vCPU, and at the same CPU with a vCPU each.
void at_the_same_cpu()
{
	dedicated::begin();
	dedicated::ApicMachine first(guest::apic::cpuids), second(guest::apic::cpuids);
	for (dedicated::ApicMachine *other : {&first, &second}) {
		dedicated::Runner runner(first.vcpu), runner_of_second(second.vcpu);
		pid_t pids[2];
		for (unsigned i = 0; i < 2; i++) {
			pids[i] = fork();
			if (pids[i])
				continue;
			const Vcpu &vcpu = i ? other->vcpu : first.vcpu;
			unsigned done = 0;
			for (unsigned turn = 0; done < share_of(8); turn++) {
				that("each has its turn", turn < 5'000);
				const long set = dedicated::set_cpu(
					vcpu, static_cast<int>(dedicated::last_cpu));
				if (set) {
					equal("SET's error", set, -EBUSY);
					usleep(i * 1'000 + 500);
					continue;
				}
				done++;
				usleep(5'000);
				// With one vCPU the other may have been quicker.
				const long result = dedicated::set_cpu(vcpu, -1);
				if (result && result != -EINVAL)
					equal("release's error", result, -EBUSY);
				usleep(20'000);
			}
			// Each does what may meet the other's SET and release.
			for (unsigned turn = 0; turn < share_of(20); turn++) {
				(void)dedicated::set_cpu(vcpu, -1);
				usleep(7'000);
				(void)dedicated::set_cpu(vcpu,
							 static_cast<int>(dedicated::last_cpu));
			}
			_exit(0);
		}
		for (const pid_t pid : pids)
			ktap::child_ok(pid);
		for (const dedicated::ApicMachine *m : {&first, &second})
			if (dedicated::get_cpu(m->vcpu) != -1)
				dedicated::release(m->vcpu);
		that("Linux has the CPU", dedicated::is_online(dedicated::last_cpu));
		for (dedicated::ApicMachine *m : {&first, &second}) {
			dedicated::wait_for(
				"the guest goes on", [&, before = m->result(dedicated::rounds)] {
					return m->result(dedicated::rounds) > before + 10;
				});
			m->result(dedicated::stop) = 1;
		}
		runner.join();
		runner_of_second.join();
		for (dedicated::ApicMachine *m : {&first, &second}) {
			m->result(dedicated::stop) = 0;
			dedicated::ApicMachine::enter(m->vcpu, guest::apic::cpuids);
		}
	}
}

// As many processes as there are CPUs to be had, each at its own: nothing fails, they only wait.
void at_the_same_time()
{
	dedicated::begin(4);
	std::vector<pid_t> pids;
	for (const unsigned cpu : host::online_cpus()) {
		if (cpu == 0)
			continue;
		pids.push_back(fork());
		if (pids.back())
			continue;
		dedicated::ApicMachine m(guest::apic::cpuids);
		m.result(dedicated::stop) = 1;
		for (unsigned round = 0; round < share_of(20); round++) {
			dedicated::dedicate(m.vcpu, cpu);
			m.vcpu.run_until_out(0x80, 1);
			dedicated::ApicMachine::enter(m.vcpu, guest::apic::cpuids);
			dedicated::release(m.vcpu);
		}
		_exit(0);
	}
	for (const pid_t pid : pids)
		ktap::child_ok(pid);
	check_nothing_left();
}

// The VMM dies, and with it its files, while another process does SET on its vCPU.
void closed_during_set()
{
	dedicated::begin();
	const Times times = measure_dedicating();
	equal("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	const unsigned kills = share_of(16);
	for (unsigned i = 0; i < kills; i++) {
		{
			const Victim victim([](std::atomic<unsigned> &begun) {
				dedicated::ApicMachine m(guest::apic::cpuids);
				send_fd(sockets[1], m.vcpu.fd().get());
				begun = 1;
				m.vcpu.try_run();
			});
			Fd vcpu(receive_fd(sockets[0]));
			victim.wait_for(1);
			std::thread setter([&] {
				equal("SET",
				      vcpu.call(KVMPP_SET_DEDICATED_CPU, dedicated::last_cpu), 0);
				// Its last file goes while it has the CPU.
				if (i % 2)
					equal("release",
					      vcpu.call(KVMPP_SET_DEDICATED_CPU,
							static_cast<unsigned long>(-1)),
					      0);
				vcpu.close();
			});
			usleep(times.set * i / kills);
			victim.die();
			setter.join();
		}
		check_cpu_is_back();
	}
	tell_longest_death();
}

// The VM, the vCPU, its shared page, in any order.
void files_closed_in_any_order()
{
	dedicated::begin();
	unsigned order[] = {0, 1, 2};
	do {
		// Its destructors would close and unmap what may be something else by then.
		auto *m = new dedicated::ApicMachine(guest::apic::cpuids);
		dedicated::dedicate(m->vcpu, dedicated::last_cpu);
		m->result(dedicated::stop) = 1;
		m->vcpu.run_until_out(0x80, 1);
		unsigned of_vcpu = 2;
		for (const unsigned what : order) {
			equal("it has the CPU as long as it is there",
			      !dedicated::is_online(dedicated::last_cpu), of_vcpu > 0);
			of_vcpu -= what != 0;
			if (what == 0)
				m->vm.fd().close();
			else if (what == 1)
				m->vcpu.fd().close();
			else
				equal("munmap", munmap(&m->vcpu.state(), m->device.run_size()), 0);
		}
		dedicated::wait_for("Linux has the CPU",
				    [] { return dedicated::is_online(dedicated::last_cpu); });
		check_cpu_is_back();
	} while (std::next_permutation(std::begin(order), std::end(order)));
}

void memory_given_back_with_a_cpu()
{
	dedicated::begin();
	expect_memory_back(
		[](std::atomic<unsigned> &begun) {
			victims().enter();
			dedicated::ApicMachine m(guest::apic::spin);
			dedicated::dedicate(m.vcpu, dedicated::last_cpu);
			begun = 1;
			m.vcpu.try_run();
		},
		16);
	check_cpu_is_back();
}

// After all those deaths nothing holds the module.
void module_goes()
{
	if (!Device::is_kvmpp())
		ktap::skip("not on %s", Device::path());
	equal("rmmod", host::remove_unused_module("kvmpp"), 0);
	equal("insertion", host::insert_module("kvmpp"), 0);
	RealMachine machine(real::halt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

constexpr ktap::Case cases[] = {
	{"making_vms", making_vms, 60},
	{"making_vms_while_there_is_one", making_vms_while_there_is_one, 60},
	{"making_vcpus", making_vcpus, 60},
	{"first_run", first_run, 60},
	{"running_on_each_cpu", running_on_each_cpu, 60},
	{"running_on_all_cpus", running_on_all_cpus, 60},
	{"changing_slots", changing_slots, 60},
	{"losing_pages", losing_pages, 60},
	{"as_a_cpu_goes_or_comes", as_a_cpu_goes_or_comes, 120},
	{"vcpu_passed_on", vcpu_passed_on, 60},
	{"vcpu_on_its_way", vcpu_on_its_way},
	{"vcpu_inherited", vcpu_inherited, 60},
	{"memory_given_back", memory_given_back, 120},
	{"taking_a_cpu", taking_a_cpu, 120},
	{"running_on_its_own_cpu", running_on_its_own_cpu, 120},
	{"giving_a_cpu_to_another", giving_a_cpu_to_another, 60},
	{"at_the_same_cpu", at_the_same_cpu, 60},
	{"at_the_same_time", at_the_same_time, 60},
	{"closed_during_set", closed_during_set, 60},
	{"files_closed_in_any_order", files_closed_in_any_order, 60},
	{"memory_given_back_with_a_cpu", memory_given_back_with_a_cpu, 120},
	{"module_goes", module_goes, 60},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
