// SPDX-License-Identifier: GPL-2.0
//
// What a guest has of a CPU of its own: interrupts of devices, their order, and the time.

#include "bochs.hpp"
#include "dedicated.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <cstdlib>
#include <string>
#include <sys/io.h>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
using namespace dedicated;
namespace apic = guest::apic;
using bochs::Aim;

// The controller of the keyboard, which has whatever is wanted in its output buffer, and an interrupt for it
// on each byte. By its ports: Linux's driver waits for the interrupt, which goes elsewhere.
class Keyboard
{
public:
	static constexpr unsigned pin = 1;

	Keyboard()
	{
		equal("ioperm", ioperm(data, 1, 1) | ioperm(command, 1, 1), 0);
		empty();
		tell(read_configuration);
		wait_for("its configuration", [] { return has_byte(); });
		before_ = inb(data);
		configure(static_cast<uint8_t>((before_ | interrupt) & ~disabled));
	}
	Keyboard(const Keyboard &) = delete;
	Keyboard &operator=(const Keyboard &) = delete;
	~Keyboard()
	{
		empty();
		configure(before_);
	}
	void interrupt_once() const
	{
		empty();
		tell(write_output);
		put(0);
	}

private:
	static constexpr uint16_t data = 0x60, command = 0x64;
	static constexpr uint8_t read_configuration = 0x20, write_configuration = 0x60,
				 write_output = 0xd2, interrupt = 1, disabled = 1 << 4;

	static bool has_byte() { return inb(command) & 1; }
	static void empty()
	{
		while (has_byte())
			(void)inb(data);
	}
	static void wait_until_ready()
	{
		while (inb(command) & 2)
			;
	}
	static void tell(uint8_t what)
	{
		wait_until_ready();
		outb(what, command);
	}
	static void put(uint8_t value)
	{
		wait_until_ready();
		outb(value, data);
	}
	static void configure(uint8_t value)
	{
		tell(write_configuration);
		put(value);
	}

	uint8_t before_;
};

void take_device_interrupts(uint64_t entry)
{
	begin();
	constexpr uint64_t count = 100;
	constexpr unsigned vector = 0x61;
	const unsigned apic_id = host::apic_id(last_cpu);
	ApicMachine m(entry);

	dedicate(m.vcpu, last_cpu);
	if (!passes_interrupts(last_cpu))
		ktap::skip("interrupts are not passed through");
	equal("modprobe ioapic_route", host::insert_module("ioapic_route"), 0);
	Runner runner(m.vcpu);
	wait_for("its APIC is on", [&] { return m.result(ready) != 0; });
	equal("route",
	      host::write_file("/sys/module/ioapic_route/parameters/route",
			       std::to_string(Keyboard::pin) + " " + std::to_string(apic_id) + " " +
				       std::to_string(vector)),
	      0);
	uint64_t exits;
	{
		Keyboard keyboard;
		auto take = [&](uint64_t times) {
			for (uint64_t i = 0; i < times; i++) {
				const uint64_t wanted = m.result(ipis) + 1;
				keyboard.interrupt_once();
				wait_for("an interrupt", [&] { return m.result(ipis) == wanted; });
			}
		};
		// The first ones bring in the pages that the handler uses.
		take(5);
		exits = exits_on(last_cpu);
		take(count);
		equal("exits", exits_on(last_cpu) - exits, 0u);
		equal("interrupts", m.result(ipis), 5 + count);
		m.result(stop) = 1;
		// Halted, it wants one more.
		if (entry == apic::take_ipis)
			take(1);
		runner.join();
	}
	equal("rmmod", host::remove_unused_module("ioapic_route"), 0);
	release(m.vcpu);
}

void device_interrupts_while_halted()
{
	take_device_interrupts(apic::take_ipis);
}

void device_interrupts_while_busy()
{
	take_device_interrupts(apic::take_ipis_busy);
}

// To its CPU and back, ten times.
void tsc_goes_on()
{
	begin();
	ApicMachine m(apic::tsc_steps);
	Runner runner(m.vcpu);
	auto runs = [&] {
		wait_for("it runs", [&, before = m.result(rounds)] {
			return m.result(rounds) > before + 100;
		});
	};

	runs();
	for (unsigned i = 0; i < 10; i++) {
		dedicate(m.vcpu, last_cpu);
		runs();
		release(m.vcpu);
		runs();
	}
	m.result(stop) = 1;
	runner.join();
	equal("backwards", m.result(backwards), 0u);
	expect::note("largest step %llu", static_cast<unsigned long long>(m.result(largest_step)));
}

void play_turns(ApicMachine &m, Vcpu &second)
{
	ApicMachine::enter(m.vcpu, apic::tsc_turns);
	ApicMachine::set_registers(m.vcpu, 0);
	ApicMachine::enter(second, apic::tsc_turns, second_stack);
	ApicMachine::set_registers(second, 1);
	m.result(turn) = m.result(tsc) = m.result(backwards) = 0;
	m.result(wanted) = 2000;
	Runner runner(m.vcpu), other(second);
	runner.join();
	other.join();
	equal("turns", m.result(turn), m.result(wanted));
	equal("backwards", m.result(backwards), 0u);
}

// One on a CPU of its own, one not.
void tscs_agree()
{
	begin(3);
	ApicMachine m(apic::tsc_turns);
	Vcpu second(m.vm, 1);

	play_turns(m, second);
	dedicate(m.vcpu, last_cpu);
	play_turns(m, second);
	release(m.vcpu);
	play_turns(m, second);
}

// Two vCPUs write theirs one after the other, and mean the same; then one goes its own way.
void tscs_written_agree()
{
	begin(3);
	ApicMachine m(apic::write_tsc);
	Vcpu second(m.vm, 1);
	constexpr uint64_t value = uint64_t{1} << 50, place = GUEST_RESULTS + 8 * tsc;
	auto write = [&](Vcpu &vcpu, uint64_t stack, uint64_t what) {
		ApicMachine::enter(vcpu, apic::write_tsc, stack);
		ApicMachine::set_registers(vcpu, what, place);
		vcpu.run_until_out(0x80, 1);
		return m.result(tsc);
	};

	dedicate(m.vcpu, last_cpu);
	const uint64_t first = write(m.vcpu, GUEST_STACK, value);
	that("it is what was written", first >= value && first < value + (uint64_t{1} << 32));
	usleep(1'000);
	that("the second's is what the first's has become",
	     write(second, second_stack, value) > first);
	play_turns(m, second);
	// The other way round, by a value that has gone on.
	const uint64_t later = write(second, second_stack, value * 2);
	that("it is what was written", later >= value * 2);
	that("and agrees", write(m.vcpu, GUEST_STACK, later) > later);
	play_turns(m, second);
	// No relation to what it was.
	const uint64_t own = write(m.vcpu, GUEST_STACK, 1000);
	that("what was written", own >= 1000 && own < (uint64_t{1} << 32));
	release(m.vcpu);
}

// The CPU stands between exit and entry while three IPIs come for its guest.
void interrupts_come_in_order()
{
	begin(3);
	if (!bochs::present() || !bochs::exact())
		ktap::skip("no emulator that runs one instruction at a time");
	constexpr uint64_t count = 3, in_order = 0x617283;
	const uint64_t window =
		host::symbol_address("kvmpp", ".kprobes.text", "kvmpp_enter_window");
	ApicMachine m(apic::take_ipis_cpuids);
	Vcpu second(m.vm, 1);

	m.set_gate64(0x61, apic::ipi_61);
	m.set_gate64(0x72, apic::ipi_72);
	m.set_gate64(0x83, apic::ipi_83);
	dedicate(m.vcpu, last_cpu);
	dedicate(second, last_cpu - 1);
	if (!passes_interrupts(last_cpu))
		ktap::skip("interrupts are not passed through");
	Runner runner(m.vcpu);
	wait_for("it runs", [&] { return m.result(rounds) > 10; });
	auto send = [&](uint64_t vector) {
		ApicMachine::enter(second, apic::send_ipi, second_stack);
		ApicMachine::set_registers(second, vector);
		second.run_until_out(0x80, 1);
	};
	// The pages of the sender and of the handlers are there.
	send(0x61);
	wait_for("the first", [&] { return m.result(ipis) == 1; });
	for (const unsigned after : {0, 5, 20, 40, 80, 160, 320, 500, 700}) {
		Aim aim(last_cpu);
		aim.arm(window, after, Aim::Counted::root);
		if (!aim.reaches(Aim::State::stopped, 1000))
			expect::fail("%u instructions after the look the CPU does not come by",
				     after);
		m.result(order) = m.result(ipis) = 0;
		send(0x72);
		send(0x61);
		send(0x83);
		// Once more, while it waits: it is one interrupt.
		send(0x72);
		equal("it stands", aim.state(), Aim::State::stopped);
		equal("none is taken", m.result(ipis), 0u);
		aim.disarm();
		wait_for("all are taken", [&] { return m.result(ipis) >= count; });
		wait_for("it goes on",
			 [&, before = m.result(rounds)] { return m.result(rounds) > before + 10; });
		equal("each once", m.result(ipis), count);
		equal("in order", m.result(order), in_order);
	}
	m.result(stop) = 1;
	runner.join();
	release(second);
	release(m.vcpu);
}

constexpr ktap::Case cases[] = {
	{"device_interrupts_while_halted", device_interrupts_while_halted},
	{"device_interrupts_while_busy", device_interrupts_while_busy},
	{"tsc_goes_on", tsc_goes_on},
	{"tscs_agree", tscs_agree},
	{"tscs_written_agree", tscs_written_agree},
	{"interrupts_come_in_order", interrupts_come_in_order},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
