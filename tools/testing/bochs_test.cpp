// SPDX-License-Identifier: GPL-2.0
//
// The emulator's test device keeps its word. No hypervisor of ours is needed: what is measured and
// stopped are threads of this program, the kernel, and guests of $KVM_DEVICE where there is one.

#include "bochs.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <sstream>
#include <string>
#include <thread>
#include <unistd.h>

namespace
{

using bochs::Aim;
using bochs::Stopwatch;
using expect::equal;
using expect::that;
using State = bochs::Aim::State;
namespace real = guest::real;

constexpr unsigned own_cpu = 0, other_cpu = 1;

void need_device()
{
	if (!bochs::present())
		ktap::skip("not in our Bochs");
}

void need_exact()
{
	need_device();
	if (host::online_cpus().size() < 2)
		ktap::skip("one CPU");
	if (!bochs::exact())
		ktap::skip("not with testhost --exact");
	host::pin({own_cpu});
}

void need_guests()
{
	if (access(Device::path(), R_OK | W_OK))
		ktap::skip("no %s", Device::path());
}

// The loop that the other CPU goes round in, and its instructions.
extern "C" {
extern std::byte loop_first[], loop_second[], loop_third[], loop_fourth[], loop_last[];
extern volatile uint64_t loop_rounds;
void loop();
}
asm(".pushsection .data\n"
    ".balign 8\n"
    ".globl loop_rounds\n"
    "loop_rounds: .quad 0\n"
    ".popsection\n"
    ".pushsection .text\n"
    ".globl loop\n"
    "loop:\n"
    "loop_first: nop\n"
    "loop_second: incq loop_rounds(%rip)\n"
    "loop_third: push %rax\n"
    "loop_fourth: pop %rax\n"
    "loop_last: jmp loop_first\n"
    ".popsection\n");

const std::byte *const loop_instructions[] = {loop_first, loop_second, loop_third, loop_fourth,
					      loop_last};

uint64_t address(const std::byte *instruction)
{
	return reinterpret_cast<uint64_t>(instruction);
}

// A thread in that loop on the other CPU; it ends with the process.
void start_loop()
{
	std::thread([] {
		host::pin({other_cpu});
		loop();
	}).detach();
	while (loop_rounds == 0)
		usleep(1'000);
}

void check_goes_on()
{
	const uint64_t before = loop_rounds;
	for (unsigned i = 0; i < 100 && loop_rounds == before; i++)
		usleep(1'000);
	that("the CPU goes on", loop_rounds != before);
}

// ---- Counting

void is_there()
{
	need_device();
	expect::note("one instruction a turn: %s", bochs::exact() ? "yes" : "no");
}

// Two INs and what lies between them, all on this CPU.
uint32_t count_loop(uint32_t rounds)
{
	uint32_t before, after;
	asm volatile("inl %%dx, %%eax\n"
		     "mov %%eax, %[before]\n"
		     "1: dec %[rounds]\n"
		     "jnz 1b\n"
		     "inl %%dx, %%eax"
		     : [before] "=&r"(before), "=&a"(after), [rounds] "+r"(rounds)
		     : "d"(0xb04)
		     : "cc");
	return after - before;
}

void counts_a_loop()
{
	need_device();
	host::pin({own_cpu});
	bochs::instructions(own_cpu); // chooses the CPU
	for (const uint32_t rounds : {1u, 10u, 1000u}) {
		// an interrupt's handler counts, too
		uint32_t least = UINT32_MAX;
		for (unsigned i = 0; i < 100; i++)
			least = std::min(least, count_loop(rounds));
		equal("instructions", least, 2 + 2 * rounds);
	}
}

void counts_one_cpu()
{
	need_device();
	if (host::online_cpus().size() < 2)
		ktap::skip("one CPU");
	host::pin({own_cpu});
	uint64_t before = bochs::instructions(other_cpu);
	usleep(100'000);
	const uint64_t halted = bochs::instructions(other_cpu) - before;
	start_loop();
	before = bochs::instructions(other_cpu);
	usleep(100'000);
	const uint64_t busy = bochs::instructions(other_cpu) - before;
	expect::note("%llu instructions in 100 ms, mostly halted; %llu in a loop",
		     static_cast<unsigned long long>(halted),
		     static_cast<unsigned long long>(busy));
	that("a halted CPU does not count", halted * 4 < busy);
}

// ---- Aim

// Stops the loop, which the kernel's interrupts may delay meanwhile.
void stop_loop(const Aim &aim, uint32_t after)
{
	for (unsigned i = 0; i < 10; i++) {
		aim.arm(address(loop_first), after);
		that("the CPU stops", aim.reaches(State::stopped));
		if (aim.stop().rip == address(loop_instructions[after % 5]))
			return;
		expect::note("an interrupt came first");
	}
	expect::fail("it does not stop %u instructions after the first, but at %#llx", after,
		     static_cast<unsigned long long>(aim.stop().rip));
}

void stops_before_any_instruction()
{
	need_exact();
	start_loop();
	const Aim aim(other_cpu);
	equal("state at first", aim.state(), State::idle);
	for (uint32_t after = 0; after < 12; after++) {
		stop_loop(aim, after);
		const Aim::Stop stop = aim.stop();
		that("no NMI is blocked, no guest, no shadow",
		     !stop.nmis_blocked && !stop.in_guest && !stop.in_shadow);
		const uint64_t rounds = loop_rounds;
		const uint64_t count = bochs::instructions(other_cpu);
		usleep(2'000);
		equal("rounds while it is stopped", loop_rounds, rounds);
		equal("instructions while it is stopped", bochs::instructions(other_cpu), count);
		aim.disarm();
		equal("state", aim.state(), State::idle);
		check_goes_on();
	}
}

// Four rounds; says whether no interrupt came.
bool step_through_loop(const Aim &aim)
{
	stop_loop(aim, 0);
	const uint64_t rounds = loop_rounds;
	for (uint32_t step = 1; step <= 20; step++) {
		const uint64_t count = bochs::instructions(other_cpu);
		aim.arm(aim.stop().rip, 1);
		that("the CPU stops", aim.reaches(State::stopped));
		if (bochs::instructions(other_cpu) - count != 1)
			return false;
		equal("RIP", aim.stop().rip, address(loop_instructions[step % 5]));
	}
	equal("rounds", loop_rounds - rounds, 4u);
	return true;
}

void steps()
{
	need_exact();
	start_loop();
	const Aim aim(other_cpu);
	for (unsigned i = 0; i < 20; i++)
		if (step_through_loop(aim))
			return;
	expect::fail("it does not go from each instruction to the next");
}

void an_nmi_ends_it()
{
	need_exact();
	start_loop();
	const Aim aim(other_cpu);
	for (uint32_t after = 0; after < 5; after++) {
		stop_loop(aim, after);
		host::Log log;
		// every CPU says by NMI where it is
		equal("SysRq-l", host::write_file("/proc/sysrq-trigger", "l"), 0);
		equal("state", aim.state(), State::done);
		char wanted[64];
		snprintf(wanted, sizeof(wanted), "RIP: 0033:0x%llx",
			 static_cast<unsigned long long>(address(loop_instructions[after])));
		equal("lines with the address, which the NMI came before", log.take(wanted).size(),
		      1u);
		check_goes_on();
	}
}

uint64_t kernel_symbol(const std::string &wanted)
{
	std::istringstream symbols(host::read_file("/proc/kallsyms"));
	std::string address, type, name;
	while (symbols >> address >> type >> name)
		if (name == wanted)
			return std::stoull(address, nullptr, 16);
	expect::fail("no %s in the kernel", wanted.c_str());
}

void stops_where_nmis_are_blocked()
{
	need_exact();
	constexpr unsigned third_cpu = 2;
	if (host::online_cpus().size() < 3)
		ktap::skip("two CPUs");
	const Aim aim(other_cpu);
	const uint64_t handler = kernel_symbol("exc_nmi");
	aim.arm(handler);
	// it waits there for all others
	std::thread sender([] {
		host::pin({third_cpu});
		host::write_file("/proc/sysrq-trigger", "l");
	});
	that("the CPU stops", aim.reaches(State::stopped));
	equal("RIP", aim.stop().rip, handler);
	that("NMIs are blocked", aim.stop().nmis_blocked);
	aim.disarm();
	sender.join();
}

void is_given_up()
{
	need_exact();
	start_loop();
	const Aim aim(other_cpu);
	stop_loop(aim, 0);
	usleep(4'000'000);
	equal("state after four seconds", aim.state(), State::stopped);
	usleep(1'500'000);
	equal("state after more than five", aim.state(), State::given_up);
	check_goes_on();
}

void without_its_address_it_waits()
{
	need_exact();
	start_loop();
	const Aim aim(other_cpu);
	aim.arm(address(loop_first) + 2);
	that("it does not stop", !aim.reaches(State::stopped, 20));
	equal("state", aim.state(), State::armed);
	check_goes_on();
}

// ---- Stopwatch

void check_result(const Stopwatch::Result &result)
{
	expect::note("%u times, %u to %u instructions", result.count, result.min, result.max);
	that("something was measured", result.count > 0);
	that("the least is no more than the most", result.min <= result.max);
	that("the sum lies between", result.sum >= uint64_t{result.min} * result.count &&
					     result.sum <= uint64_t{result.max} * result.count);
}

void measures_an_interrupt()
{
	need_exact();
	start_loop();
	// the local APIC's timer, from its tick back to the loop
	constexpr uint8_t local_timer_vector = 0xec;
	const Stopwatch watch(other_cpu, Stopwatch::interrupt(local_timer_vector),
			      address(loop_first));
	usleep(200'000);
	const Stopwatch::Result result = watch.result();
	check_result(result);
	that("an interrupt takes some instructions", result.min > 50);
}

void measures_an_nmi()
{
	need_exact();
	start_loop();
	const Stopwatch watch(other_cpu, Stopwatch::Start::nmi, address(loop_first));
	equal("SysRq-l", host::write_file("/proc/sysrq-trigger", "l"), 0);
	check_goes_on();
	const Stopwatch::Result result = watch.result();
	check_result(result);
	equal("NMIs", result.count, 1u);
}

// ---- Guests

void counts_exits()
{
	need_device();
	need_guests();
	host::pin({own_cpu});
	constexpr unsigned rounds = 10;
	RealMachine machine(real::out_sizes);
	machine.vcpu.run_until_out(0x1234, 1);
	const uint32_t exits = bochs::vm_exits(own_cpu);
	const uint32_t entries = bochs::vm_entries(own_cpu);
	{
		const Stopwatch in_host(own_cpu, Stopwatch::Start::vm_exit, Stopwatch::at_vm_entry);
		for (unsigned i = 0; i < rounds; i++) {
			machine.vcpu.enter_real(real::out_sizes);
			machine.vcpu.run_until_out(0x1234, 1);
		}
		const Stopwatch::Result result = in_host.result();
		check_result(result);
		that("all but the last were measured", result.count >= rounds - 1);
		that("the kernel takes its time", result.min > 20);
	}
	const uint32_t more = bochs::vm_exits(own_cpu) - exits;
	that("an exit for each OUT", more >= rounds);
	equal("entries", bochs::vm_entries(own_cpu) - entries, more);
}

// real.S's "spin", on the other CPU for the rest of the process.
void start_guest()
{
	static std::atomic<RealMachine *> made = nullptr;
	std::thread([] {
		host::pin({other_cpu});
		RealMachine machine(real::spin);
		made = &machine;
		machine.vcpu.try_run();
	}).detach();
	while (!made || !std::atomic_ref(made.load()->at<uint32_t>(GUEST_RESULTS)).load())
		usleep(1'000);
}

void stops_a_guest()
{
	need_exact();
	need_guests();
	start_guest();
	const Aim aim(other_cpu);
	aim.arm(real::spin);
	that("the CPU stops", aim.reaches(State::stopped));
	equal("RIP", aim.stop().rip, real::spin);
	that("in the guest", aim.stop().in_guest);
	const uint32_t exits = bochs::vm_exits(other_cpu);
	equal("SysRq-l", host::write_file("/proc/sysrq-trigger", "l"), 0);
	equal("state", aim.state(), State::done);
	that("the NMI has made it exit", bochs::vm_exits(other_cpu) != exits);
}

void stops_the_host_only()
{
	need_exact();
	need_guests();
	start_guest();
	const Aim aim(other_cpu);
	aim.arm(real::spin, 0, Aim::Counted::root);
	that("the guest is not stopped", !aim.reaches(State::stopped, 20));
	equal("state", aim.state(), State::armed);
}

void measures_time_in_a_guest()
{
	need_exact();
	need_guests();
	start_guest();
	// from an exit to when the guest is back at it
	const Stopwatch away(other_cpu, Stopwatch::Start::vm_exit, real::spin);
	usleep(100'000);
	check_result(away.result());
}

constexpr ktap::Case cases[] = {
	{"is_there", is_there},
	{"counts_a_loop", counts_a_loop},
	{"counts_one_cpu", counts_one_cpu},
	{"stops_before_any_instruction", stops_before_any_instruction},
	{"steps", steps},
	{"an_nmi_ends_it", an_nmi_ends_it},
	{"stops_where_nmis_are_blocked", stops_where_nmis_are_blocked},
	{"is_given_up", is_given_up, 120},
	{"without_its_address_it_waits", without_its_address_it_waits},
	{"measures_an_interrupt", measures_an_interrupt},
	{"measures_an_nmi", measures_an_nmi},
	{"counts_exits", counts_exits},
	{"stops_a_guest", stops_a_guest},
	{"stops_the_host_only", stops_the_host_only},
	{"measures_time_in_a_guest", measures_time_in_a_guest},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
