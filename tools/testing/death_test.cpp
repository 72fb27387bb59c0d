// SPDX-License-Identifier: GPL-2.0
//
// Exceptions in the module's own code on a CPU that Linux does not have: the CPU stops, its vCPU gets
// KVM_EXIT_INTERNAL_ERROR, and Linux has the CPU back. The emulator's test device raises them where it has
// stopped the CPU, hence most of these want an emulator with one instruction a trace (testhost --exact).

#include "bochs.hpp"
#include "dedicated.hpp"
#include "expect.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <cerrno>
#include <cstdlib>
#include <set>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using namespace dedicated;
namespace apic = guest::apic;
using bochs::Aim;

constexpr const char *module_text = ".kprobes.text";

uint64_t symbol(const char *name)
{
	return host::symbol_address("kvmpp", module_text, name);
}

void begin_exact()
{
	begin(3);
	if (!bochs::present() || !bochs::exact())
		ktap::skip("no emulator that runs one instruction at a time");
}

constexpr uint8_t divide_error = 0, invalid_opcode = 6, double_fault = 8, stack_fault = 12,
		  general_protection = 13, page_fault = 14, machine_check = 18;

// Linux has the CPU, and it works: a thread runs there.
void expect_given_back(const Vcpu &vcpu)
{
	release(vcpu);
	that("Linux has it back", is_online(last_cpu));
	host::pin({last_cpu});
	equal("a thread runs there", host::current_cpu(), last_cpu);
	host::pin({0});
}

void expect_dead(const Vcpu &vcpu, host::Log &log, uint8_t vector)
{
	const std::string line = "exception " + std::to_string(vector) + ",";
	equal("reports", log.take(line).size(), 1u);
	wait_for("it is dead", [] { return line_of(last_cpu)["state"] == "dead"; });
	expect_given_back(vcpu);
	equal("reports after the release", log.take(line).size(), 0u);
}

// VMREAD, VMWRITE or VMPTRLD, by its opcode in the module's file.
bool has_fixup(const std::string &text, uint64_t base, uint64_t enter, uint64_t rip)
{
	if (rip < base || rip - base >= text.size())
		return false;
	const auto *at = reinterpret_cast<const uint8_t *>(text.data()) + (rip - base);
	// The one in kvmpp_dedicated_enter() has none: nothing makes it fail.
	if (rip >= enter && rip < enter + 0x20)
		return false;
	if ((*at & 0xf0) == 0x40)
		at++;
	return at[0] == 0x0f && (at[1] == 0x78 || at[1] == 0x79);
}

// The instructions from the look to the look.
std::vector<uint64_t> the_loop(uint64_t window)
{
	ApicMachine m(apic::cpuids);
	dedicate(m.vcpu, last_cpu);
	host::pin({1});
	Runner runner(m.vcpu);
	host::pin({0});
	wait_for("it runs", [&] { return m.result(rounds) > 10; });
	Aim aim(last_cpu);
	std::vector<uint64_t> rips;
	aim.arm(window, 0, Aim::Counted::root);
	that("it comes by", aim.reaches(Aim::State::stopped, 1000));
	rips.push_back(window);
	// Each time it comes by, one further.
	for (unsigned after = 1;; after++) {
		aim.arm(window, after, Aim::Counted::root);
		that("a step", aim.reaches(Aim::State::stopped, 1000));
		if (aim.stop().rip == window)
			break;
		rips.push_back(aim.stop().rip);
	}
	aim.disarm();
	m.result(stop) = 1;
	runner.join();
	release(m.vcpu);
	return rips;
}

// Step by step round the way from the look at what is asked to it again: at each an exception. STEP is how
// many instructions lie between two.
void in_the_loop()
{
	begin_exact();
	const char *const given = std::getenv("STEP");
	const uint64_t window = symbol("kvmpp_enter_window"),
		       enter = symbol("kvmpp_dedicated_enter"),
		       base = std::stoull(host::read_file("/sys/module/kvmpp/sections/" +
							  std::string(module_text)),
					  nullptr, 16);
	const std::string text = host::module_section("kvmpp", module_text);
	const std::vector<uint64_t> rips = the_loop(window);
	const unsigned step = given ? static_cast<unsigned>(std::atoi(given)) : rips.size() / 40;
	std::set<unsigned> places;
	for (unsigned after = 0; after < rips.size(); after++)
		if (after % step == 0 || has_fixup(text, base, enter, rips[after]))
			places.insert(after);
	constexpr uint8_t vectors[] = {general_protection, invalid_opcode, page_fault,
				       divide_error,       stack_fault,    double_fault,
				       machine_check};
	host::Log log;
	unsigned died = 0, survived = 0, next = 0;

	for (const unsigned after : places) {
		ApicMachine m(apic::cpuids);
		dedicate(m.vcpu, last_cpu);
		host::pin({1});
		Runner runner(m.vcpu);
		host::pin({0});
		wait_for("it runs, or KVM_RUN fails",
			 [&] { return m.result(rounds) > 10 || runner.ended(); });
		if (runner.ended())
			expect::fail("before +%u KVM_RUN returns %ld, exit %s", after,
				     runner.result(), exit_name(runner.reason()));
		Aim aim(last_cpu);
		aim.arm(window, after, Aim::Counted::root);
		if (!aim.reaches(Aim::State::stopped, 1000))
			expect::fail("%u instructions after the look the CPU does not come by",
				     after);
		const uint64_t rip = aim.stop().rip;
		const bool fixed = has_fixup(text, base, enter, rip);
		// Double faults and machine checks are not the instruction's.
		const uint8_t vector =
			fixed ? general_protection : vectors[next++ % std::size(vectors)];
		expect::note("+%u: exception %u%s", after, vector, fixed ? ", to be fixed up" : "");
		(void)log.take("");
		aim.raise(vector);
		wait_for("KVM_RUN ends", [&] { return runner.ended(); });
		equal("it was raised", aim.state(), Aim::State::done);
		if (runner.result() == -EIO || runner.reason() == KVM_EXIT_FAIL_ENTRY) {
			survived++;
			that("where there is a fixup", fixed || rip < window + 0x60);
			that("nobody died", line_of(last_cpu)["state"] == "waiting");
			equal("reports", log.take("exception ").size(), 0u);
			expect_given_back(m.vcpu);
		} else {
			died++;
			if (fixed)
				expect::fail("VMREAD or VMWRITE at %#llx is not fixed up",
					     static_cast<unsigned long long>(rip - base));
			equal("KVM_RUN", runner.result(), 0);
			equal("exit", runner.reason(),
			      static_cast<uint32_t>(KVM_EXIT_INTERNAL_ERROR));
			// And again, at once.
			m.vcpu.run_until(KVM_EXIT_INTERNAL_ERROR);
			expect_dead(m.vcpu, log, vector);
		}
	}
	expect::note("of %zu instructions, %u times it died, %u times not", rips.size(), died,
		     survived);
	that("both", died > 10 && survived > 0);
}

// While it has nothing to do.
void in_the_wait()
{
	begin_exact();
	const uint64_t window = symbol("kvmpp_wait_window");
	host::Log log;

	for (const uint8_t vector : {general_protection, double_fault, machine_check}) {
		ApicMachine m(apic::cpuids);
		Aim aim(last_cpu);
		m.result(stop) = 1;
		dedicate(m.vcpu, last_cpu);
		m.vcpu.run_until_out(0x80, 1);
		aim.arm(window);
		ApicMachine::enter(m.vcpu, apic::cpuids);
		m.vcpu.run_until_out(0x80, 1);
		that("it comes by", aim.reaches(Aim::State::stopped, 1000));
		(void)log.take("");
		aim.raise(vector);
		wait_for("it is dead", [] { return line_of(last_cpu)["state"] == "dead"; });
		ApicMachine::enter(m.vcpu, apic::cpuids);
		m.vcpu.run_until(KVM_EXIT_INTERNAL_ERROR);
		m.vcpu.run_until(KVM_EXIT_INTERNAL_ERROR);
		expect_dead(m.vcpu, log, vector);
		// Elsewhere, and there again, it runs on.
		ApicMachine::enter(m.vcpu, apic::cpuids);
		m.vcpu.run_until_out(0x80, 1);
		dedicate(m.vcpu, last_cpu);
		ApicMachine::enter(m.vcpu, apic::cpuids);
		m.vcpu.run_until_out(0x80, 1);
		expect_given_back(m.vcpu);
	}
}

// It died in the middle of an entry, and memory of its guest goes: nobody waits for it.
void memory_of_the_dead()
{
	begin_exact();
	ApicMachine m(apic::cpuids);
	constexpr size_t page = 0x1000;

	dedicate(m.vcpu, last_cpu);
	host::pin({1});
	Runner runner(m.vcpu);
	host::pin({0});
	wait_for("it runs", [&] { return m.result(rounds) > 0; });
	Aim aim(last_cpu);
	aim.arm(symbol("kvmpp_enter_window"), 3, Aim::Counted::root);
	that("it comes by", aim.reaches(Aim::State::stopped, 1000));
	aim.raise(invalid_opcode);
	equal("exit", runner.join_any(), static_cast<uint32_t>(KVM_EXIT_INTERNAL_ERROR));
	equal("madvise",
	      madvise(m.memory.data() + (GUEST_RESULTS & ~(page - 1)), page, MADV_DONTNEED), 0);
	that("it is dead", line_of(last_cpu)["state"] == "dead");
	expect_given_back(m.vcpu);
}

// `cmpl $0, (%rdx)`, a jump of one length or the other, and there.
uint64_t after_the_look()
{
	const std::string text = host::module_section("kvmpp", module_text);
	const uint64_t base = std::stoull(
		host::read_file("/sys/module/kvmpp/sections/" + std::string(module_text)), nullptr,
		16);
	constexpr uint64_t look = 3, short_jump = 2, long_jump = 6;
	const auto jump = static_cast<uint8_t>(text.at(symbol("kvmpp_enter_window") - base + look));
	return look + (jump == 0x0f ? long_jump : short_jump);
}

// As when Linux patches text: whoever runs into an INT3 tries again until it is gone.
void breakpoints_are_waited_for()
{
	begin(3);
	equal("modprobe poke_text", host::insert_module("poke_text"), 0);
	const std::string file = "/sys/module/poke_text/parameters/breakpoint";
	const uint64_t window = symbol("kvmpp_enter_window");
	host::Log log;
	ApicMachine m(apic::cpuids);

	dedicate(m.vcpu, last_cpu);
	host::pin({1});
	Runner runner(m.vcpu);
	host::pin({0});
	wait_for("it runs", [&] { return m.result(rounds) > 0; });
	// At the entry's first instruction; and in the window, at `bt $0, %esi`, behind the look.
	for (const uint64_t address :
	     {symbol("kvmpp_dedicated_enter"), window + after_the_look()}) {
		for (unsigned i = 0; i < 20; i++) {
			equal("INT3", host::write_file(file, std::to_string(address)), 0);
			usleep(1'000);
			const uint64_t before = m.result(rounds);
			usleep(5'000);
			equal("the guest stands", m.result(rounds), before);
			equal("restored", host::write_file(file, "0"), 0);
			wait_for("it goes on", [&] { return m.result(rounds) > before; });
		}
		// A kick meanwhile is not lost.
		const unsigned interrupted = runner.interrupted();
		equal("INT3", host::write_file(file, std::to_string(address)), 0);
		usleep(1'000);
		m.result(quiet) = 1;
		runner.kick();
		usleep(5'000);
		equal("restored", host::write_file(file, "0"), 0);
		wait_for("EINTR", [&] { return runner.interrupted() > interrupted; });
		m.result(quiet) = 0;
	}
	m.result(stop) = 1;
	runner.join();
	equal("reports", log.take("exception ").size(), 0u);
	expect_given_back(m.vcpu);
	equal("rmmod", host::remove_unused_module("poke_text"), 0);
}

constexpr ktap::Case cases[] = {
	{"in_the_loop", in_the_loop, 900},
	{"in_the_wait", in_the_wait},
	{"memory_of_the_dead", memory_of_the_dead},
	{"breakpoints_are_waited_for", breakpoints_are_waited_for},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
