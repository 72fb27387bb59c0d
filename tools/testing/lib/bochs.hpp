// SPDX-License-Identifier: GPL-2.0
//
// The test device of the emulated host: counts what a CPU executes, stops it before any instruction
// until an NMI comes, measures how many instructions something takes. Documentation/testing.rst has
// its registers. A CPU's number is its APIC id, which Linux gives it there, too.
#pragma once

#include <cstdint>

namespace bochs
{

// Is it there? All else in this file fails the test if not, or without the right to its ports.
bool present();
// From here on a thread has the right to the ports only while something in this file uses them. With it, Linux reloads TR each
// time that the thread leaves a guest, and writes the TSS each time that it goes back to user space.
void give_up_ports();
// Is each instruction a turn of its own (testhost --exact)? If not, addresses are seen only where
// the emulator happens to begin a trace, so that Aim and Stopwatch miss most.
bool exact();

// What the CPU has begun to execute since it was reset: exact for the CPU that the caller is on, up
// to the IN; for another one, up to its last turn. One that faults or exits counts, and each
// repetition of a string instruction; events and time spent halted do not.
uint64_t instructions(unsigned cpu);
// So far, modulo 2^32; failed entries count as neither.
uint32_t vm_exits(unsigned cpu);
uint32_t vm_entries(unsigned cpu);

// Stops a CPU before an instruction: neither that nor any event happens there, while all else goes
// on, until an NMI is pending. Then it goes on, with the NMI first unless NMIs are blocked. One per
// CPU. After five seconds it goes on in any case, before Linux complains: a test may have failed.
class Aim
{
public:
	enum class State : uint32_t { idle, armed, counting, stopped, done, given_up };
	// Of VMX root operation only: a guest's instructions are not counted, and not stopped at.
	enum class Counted : uint32_t { all, root };

	struct Stop {
		uint64_t rip;
		bool nmis_blocked;
		bool in_guest;
		// of STI or MOV SS: the NMI comes one instruction later
		bool in_shadow;
	};

	explicit Aim(unsigned cpu) : cpu_(cpu) {}
	Aim(const Aim &) = delete;
	Aim &operator=(const Aim &) = delete;
	~Aim() { disarm(); }

	// Before so many instructions after the one at the linear address, counted from when the CPU
	// is about to execute that for the next time: 0 is that one itself. An interrupt's handler
	// in between counts. May be armed anew where it stands: 1 after there is a single step.
	void arm(uint64_t rip, uint32_t after = 0, Counted counted = Counted::all) const;
	// The CPU goes on, without an NMI.
	void disarm() const;

	// Where it stands, the CPU goes on with that exception, and an error code of 0, as if it were the
	// instruction's. One that is a trap (INT3, of vector 3) has its RIP saved, too.
	void raise(uint8_t vector) const;

	// done: it went on with an exception, or an NMI came, or was pending and blocked when the CPU got there.
	State state() const;
	// Waits for it, some milliseconds at most; says whether it has come.
	bool reaches(State wanted, unsigned milliseconds = 100) const;
	// Where it stopped last.
	Stop stop() const;

private:
	const unsigned cpu_;
};

// Measures, each time one thing happens to a CPU, how many instructions it executes until another
// does. One per CPU.
class Stopwatch
{
public:
	enum class Start : uint32_t {
		// An NMI arrives at its local APIC.
		nmi = 1,
		// Its local APIC accepts a fixed interrupt, of a vector that is added by interrupt().
		interrupt = 2,
		vm_exit = 3,
	};
	static constexpr Start interrupt(uint8_t vector)
	{
		return static_cast<Start>(static_cast<uint32_t>(Start::interrupt) | vector << 8);
	}

	// Any other number is the linear address of an instruction that is about to be executed.
	static constexpr uint64_t at_vm_exit = 0;
	static constexpr uint64_t at_vm_entry = 1;

	struct Result {
		uint32_t count;
		uint64_t sum;
		uint32_t min, max;
	};

	Stopwatch(unsigned cpu, Start start, uint64_t stop);
	Stopwatch(const Stopwatch &) = delete;
	Stopwatch &operator=(const Stopwatch &) = delete;
	~Stopwatch();

	Result result() const;

private:
	const unsigned cpu_;
};

} // namespace bochs
