// SPDX-License-Identifier: GPL-2.0
//
// What VMs and vCPUs cost, beside their exits: to make, run and destroy one, the memory that each takes, a vCPU that is
// kicked or goes to another CPU, and a CPU that goes offline with VMCSs loaded on it. Only said, in lines "# measured NAME
// VALUE...".

#include "apic_machine.hpp"
#include "bochs.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "measured.hpp"
#include "vm.hpp"

#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using measured::Samples;

const unsigned samples = measured::wanted("BENCH_SAMPLES", 5);

// ---- The smallest guest: one page, which is that of all VMs, with the reset vector in it. There a port is written to, and
// again with each run.

constexpr uint64_t page_size = 0x1000, last_page = 0xfffff000, reset_vector = 0xff0;

const Memory &code()
{
	static const Memory memory = [] {
		constexpr uint8_t out_and_again[] = {0xe6, 0x80, 0xeb, 0xfc};
		Memory page(page_size);
		std::memcpy(page.data() + reset_vector, out_and_again, sizeof(out_and_again));
		return page;
	}();
	return memory;
}

class SmallVcpu
{
public:
	explicit SmallVcpu(const Vm &vm, unsigned long id)
		: fd_(static_cast<int>(vm.fd().call(KVM_CREATE_VCPU, id))),
		  run_size_(vm.device().run_size())
	{
		that("KVM_CREATE_VCPU", fd_.get() >= 0);
		void *mapping =
			mmap(nullptr, run_size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
		that("kvm_run can be mapped", mapping != MAP_FAILED);
		run_ = static_cast<kvm_run *>(mapping);
	}
	SmallVcpu(const SmallVcpu &) = delete;
	SmallVcpu &operator=(const SmallVcpu &) = delete;
	~SmallVcpu() { munmap(run_, run_size_); }

	// To the next write.
	void run() const
	{
		equal("KVM_RUN", fd_.call(KVM_RUN), 0);
		equal("exit reason", run_->exit_reason, KVM_EXIT_IO);
	}

private:
	Fd fd_;
	size_t run_size_;
	kvm_run *run_;
};

struct SmallVm {
	SmallVm(const Device &device, unsigned count) : vm(device)
	{
		vm.set_memory(0, last_page, page_size, code().data());
		for (unsigned id = 0; id < count; id++)
			vcpus.push_back(std::make_unique<SmallVcpu>(vm, id));
	}

	Vm vm;
	std::vector<std::unique_ptr<SmallVcpu>> vcpus;
};

// What Linux does later is done.
void settle()
{
	usleep(200'000);
}

// ---- On one CPU

void make_run_destroy()
{
	measured::need_one_cpu();
	const Device device;
	const auto batch = [&](unsigned rounds) {
		const uint64_t before = bochs::instructions(0);
		for (unsigned i = 0; i < rounds; i++)
			SmallVm(device, 1).vcpus[0]->run();
		settle();
		return bochs::instructions(0) - before;
	};
	measured::of_a_round(samples, 1, 6, batch).say("life.make_run_destroy");
}

// With those that are only kept at hand for the CPUs.
uint64_t free_pages()
{
	settle();
	// Brings the counts up to date.
	host::write_file("/proc/sys/vm/stat_refresh", "1");
	std::istringstream lines(host::read_file("/proc/zoneinfo"));
	std::string line;
	uint64_t sum = 0;
	while (std::getline(lines, line)) {
		std::istringstream words(line);
		std::string first, second;
		words >> first >> second;
		if (first == "pages" && second == "free")
			words >> second;
		else if (first != "count:")
			continue;
		sum += std::stoull(second);
	}
	return sum;
}

// All have run.
void memory()
{
	const unsigned count = 8 * samples;
	constexpr double page_kib = 4;
	measured::need_one_cpu();
	const Device device;
	std::vector<std::unique_ptr<SmallVm>> vms;
	const auto add = [&](unsigned how_many, unsigned with) {
		for (unsigned i = 0; i < how_many; i++) {
			vms.push_back(std::make_unique<SmallVm>(device, with));
			for (const auto &vcpu : vms.back()->vcpus)
				vcpu->run();
		}
	};
	const auto take_by_each = [&](unsigned with) {
		const uint64_t before = free_pages();
		add(count, with);
		return page_kib * static_cast<double>(before - free_pages()) / count;
	};
	// What slabs have room for.
	add(count, 2);
	const double with_one = take_by_each(1), with_two = take_by_each(2);
	measured::say("memory.vcpu", with_two - with_one);
	measured::say("memory.vm", 2 * with_one - with_two);
}

// ---- On several: the last two

struct Cpus {
	Cpus()
	{
		measured::need_cpus(2);
		const auto online = host::online_cpus();
		last = online.back();
		other = online[online.size() - 2];
	}

	uint64_t instructions() const
	{
		return bochs::instructions(last) + bochs::instructions(other);
	}

	unsigned last, other;
};

// The VMM's thread goes, and the vCPU is run there. To go alone takes much, which is Linux's.
void moved()
{
	const Cpus cpus;
	const Device device;
	const SmallVm small(device, 1);
	const SmallVcpu &vcpu = *small.vcpus[0];
	vcpu.run();

	const auto batch_of = [&](bool with_vcpu) {
		return [&cpus, &vcpu, with_vcpu](unsigned rounds) {
			const uint64_t before = cpus.instructions();
			for (unsigned i = 0; i < rounds; i++) {
				host::pin({i % 2 ? cpus.last : cpus.other});
				if (with_vcpu)
					vcpu.run();
			}
			return cpus.instructions() - before;
		};
	};
	// Many, since what CPUs wait for each other is different each time.
	const Samples alone = measured::of_a_round(samples, 2, 202, batch_of(false));
	const Samples with_vcpu = measured::of_a_round(samples, 2, 202, batch_of(true));
	alone.say("moved.alone");
	with_vcpu.say("moved.with_vcpu");
	measured::say("moved.vcpu", static_cast<double>(with_vcpu.median()) -
					    static_cast<double>(alone.median()));
}

// From the interrupt by which Linux reaches a CPU whose thread has got a signal until the signal's handler, in user space.
void kick()
{
	using Result = ApicMachine::Result;
	constexpr uint8_t reschedule_vector = 0xfd;
	const Cpus cpus;
	ApicMachine m(guest::apic::spin, Irqchip::none);
	host::pin({cpus.other});
	Runner runner(m.vcpu, cpus.last);
	Samples kicks;
	for (unsigned i = 0; i < 4 * samples; i++) {
		const unsigned interrupted = runner.interrupted();
		const uint64_t rounds = m.now(Result::rounds);
		wait_for("the guest computes", [&] { return m.now(Result::rounds) > rounds; });
		// That was at a tick of Linux's; not each time at the same distance from it.
		measured::spin_microseconds(370 * (i % 10));
		const bochs::Stopwatch watch(cpus.last,
					     bochs::Stopwatch::interrupt(reschedule_vector),
					     reinterpret_cast<uint64_t>(&Runner::on_kick));
		runner.kick();
		wait_for("KVM_RUN returns", [&] { return runner.interrupted() > interrupted; });
		if (watch.result().count == 1)
			kicks.add(watch.result().sum);
	}
	kicks.say("kick.to_user_space");
	m.result(Result::stop) = 1;
	runner.join();
}

// Of the CPU that goes, with what Linux does for that.
void cpu_offline()
{
	constexpr unsigned most = 100;
	const Cpus cpus;
	const Device device;
	const SmallVm small(device, 2 * most);
	// The first half is for the CPU that goes.
	const auto load = [&](unsigned first, unsigned count, unsigned cpu) {
		host::pin({cpu});
		for (unsigned id = first; id < first + count; id++)
			small.vcpus[id]->run();
	};
	// The least, which has no wait in it for another CPU.
	const auto offline = [&](unsigned there, unsigned elsewhere) {
		Samples of_cpu, of_all;
		const unsigned count = cpus.last + 1;
		for (unsigned i = 0; i < samples; i++) {
			load(0, there, cpus.last);
			load(most, elsewhere, cpus.other);
			host::pin({0});
			settle();
			const uint64_t all = measured::instructions_of_all(count);
			const uint64_t before = bochs::instructions(cpus.last);
			equal("offline", host::set_online(cpus.last, false), 0);
			of_cpu.add(bochs::instructions(cpus.last) - before);
			of_all.add(measured::instructions_of_all(count) - all);
			equal("online", host::set_online(cpus.last, true), 0);
		}
		const std::string name = "offline." + std::to_string(there) + "_there_" +
					 std::to_string(elsewhere) + "_elsewhere";
		const auto least = static_cast<double>(of_cpu.least());
		measured::say((name + ".cpu").c_str(), least);
		of_all.say((name + ".all").c_str());
		return least;
	};
	offline(1, 0);
	const double one = offline(1, most);
	offline(10, most);
	measured::say("offline.per_vmcs", (offline(most, most) - one) / (most - 1));
}

constexpr ktap::Case cases[] = {
	{"make_run_destroy", make_run_destroy},
	{"memory", memory},
	{"moved", moved},
	{"kick", kick},
	{"cpu_offline", cpu_offline, 120},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
