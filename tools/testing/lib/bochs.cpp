// SPDX-License-Identifier: GPL-2.0
#include "bochs.hpp"

#include "expect.hpp"

#include <atomic>
#include <ctime>
#include <mutex>
#include <sys/io.h>

namespace bochs
{
namespace
{

constexpr uint16_t base = 0xb00, size = 0x80;
constexpr uint32_t magic = 0x4b565050;
constexpr uint32_t disarmed = 0xffffffff;

enum Register : uint16_t {
	magic_or_cpu = base,
	instructions_low = base + 0x04,
	instructions_high = base + 0x08,
	aim_low = base + 0x10,
	aim_high = base + 0x14,
	aim_flags = base + 0x18,
	aim_after = base + 0x1c,
	aim_state = base + 0x20,
	stop_low = base + 0x24,
	stop_high = base + 0x28,
	stop_flags = base + 0x2c,
	watch_start = base + 0x30,
	watch_stop_low = base + 0x34,
	watch_stop_high = base + 0x38,
	watch_count = base + 0x3c,
	watch_sum_low = base + 0x40,
	watch_sum_high = base + 0x44,
	watch_min = base + 0x48,
	watch_max = base + 0x4c,
	exits = base + 0x50,
	entries = base + 0x54,
	trace_length = base + 0x58,
	raise_vector = base + 0x5c,
};

std::atomic<bool> keeps_ports{true};

// The right to the ports. It is a thread's own; threads and processes that it makes have it, too.
class Ports
{
public:
	Ports() : allowed_(allow()) {}
	Ports(const Ports &) = delete;
	Ports &operator=(const Ports &) = delete;
	~Ports()
	{
		if (!keeps_ports)
			ioperm(base, size, 0);
	}

	bool has_device() const { return allowed_ && inl(magic_or_cpu) == magic; }

private:
	static bool allow()
	{
		static thread_local bool has_asked = false, allowed;
		if (!has_asked || !keeps_ports)
			allowed = !ioperm(base, size, 1);
		has_asked = true;
		return allowed;
	}

	const bool allowed_;
};

// The registers of one CPU, as long as it lives: the choice of the CPU is the device's, not the
// thread's.
class Registers
{
public:
	explicit Registers(unsigned cpu) : lock_(mutex_)
	{
		expect::that("the emulator's test device is there", ports_.has_device());
		outl(cpu, magic_or_cpu);
	}

	uint32_t read(Register which) const { return inl(which); }
	uint64_t read(Register low, Register high) const
	{
		const uint64_t bits = inl(low);
		return bits | uint64_t{inl(high)} << 32;
	}
	void write(Register which, uint32_t value) const { outl(value, which); }
	void write(Register low, Register high, uint64_t value) const
	{
		outl(static_cast<uint32_t>(value), low);
		outl(static_cast<uint32_t>(value >> 32), high);
	}

private:
	static inline std::mutex mutex_;
	const std::lock_guard<std::mutex> lock_;
	const Ports ports_;
};

uint64_t milliseconds_now()
{
	timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return uint64_t(now.tv_sec) * 1'000 + uint64_t(now.tv_nsec) / 1'000'000;
}

} // namespace

bool present()
{
	return Ports().has_device();
}

void give_up_ports()
{
	keeps_ports = false;
	ioperm(base, size, 0);
}

bool exact()
{
	return Registers(0).read(trace_length) == 1;
}

uint64_t instructions(unsigned cpu)
{
	return Registers(cpu).read(instructions_low, instructions_high);
}

uint32_t vm_exits(unsigned cpu)
{
	return Registers(cpu).read(exits);
}

uint32_t vm_entries(unsigned cpu)
{
	return Registers(cpu).read(entries);
}

void Aim::arm(uint64_t rip, uint32_t after, Counted counted) const
{
	const Registers device(cpu_);
	device.write(aim_low, aim_high, rip);
	device.write(aim_flags, static_cast<uint32_t>(counted));
	device.write(aim_after, after);
}

void Aim::disarm() const
{
	Registers(cpu_).write(aim_after, disarmed);
}

void Aim::raise(uint8_t vector) const
{
	Registers(cpu_).write(raise_vector, vector);
}

Aim::State Aim::state() const
{
	return static_cast<State>(Registers(cpu_).read(aim_state));
}

bool Aim::reaches(State wanted, unsigned milliseconds) const
{
	const uint64_t end = milliseconds_now() + milliseconds;
	do {
		if (state() == wanted)
			return true;
	} while (milliseconds_now() < end);
	return false;
}

Aim::Stop Aim::stop() const
{
	const Registers device(cpu_);
	const uint32_t flags = device.read(stop_flags);
	return {device.read(stop_low, stop_high), (flags & 1) != 0, (flags & 2) != 0,
		(flags & 4) != 0};
}

Stopwatch::Stopwatch(unsigned cpu, Start start, uint64_t stop) : cpu_(cpu)
{
	const Registers device(cpu_);
	device.write(watch_stop_low, watch_stop_high, stop);
	device.write(watch_start, static_cast<uint32_t>(start));
}

Stopwatch::~Stopwatch()
{
	Registers(cpu_).write(watch_start, 0);
}

Stopwatch::Result Stopwatch::result() const
{
	const Registers device(cpu_);
	return {device.read(watch_count), device.read(watch_sum_low, watch_sum_high),
		device.read(watch_min), device.read(watch_max)};
}

} // namespace bochs
