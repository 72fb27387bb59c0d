// SPDX-License-Identifier: GPL-2.0
//
// kvmclock: its MSRs, what the guest finds in its memory, and the ioctls by which a VMM sets it.

#include "clock.hpp"
#include "dedicated.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "ktap.hpp"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <unistd.h>
#include <x86intrin.h>

namespace
{

using expect::equal;
using expect::that;

constexpr uint32_t wall_clock_old = 0x11, system_time_old = 0x12;
constexpr uint32_t wall_clock = 0x4b564d00, system_time = 0x4b564d01;
constexpr uint8_t tsc_stable = 1, guest_stopped = 2;
constexpr uint32_t valid_flags = 2 | 4 | 8;
constexpr uint64_t ms = 1'000'000;

// struct pvclock_vcpu_time_info
struct Time {
	uint32_t version, pad;
	uint64_t tsc_timestamp, system_time;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad2[2];
};

// struct pvclock_wall_clock
struct Wall {
	uint32_t version, sec, nsec;
};

struct ClockMachine : LongMachine {
	ClockMachine() : LongMachine(0) {}

	Time &time(uint64_t at = GUEST_SCRATCH) const { return this->at<Time>(at); }
	void write(uint32_t index, uint64_t value) { Msrs(*this).write(index, value); }
	kvm_clock_data get() const
	{
		kvm_clock_data data{};
		equal("KVM_GET_CLOCK", vm.fd().call(KVM_GET_CLOCK, &data), 0);
		return data;
	}
	long set(uint64_t clock, uint32_t flags = 0, uint64_t realtime = 0) const
	{
		kvm_clock_data data{};
		data.clock = clock;
		data.flags = flags;
		data.realtime = realtime;
		return vm.fd().call(KVM_SET_CLOCK, &data);
	}
	// By the rules, with the TSC that the guest reads.
	uint64_t guests_time(uint64_t at = GUEST_SCRATCH)
	{
		const uint64_t tsc = Msrs(*this).read(0x10);
		const Time &t = time(at);
		equal("version is even", t.version % 2, 0u);
		uint64_t ticks = tsc - t.tsc_timestamp;
		ticks = t.shift < 0 ? ticks >> -t.shift : ticks << t.shift;
		return t.system_time +
		       static_cast<uint64_t>(static_cast<unsigned __int128>(ticks) * t.mul >> 32);
	}
};

void between(const char *what, uint64_t low, uint64_t value, uint64_t high)
{
	if (value < low || value > high)
		expect::fail("%s: %llu, not from %llu to %llu", what,
			     static_cast<unsigned long long>(value),
			     static_cast<unsigned long long>(low),
			     static_cast<unsigned long long>(high));
}

uint64_t real_ns()
{
	timespec now{};
	clock_gettime(CLOCK_REALTIME, &now);
	return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 +
	       static_cast<uint64_t>(now.tv_nsec);
}

void capabilities()
{
	Device device;
	equal("ADJUST_CLOCK", device.check_extension(KVM_CAP_ADJUST_CLOCK) & 0xe, valid_flags);
	equal("KVMCLOCK_CTRL", device.check_extension(KVM_CAP_KVMCLOCK_CTRL), 1);
}

void get_and_set()
{
	ClockMachine machine;
	between("from 0 on", 0, machine.get().clock, 60'000 * ms);
	equal("EINVAL", machine.set(0, 1), -EINVAL);
	equal("EINVAL", machine.set(0, 1 << 5), -EINVAL);
	equal("EFAULT", machine.vm.fd().call(KVM_SET_CLOCK, 1ul), -EFAULT);
	equal("EFAULT", machine.vm.fd().call(KVM_GET_CLOCK, 1ul), -EFAULT);
	equal("set", machine.set(500'000 * ms), 0);
	const uint64_t first = machine.get().clock;
	between("set", 500'000 * ms, first, 560'000 * ms);
	usleep(20'000);
	between("goes on", first + 15 * ms, machine.get().clock, first + 60'000 * ms);
	equal("set", machine.set(ms, 4, real_ns() - 900'000 * ms), 0);
	between("what passed since", 900'001 * ms, machine.get().clock, 960'000 * ms);
	equal("set", machine.set(ms, 4, real_ns() + 900'000 * ms), 0);
	between("not backwards", ms, machine.get().clock, 60'000 * ms);
}

void guests_time()
{
	ClockMachine machine;
	for (const uint32_t index : {system_time, system_time_old}) {
		machine.time() = {};
		machine.write(index, GUEST_SCRATCH | 1);
		for (const uint32_t any : {system_time, system_time_old})
			equal("read back", Msrs(machine).read(any), GUEST_SCRATCH | 1u);
		that("written", machine.time().version != 0);
		for (int round = 0; round < 5; round++) {
			const uint64_t before = machine.get().clock, seen = machine.guests_time(),
				       after = machine.get().clock;
			// KVM's are of two functions, unless the guest's is stable.
			between("between two of the VMM's", before - ms, seen, after + ms);
			usleep(2'000);
		}
	}
	machine.write(system_time, GUEST_SCRATCH | 1);
	equal("set", machine.set(700'000 * ms), 0);
	between("set", 700'000 * ms, machine.guests_time(), 760'000 * ms);
}

void no_memory_there()
{
	ClockMachine machine;
	machine.write(system_time, GUEST_MMIO | 1);
	equal("read back", Msrs(machine).read(system_time), GUEST_MMIO | 1u);
	machine.write(system_time, (GUEST_SCRATCH + 0xff0) | 1);
	equal("over a page's end", machine.time(GUEST_SCRATCH + 0xff0).version, 0u);
	machine.write(wall_clock, GUEST_MMIO);
	equal("read back", Msrs(machine).read(wall_clock_old), uint64_t{GUEST_MMIO});
	machine.write(system_time, GUEST_SCRATCH);
	equal("off", machine.time().version, 0u);
}

void wall()
{
	ClockMachine machine;
	Wall &wall = machine.at<Wall>(GUEST_SCRATCH);
	for (const uint32_t index : {wall_clock, wall_clock_old}) {
		wall = {.version = 4, .sec = 0, .nsec = 0};
		const uint64_t before = real_ns() - machine.get().clock;
		machine.write(index, GUEST_SCRATCH);
		equal("version", wall.version, 6u);
		const uint64_t zero = wall.sec * 1'000'000'000ul + wall.nsec;
		between("when the clock was 0", before - 100 * ms, zero, before + 100 * ms);
	}
	wall.version = 7;
	machine.write(wall_clock, GUEST_SCRATCH);
	equal("version that was odd", wall.version, 10u);
}

void stopped()
{
	ClockMachine machine;
	equal("without a clock", machine.vcpu.fd().call(KVM_KVMCLOCK_CTRL), -EINVAL);
	machine.write(system_time, GUEST_SCRATCH | 1);
	equal("not stopped", machine.time().flags & guest_stopped, 0);
	equal("KVM_KVMCLOCK_CTRL", machine.vcpu.fd().call(KVM_KVMCLOCK_CTRL), 0);
	Msrs(machine).read(system_time);
	equal("stopped", machine.time().flags & guest_stopped, guest_stopped);
	equal("set", machine.set(machine.get().clock), 0);
	Msrs(machine).read(system_time);
	equal("until the guest clears it", machine.time().flags & guest_stopped, guest_stopped);
	machine.write(system_time, GUEST_SCRATCH);
	equal("switched off", machine.vcpu.fd().call(KVM_KVMCLOCK_CTRL), -EINVAL);
}

// Where the host's clock goes by the TSC, the guest may know.
void stable()
{
	ClockMachine machine;
	machine.write(system_time, GUEST_SCRATCH | 1);
	equal("set", machine.set(machine.get().clock), 0);
	Msrs(machine).read(system_time);
	const kvm_clock_data data = machine.get();
	const bool is_stable = machine.time().flags & tsc_stable;
	expect::note("the guest's clock is %sstable", is_stable ? "" : "not ");
	equal("the VMM is told the same", (data.flags & 2) != 0, is_stable);
	if (!is_stable)
		return;
	equal("flags", data.flags, valid_flags);
	between("realtime", real_ns() - 10'000 * ms, data.realtime, real_ns());
	between("host_tsc", 1, data.host_tsc, __rdtsc());
}

// Where guest/clock.S notes what it has seen.
enum Seen { looks, stop, last, backwards };

uint64_t seen(const Machine &machine, Seen what)
{
	return std::atomic_ref(machine.result(what)).load();
}

// The guest looks at its clock while it goes to a CPU of its own and back: it goes on, as the VMM's does.
void moves_to_a_cpu_of_its_own()
{
	dedicated::begin();
	ClockMachine machine;
	const auto image = guest::clock::image();
	std::memcpy(machine.memory.data() + GUEST_IMAGE, image.data(), image.size());
	machine.write(system_time, GUEST_SCRATCH | 1);
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = guest::clock::watch;
	machine.vcpu.set_regs(regs);

	const auto agrees = [&] {
		const uint64_t before = machine.get().clock, many = seen(machine, looks) + 100;
		dedicated::wait_for("the guest looks", [&] { return seen(machine, looks) > many; });
		const uint64_t now = seen(machine, last);
		between("between two of the VMM's", before - ms, now, machine.get().clock + ms);
	};
	dedicated::Runner runner(machine.vcpu);
	for (unsigned round = 0; round < 5; round++) {
		agrees();
		dedicated::dedicate(machine.vcpu, dedicated::last_cpu);
		agrees();
		usleep(20'000);
		agrees();
		dedicated::release(machine.vcpu);
	}
	agrees();
	// It is set anew while the guest is on a CPU of its own.
	dedicated::dedicate(machine.vcpu, dedicated::last_cpu);
	equal("set", machine.set(machine.get().clock + 900'000 * ms), 0);
	agrees();
	machine.result(stop) = 1;
	runner.join();
	equal("times that it went backwards", seen(machine, backwards), 0u);
	dedicated::release(machine.vcpu);
}

constexpr ktap::Case cases[] = {
	{"capabilities", capabilities},
	{"get_and_set", get_and_set},
	{"guests_time", guests_time},
	{"no_memory_there", no_memory_there},
	{"wall", wall},
	{"stopped", stopped},
	{"stable", stable},
	{"moves_to_a_cpu_of_its_own", moves_to_a_cpu_of_its_own},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
