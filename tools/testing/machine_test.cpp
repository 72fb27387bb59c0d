// SPDX-License-Identifier: GPL-2.0
//
// What happens to the whole machine while guests run on every CPU, and the last CPUs are dedicated to
// some: sleep and resume, and its end by reboot, kexec or a crash. The cases that end it run only when
// named. After a kexec or a crash the second kernel runs after_kexec or after_crash: see second-command.

#include "dedicated.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <deque>
#include <elf.h>
#include <fcntl.h>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <thread>
#include <unistd.h>
#include <x86intrin.h>

namespace
{

using expect::equal;
using expect::that;
namespace real = guest::real;

// GDTR bases of the guests, one for each CPU, by which their VMCSs are known again in memory.
constexpr uint64_t marker_running = 0x4b56'4d50'0000;
constexpr uint64_t marker_idle = 0x4b56'4d51'0000;
constexpr uint64_t marker_dedicated = 0x4b56'4d52'0000;

void mark(const Vcpu &vcpu, uint64_t marker)
{
	kvm_sregs sregs = vcpu.sregs();
	sregs.gdt.base = marker;
	vcpu.set_sregs(sregs);
}

constexpr uint32_t rounds = 300'000;

constexpr uint32_t sum_of_rounds()
{
	uint32_t sum = 0;
	for (uint32_t i = 1; i <= rounds; i++) {
		sum += i;
		sum = sum << 1 | sum >> 31;
		sum ^= i;
	}
	return sum;
}

// A guest that runs on one CPU without end. What it computes is checked.
class Running
{
public:
	explicit Running(unsigned cpu) : cpu_(cpu), thread_([this] { run(); }) {}

	~Running()
	{
		stop_ = true;
		thread_.join();
	}

	// Some of what is seen began after the call.
	void expect_progress() const
	{
		const unsigned before = finished_;
		for (unsigned i = 0; i < 1'000; i++) {
			if (finished_ >= before + 2)
				return;
			usleep(10'000);
		}
		expect::fail("the guest on CPU %u makes no progress", cpu_);
	}

private:
	void run()
	{
		host::pin({cpu_});
		static const uint32_t wanted = sum_of_rounds();
		RealMachine machine(real::sum);
		mark(machine.vcpu, marker_running + cpu_);
		while (!stop_) {
			kvm_regs regs = machine.vcpu.regs();
			regs.rip = real::sum;
			regs.rdi = rounds;
			machine.vcpu.set_regs(regs);
			// Being frozen interrupts it.
			long result;
			while ((result = machine.vcpu.try_run()) == -EINTR)
				;
			equal("KVM_RUN", result, 0);
			equal("the exit", machine.vcpu.state().exit_reason, KVM_EXIT_HLT);
			equal("the guest's sum", machine.vcpu.regs().rax, wanted);
			finished_++;
		}
		equal("the guest's GDTR", machine.vcpu.sregs().gdt.base, marker_running + cpu_);
	}

	const unsigned cpu_;
	std::atomic<unsigned> finished_ = 0;
	std::atomic<bool> stop_ = false;
	std::thread thread_;
};

// A guest which has halted on a CPU, where its VMCS stays loaded.
class Idle
{
public:
	explicit Idle(unsigned cpu) : cpu_(cpu)
	{
		host::pin({cpu});
		machine_.emplace(real::halt);
		mark(machine_->vcpu, marker_idle + cpu);
		machine_->vcpu.run_until(KVM_EXIT_HLT);
	}

	// Once only: it goes on behind its HLT.
	void expect_to_go_on()
	{
		host::pin({cpu_});
		equal("the guest's GDTR", machine_->vcpu.sregs().gdt.base, marker_idle + cpu_);
		machine_->vcpu.run_until(KVM_EXIT_HLT);
		equal("the guest's AL", machine_->vcpu.regs().rax & 0xff, 0x77u);
	}

private:
	const unsigned cpu_;
	std::optional<RealMachine> machine_;
};

// On each CPU one that runs and one that has halted.
class Guests
{
public:
	Guests()
	{
		for (const unsigned cpu : cpus_) {
			idle_.emplace_back(cpu);
			running_.emplace_back(cpu);
		}
		host::pin(cpus_);
		expect_progress();
	}

	void expect_progress() const
	{
		for (const Running &guest : running_)
			guest.expect_progress();
	}

	void expect_to_go_on()
	{
		expect_progress();
		for (Idle &guest : idle_)
			guest.expect_to_go_on();
		host::pin(cpus_);
	}

	size_t cpus() const { return cpus_.size(); }

private:
	const std::vector<unsigned> cpus_ = host::online_cpus();
	std::deque<Idle> idle_;
	std::deque<Running> running_;
};

// A guest with a CPU of its own, where it computes, or has halted without an exit.
class OnOwnCpu
{
public:
	OnOwnCpu(unsigned cpu, uint64_t entry)
		: cpu_(cpu), spins_(entry == guest::apic::spin), machine_(entry)
	{
		mark(machine_.vcpu, marker_dedicated + cpu);
		dedicate();
	}

	void dedicate()
	{
		dedicated::dedicate(machine_.vcpu, cpu_);
		if (!runner_)
			runner_.emplace(machine_.vcpu);
		dedicated::wait_for("it runs there", [this] {
			return dedicated::line_of(cpu_)["state"] == "running";
		});
		if (spins_)
			expect_progress();
	}
	void expect_progress() const
	{
		const uint64_t before = rounds();
		dedicated::wait_for("the guest with a CPU of its own goes on",
				    [&] { return rounds() > before; });
	}
	// The machine has taken the CPU back.
	void expect_on_shared_cpu()
	{
		equal("its CPU", dedicated::get_cpu(machine_.vcpu), -1);
		that("Linux has the CPU", dedicated::is_online(cpu_));
		if (spins_) {
			expect_progress();
			return;
		}
		// A guest that has halted is one for user space to wake.
		equal("the exit", runner_->join_any(), static_cast<uint32_t>(KVM_EXIT_HLT));
		runner_.reset();
		machine_.vcpu.run_until_out(0x81, 1);
		dedicated::ApicMachine::enter(machine_.vcpu, guest::apic::halt_enabled);
	}
	void release() { dedicated::release(machine_.vcpu); }

private:
	uint64_t rounds() const
	{
		return std::atomic_ref(machine_.result(dedicated::rounds)).load();
	}

	const unsigned cpu_;
	const bool spins_;
	dedicated::ApicMachine machine_;
	std::optional<dedicated::Runner> runner_;
};

// So many that Linux keeps two, and those that run guests on all CPUs keep theirs.
unsigned count_dedicated()
{
	return Device::is_kvmpp() && host::online_cpus().size() >= 4 ? 2 : 0;
}

// The last CPU has a guest that computes, the one before it a guest that has halted.
class DedicatedGuests
{
public:
	explicit DedicatedGuests(unsigned count = count_dedicated())
	{
		const auto cpus = host::online_cpus();
		constexpr uint64_t entries[] = {guest::apic::spin, guest::apic::halt_enabled};
		for (unsigned i = 0; i < count; i++)
			guests_.emplace_back(cpus[cpus.size() - 1 - i], entries[i]);
	}

	std::deque<OnOwnCpu> &all() { return guests_; }

private:
	std::deque<OnOwnCpu> guests_;
};

void check_vmx(bool on)
{
	if (Device::is_kvmpp())
		host::expect_vmx(on);
}

bool offers(const char *path, const char *word)
{
	return host::read_file(path).find(word) != std::string::npos;
}

void write(const char *path, const char *text)
{
	const int result = host::write_file(path, text);
	if (result)
		expect::fail("\"%s\" to %s: %s", text, path, strerrorname_np(-result));
}

void suspend_to_ram()
{
	if (!offers("/sys/power/mem_sleep", "deep"))
		ktap::skip("no S3 here");
	write("/sys/power/mem_sleep", "deep");
	check_vmx(false);
	{
		Guests guests;
		auto before =
			Device::is_kvmpp() ? host::stats() : std::map<std::string, uint64_t>();
		// Comes back once the machine has woken up.
		write("/sys/power/state", "mem");
		if (Device::is_kvmpp()) {
			auto after = host::stats();
			const auto rise = [&](const char *name) {
				return after[name] - before[name];
			};
			equal("rise of vmx_disables", rise("vmx_disables"), guests.cpus());
			equal("rise of vmx_enables", rise("vmx_enables"), guests.cpus());
			equal("rise of vmclears_offline", rise("vmclears_offline"),
			      2 * guests.cpus());
		}
		check_vmx(true);
		guests.expect_to_go_on();
	}
	check_vmx(false);
}

// The CPU is Linux's while the machine sleeps, and the guest goes on elsewhere; then it can have one again.
void suspend_with_dedicated_cpus()
{
	if (!offers("/sys/power/mem_sleep", "deep"))
		ktap::skip("no S3 here");
	dedicated::begin();
	const auto cpus = host::online_cpus();
	write("/sys/power/mem_sleep", "deep");
	{
		DedicatedGuests guests(cpus.size() > 2 ? 2 : 1);
		for (unsigned round = 0; round < 2; round++) {
			write("/sys/power/state", "mem");
			that("all CPUs are online", host::online_cpus() == cpus);
			for (OnOwnCpu &guest : guests.all())
				guest.expect_on_shared_cpu();
			for (OnOwnCpu &guest : guests.all())
				guest.dedicate();
		}
		for (OnOwnCpu &guest : guests.all())
			guest.release();
	}
	check_vmx(false);
}

// The machine's TSC begins anew, unless Linux sets it to what it was; the guest's goes on from where it was.
void tsc_over_suspend()
{
	if (!offers("/sys/power/mem_sleep", "deep"))
		ktap::skip("no S3 here");
	constexpr uint32_t msr_tsc = 0x10;
	write("/sys/power/mem_sleep", "deep");
	LongMachine machine(0);
	const Msrs msrs(machine);
	bool began_anew = false;
	for (unsigned round = 0; round < 5 && !began_anew; round++) {
		const uint64_t before = msrs.read(msr_tsc), hosts_before = __rdtsc();
		write("/sys/power/state", "mem");
		const uint64_t hosts_after = __rdtsc(), after = msrs.read(msr_tsc);
		began_anew = hosts_after < hosts_before;
		// Not to what is below 0, either.
		that("the guest's TSC does not go back", after - before < bit(40));
	}
	if (!began_anew)
		ktap::skip("Linux sets the TSC to what it was");
}

// ---- Ends of the machine

[[noreturn]] void wait_for_end()
{
	sleep(20);
	expect::fail("the machine goes on");
}

void crash()
{
	that("a crash kernel is loaded", offers("/sys/kernel/kexec_crash_loaded", "1"));
	Guests guests;
	DedicatedGuests dedicated_guests;
	// Where the second kernel begins it sends no INIT, which would start CPU 0 in its firmware.
	host::pin({0});
	write("/proc/sysrq-trigger", "c");
	wait_for_end();
}

void kexec()
{
	that("a second kernel is loaded", offers("/sys/kernel/kexec_loaded", "1"));
	Guests guests;
	DedicatedGuests dedicated_guests;
	::reboot(RB_KEXEC);
	wait_for_end();
}

// As reboot -f does.
void reboot_forced()
{
	Guests guests;
	DedicatedGuests dedicated_guests;
	::reboot(RB_AUTOBOOT);
	wait_for_end();
}

// As reboot does.
void reboot_by_init()
{
	Guests guests;
	DedicatedGuests dedicated_guests;
	kill(1, SIGTERM);
	wait_for_end();
}

// Without a word to anybody.
void reboot_by_sysrq()
{
	Guests guests;
	DedicatedGuests dedicated_guests;
	write("/proc/sysrq-trigger", "b");
	wait_for_end();
}

// ---- In the second kernel

const char *module_name()
{
	return Device::is_kvmpp() ? "kvmpp" : "kvm_intel";
}

void use_vmx()
{
	equal("insert the module", host::insert_module(module_name()), 0);
	{
		Guests guests;
		check_vmx(true);
		guests.expect_to_go_on();
	}
	check_vmx(false);
}

void expect_all_cpus()
{
	const std::string path = "/sys/devices/system/cpu/";
	const std::string online = host::read_file(path + "online");
	if (online != host::read_file(path + "present"))
		expect::fail("of all CPUs are online: %s", online.c_str());
	that("there are several CPUs", host::online_cpus().size() > 1);
}

// Each CPU but the first, one after the other.
void use_dedicated_cpus()
{
	if (!count_dedicated())
		return;
	equal("insert the module", host::insert_module(module_name()), 0);
	const auto cpus = host::online_cpus();
	for (size_t i = 1; i < cpus.size(); i++) {
		OnOwnCpu guest(cpus[i], guest::apic::spin);
		guest.release();
	}
}

void after_kexec()
{
	expect_all_cpus();
	use_vmx();
	use_dedicated_cpus();
}

constexpr size_t page_size = 0x1000;
using Page = uint64_t[page_size / sizeof(uint64_t)];

// The memory of the kernel that crashed, as it is now, by physical address.
class DeadMemory
{
public:
	DeadMemory()
	{
		const int fd = open("/proc/vmcore", O_RDONLY | O_CLOEXEC);
		that("/proc/vmcore can be opened", fd >= 0);
		Elf64_Ehdr header;
		that("it has a header", pread(fd, &header, sizeof(header), 0) == sizeof(header));
		for (unsigned i = 0; i < header.e_phnum; i++) {
			Elf64_Phdr segment;
			const size_t at = header.e_phoff + i * sizeof(segment);
			that("it has segments", pread(fd, &segment, sizeof(segment),
						      static_cast<off_t>(at)) == sizeof(segment));
			if (segment.p_type == PT_LOAD && segment.p_filesz > 0)
				add(fd, segment);
		}
		close(fd);
		that("it has pages", !pages_.empty());
	}

	const std::map<uint64_t, const Page *> &pages() const { return pages_; }

private:
	void add(int fd, const Elf64_Phdr &segment)
	{
		// Two copies of the mapping differ in their time only: the kernel's text is in two.
		void *mapping = mmap(nullptr, segment.p_filesz, PROT_READ, MAP_PRIVATE, fd,
				     static_cast<off_t>(segment.p_offset));
		that("it can be mapped", mapping != MAP_FAILED);
		const auto *pages = static_cast<const Page *>(mapping);
		for (uint64_t i = 0; i < segment.p_filesz / page_size; i++)
			pages_[segment.p_paddr + i * page_size] = &pages[i];
	}

	std::map<uint64_t, const Page *> pages_;
};

uint32_t vmcs_revision()
{
	equal("insert msr", host::insert_module("msr"), 0);
	const int fd = open("/dev/cpu/0/msr", O_RDONLY | O_CLOEXEC);
	uint64_t basic = 0;
	constexpr off_t ia32_vmx_basic = 0x480;
	equal("read IA32_VMX_BASIC", pread(fd, &basic, sizeof(basic), ia32_vmx_basic), 8);
	close(fd);
	return static_cast<uint32_t>(basic) & 0x7fff'ffff;
}

uint64_t checksum(const Page &page)
{
	uint64_t sum = 0xcbf2'9ce4'8422'2325;
	for (const uint64_t word : page)
		sum = (sum ^ word) * 0x100'0000'01b3;
	return sum;
}

// The guests' VMCSs. Hardware may keep an active VMCS to itself; our Bochs does with all of it, so
// that one is found here only if it was cleared.
void expect_cleared_vmcss(const std::map<uint64_t, const Page *> &regions)
{
	std::map<uint64_t, unsigned> found;
	for (const auto &[address, page] : regions)
		for (const uint64_t word : *page)
			if (const uint64_t kind = word & ~0xffffull; kind == marker_running ||
								     kind == marker_idle ||
								     kind == marker_dedicated) {
				found[word]++;
				// Where Bochs has the launch state.
				equal("the VMCS's launch state", (*page)[1] & 0xffff'ffff, 0u);
			}
	for (const unsigned cpu : host::online_cpus()) {
		equal("VMCSs of the running guest", found[marker_running + cpu], 1u);
		equal("VMCSs of the halted guest", found[marker_idle + cpu], 1u);
	}
	const auto cpus = host::online_cpus();
	for (unsigned i = 0; i < count_dedicated(); i++)
		equal("VMCSs of a guest with a CPU of its own",
		      found[marker_dedicated + cpus.end()[-1 - int(i)]], 1u);
	equal("VMCSs in all", found.size(), 2 * cpus.size() + count_dedicated());
}

void after_crash()
{
	const DeadMemory memory;
	const uint32_t revision = vmcs_revision();
	// VMCSs, what the CPUs were given for VMXON, and what looks like it.
	std::map<uint64_t, const Page *> regions;
	std::map<uint64_t, uint64_t> sums;
	for (const auto &[address, page] : memory.pages())
		if (static_cast<uint32_t>((*page)[0]) == revision) {
			regions[address] = page;
			sums[address] = checksum(*page);
		}
	expect_all_cpus();
	expect_cleared_vmcss(regions);
	use_vmx();
	for (const auto &[address, page] : regions)
		if (checksum(*page) != sums[address])
			expect::fail("the dead kernel's VMCS at %#llx was written",
				     static_cast<unsigned long long>(address));
	expect::note("%zu regions unchanged", regions.size());
}

// Emulated seconds: a second kernel looks through all of the first one's memory.
constexpr ktap::Case cases[] = {
	{"suspend_to_ram", suspend_to_ram, 60},
	{"suspend_with_dedicated_cpus", suspend_with_dedicated_cpus, 120},
	{"tsc_over_suspend", tsc_over_suspend, 60},
	{"crash", crash, 60},
	{"kexec", kexec, 60},
	{"reboot_forced", reboot_forced, 60},
	{"reboot_by_init", reboot_by_init, 60},
	{"reboot_by_sysrq", reboot_by_sysrq, 60},
	{"after_kexec", after_kexec, 60},
	{"after_crash", after_crash, 120},
};
constexpr size_t without_end = 2;

} // namespace

int main(int argc, char **argv)
{
	const std::span all(cases);
	return ktap::run(argc < 2 ? all.first(without_end) : all, argc, argv);
}
