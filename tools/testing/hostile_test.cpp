// SPDX-License-Identifier: GPL-2.0
//
// Guests that mean harm: every MSR, port, control register, descriptor, APIC register and instruction that exits,
// with any values, in real, protected and long mode, on a CPU of Linux's and on one of the vCPU's own; exceptions
// that are delivered without end. Whatever comes of them, the vCPU runs again, and a guest of another VM keeps
// its accounts. See fuzz/soup.cpp for the instructions.
//
// hostile_test [blocks=N] [seconds=N] [seed=N] [CASE...]: so many blocks of instructions a mode and CPU, or for so
// long in each.

#include "dedicated.hpp"
#include "expect.hpp"
#include "fuzz/soup.hpp"
#include "fuzz/tally.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "option.hpp"
#include "steady.hpp"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string_view>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using fuzz::Mode;
using fuzz::Random;
using Clock = std::chrono::steady_clock;

struct Options {
	unsigned long blocks = 300, seconds = 0, seed = 1;
} options;

// Where a block is, and where all exceptions end.
constexpr uint64_t block_at = 0x2000, handler_at = 0x6000;
constexpr uint8_t done_port = 0x80, fault_port = 0x81;
constexpr unsigned instructions_a_block = 8;
constexpr unsigned exits_a_block = 64;
constexpr unsigned blocks_a_machine = 32;
constexpr long run_at_most_ns = 3'000'000;

// Ends each KVM_RUN of this thread that takes too long.
class Watchdog
{
public:
	Watchdog()
	{
		sigevent event{};
		event.sigev_notify = SIGEV_THREAD_ID;
		event.sigev_signo = SIGUSR1;
		event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
		struct sigaction action {
		};
		action.sa_handler = [](int) {};
		sigaction(SIGUSR1, &action, nullptr);
		equal("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer_), 0);
	}
	Watchdog(const Watchdog &) = delete;
	Watchdog &operator=(const Watchdog &) = delete;
	~Watchdog() { timer_delete(timer_); }

	void set(long ns) const
	{
		const itimerspec time{.it_interval = {0, ns}, .it_value = {0, ns}};
		timer_settime(timer_, 0, &time, nullptr);
	}

private:
	timer_t timer_;
};

constexpr uint8_t out_to(uint8_t port, unsigned at)
{
	return at == 0 ? 0xe6 : port;
}

// A machine whose vCPU can be put at the beginning of a block over and over, whatever the last one has done.
class Victim : public Machine
{
public:
	explicit Victim(Mode mode, Irqchip irqchip = Irqchip::none)
		: Machine({}, GUEST_MEMORY, irqchip), mode_(mode)
	{
		switch (mode_) {
		case Mode::real:
			vcpu.enter_real(block_at);
			break;
		case Mode::protected_:
			vcpu.enter_protected(block_at);
			break;
		case Mode::long_:
			vcpu.enter_long(block_at);
			break;
		}
		sregs_ = vcpu.sregs();
		regs_ = vcpu.regs();
		events_ = get<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS);
		debug_ = get<kvm_debugregs>(KVM_GET_DEBUGREGS);
	}

	// Tables that guests may have written over.
	void prepare() const
	{
		for (unsigned i = 0; i < 2; i++)
			at<uint8_t>(handler_at + i) = out_to(fault_port, i);
		if (mode_ == Mode::real)
			for (unsigned vector = 0; vector < 256; vector++)
				at<uint32_t>(4 * vector) = handler_at;
		else if (mode_ == Mode::protected_)
			prepare_protected();
		else
			prepare_long();
		for (unsigned vector = 0; mode_ != Mode::real && vector < 256; vector++)
			mode_ == Mode::long_ ? set_gate64(vector, handler_at)
					     : set_gate32(vector, handler_at);
	}

	void write_block(Random &random, bool halts) const
	{
		std::byte *at = memory.data() + block_at;
		for (unsigned i = 0; i < instructions_a_block; i++)
			at += fuzz::random_instruction(random, mode_, halts, at);
		for (unsigned i = 0; i < 2; i++)
			at[i] = std::byte{out_to(done_port, i)};
	}

	// All of it as it was, but for registers that are not those of a mode.
	void go_back(Random &random)
	{
		kvm_regs regs = regs_;
		for (auto *one : {&regs.rax, &regs.rbx, &regs.rcx, &regs.rdx, &regs.rsi, &regs.rdi,
				  &regs.rbp, &regs.r8, &regs.r15})
			*one = random.number();
		kvm_vcpu_events events = events_;
		equal("KVM_SET_VCPU_EVENTS", vcpu.fd().call(KVM_SET_VCPU_EVENTS, &events), 0);
		kvm_debugregs debug = debug_;
		equal("KVM_SET_DEBUGREGS", vcpu.fd().call(KVM_SET_DEBUGREGS, &debug), 0);
		// The APIC's address and mode are the guest's.
		kvm_sregs sregs = sregs_;
		sregs.apic_base = vcpu.sregs().apic_base;
		vcpu.set_sregs(sregs);
		vcpu.set_regs(regs);
		// With its APIC in the kernel it may have halted there for ever.
		kvm_mp_state state{KVM_MP_STATE_RUNNABLE};
		equal("KVM_SET_MP_STATE", vcpu.fd().call(KVM_SET_MP_STATE, &state), 0);
	}

	// What others may want of a guest at any moment.
	void disturb(Random &random)
	{
		switch (random.below(12)) {
		case 0:
			vcpu.fd().call(KVM_NMI);
			break;
		case 1: {
			const kvm_interrupt interrupt{random.below(256)};
			vcpu.fd().call(KVM_INTERRUPT, &interrupt);
			break;
		}
		case 2: {
			// #BP and #OF are of an instruction whose length only the guest's own have.
			constexpr unsigned breakpoint = 3, overflow = 4;
			const unsigned vector = random.below(20);
			if (vector != breakpoint && vector != overflow)
				inject(vector, random);
			break;
		}
		case 3:
			inject(machine_check, random);
			break;
		case 4:
			report_machine_check(random);
			break;
		}
	}

	// Through the block, or until it does nothing any more.
	void run_block(const Watchdog &watchdog, fuzz::Tally &tally)
	{
		for (unsigned exits = 0; exits < exits_a_block; exits++) {
			watchdog.set(run_at_most_ns);
			const long result = vcpu.try_run();
			watchdog.set(0);
			tally.count(static_cast<unsigned>(mode_), result);
			// It spins, or has halted.
			if (result == -EINTR)
				return;
			// Tables that are not there, and the like.
			if (result)
				equal("KVM_RUN", result, -EFAULT);
			if (result)
				return;
			const kvm_run &run = vcpu.state();
			tally.count_exit(run.exit_reason);
			if (run.exit_reason == KVM_EXIT_FAIL_ENTRY)
				fail_entry();
			const bool goes_on =
				run.exit_reason == KVM_EXIT_MMIO ||
				(run.exit_reason == KVM_EXIT_IO && run.io.port != done_port &&
				 run.io.port != fault_port);
			if (!goes_on)
				return;
		}
	}

private:
	template <class T> T get(unsigned long request) const
	{
		T value{};
		equal("what a vCPU has", vcpu.fd().call(request, &value), 0);
		return value;
	}

	[[noreturn]] void fail_entry()
	{
		using number = unsigned long long;
		const auto events = get<kvm_vcpu_events>(KVM_GET_VCPU_EVENTS);
		const kvm_sregs sregs = vcpu.sregs();
		const kvm_regs regs = vcpu.regs();
		expect::note("RIP %#llx RFLAGS %#llx CR0 %#llx CR4 %#llx EFER %#llx",
			     (number)regs.rip, (number)regs.rflags, (number)sregs.cr0,
			     (number)sregs.cr4, (number)sregs.efer);
		expect::note("exception %u %u error code %u %#x, interrupt %u %u soft %u, NMI %u, "
			     "shadow %u",
			     events.exception.injected, events.exception.nr,
			     events.exception.has_error_code, events.exception.error_code,
			     events.interrupt.injected, events.interrupt.nr, events.interrupt.soft,
			     events.nmi.injected, events.interrupt.shadow);
		expect::fail("VM entry fails: %#llx",
			     (number)vcpu.state().fail_entry.hardware_entry_failure_reason);
	}

	static constexpr unsigned machine_check = 18;

	// As the processor would, with an error code where there is one.
	void inject(unsigned vector, Random &random)
	{
		constexpr uint32_t with_error = 0x27d00;
		kvm_vcpu_events events = events_;
		events.exception.injected = 1;
		events.exception.nr = static_cast<uint8_t>(vector);
		events.exception.has_error_code = mode_ != Mode::real && (with_error >> vector & 1);
		events.exception.error_code = static_cast<uint32_t>(random.next()) & 0xffff;
		// NMIs are no exceptions: that one is refused.
		vcpu.fd().call(KVM_SET_VCPU_EVENTS, &events);
	}

	// An error that the host found in memory, as QEMU passes it on; one that the guest is told of, or any.
	void report_machine_check(Random &random)
	{
		constexpr uint64_t valid = uint64_t{1} << 63, uncorrected = uint64_t{1} << 61;
		kvm_x86_mce error{};
		error.status = valid | random.number();
		if (random.one_in(2))
			error.status |= uncorrected;
		error.addr = random.number();
		error.misc = random.number();
		error.mcg_status = random.number();
		error.bank = static_cast<uint8_t>(random.below(12));
		vcpu.fd().call(KVM_X86_SET_MCE, &error);
	}

	const Mode mode_;
	kvm_sregs sregs_;
	kvm_regs regs_;
	kvm_vcpu_events events_;
	kvm_debugregs debug_;
};

void expect_it_lives(Victim &victim, Random &random)
{
	const Watchdog watchdog;
	victim.prepare();
	// An INIT that it has sent to itself may come first.
	for (unsigned attempts = 0; attempts < 3; attempts++) {
		victim.go_back(random);
		for (unsigned i = 0; i < 2; i++)
			victim.at<uint8_t>(block_at + i) = out_to(done_port, i);
		watchdog.set(200'000'000);
		const long result = victim.vcpu.try_run();
		watchdog.set(0);
		const kvm_run &run = victim.vcpu.state();
		if (result == 0 && run.exit_reason == KVM_EXIT_IO && run.io.port == done_port)
			return;
	}
	victim.vcpu.run_until_out(done_port, 1);
}

void attack(Mode mode, bool dedicated, fuzz::Tally &tally)
{
	const Watchdog watchdog;
	fuzz::ThreadCoverage coverage(tally.coverage());
	const auto start = Clock::now();
	const auto over = [&](unsigned long block) {
		return options.seconds
			       ? Clock::now() - start >= std::chrono::seconds(options.seconds)
			       : block >= options.blocks;
	};
	Random random(options.seed, static_cast<uint64_t>(mode) << 1 | dedicated);
	std::unique_ptr<Victim> victim;
	unsigned long block = 0;
	for (; !over(block); block++) {
		if (block % blocks_a_machine == 0) {
			if (victim)
				expect_it_lives(*victim, random);
			// One of two has the interrupt controllers in the kernel.
			const bool odd = block / blocks_a_machine % 2;
			victim = std::make_unique<Victim>(mode,
							  odd ? Irqchip::kernel : Irqchip::none);
			if (dedicated)
				dedicated::dedicate(victim->vcpu, dedicated::last_cpu);
		}
		// What one block has written over, the next ones find.
		if (block % 4 == 0)
			victim->prepare();
		victim->write_block(random, !dedicated);
		victim->go_back(random);
		victim->disturb(random);
		victim->run_block(watchdog, tally);
		coverage.collect();
	}
	expect_it_lives(*victim, random);
	expect::note("%lu blocks", block);
}

void attack_beside_another(bool dedicated)
{
	if (dedicated)
		dedicated::begin();
	fuzz::Tally &tally = fuzz::Tally::create();
	expect::note("seed=%lu", options.seed);
	{
		SteadyGuest other;
		other.rest(100);
		for (const Mode mode : {Mode::real, Mode::protected_, Mode::long_}) {
			attack(mode, dedicated, tally);
			other.check_progress(1);
		}
	}
	tally.print({"KVM_RUN in real mode", "KVM_RUN in protected mode", "KVM_RUN in long mode"});
	if (!Device::is_kvmpp())
		return;
	host::expect_vmx(false);
	if (dedicated)
		dedicated::wait_for("Linux has the CPU",
				    [] { return dedicated::is_online(dedicated::last_cpu); });
}

void on_a_cpu_of_linuxs()
{
	attack_beside_another(false);
}

void on_a_cpu_of_its_own()
{
	attack_beside_another(true);
}

// ---- Exceptions whose delivery raises another of their kind: no instruction is ever executed in between

// Until a signal ends it, it runs; then it can be told to do something else, given what it was in the beginning.
void expect_interruptible(Machine &machine, const kvm_sregs &first)
{
	const Watchdog watchdog;
	SteadyGuest other;
	watchdog.set(50'000'000);
	const long result = machine.vcpu.try_run();
	watchdog.set(0);
	if (result == 0)
		expect::note("%s", exit_name(machine.vcpu.state().exit_reason));
	equal("KVM_RUN", result, -EINTR);
	other.check_progress(1);
	other.finish();

	kvm_vcpu_events events{};
	equal("KVM_SET_VCPU_EVENTS", machine.vcpu.fd().call(KVM_SET_VCPU_EVENTS, &events), 0);
	kvm_debugregs registers{};
	equal("KVM_SET_DEBUGREGS", machine.vcpu.fd().call(KVM_SET_DEBUGREGS, &registers), 0);
	machine.vcpu.set_sregs(first);
	machine.vcpu.enter_real(block_at);
	for (unsigned i = 0; i < 2; i++)
		machine.at<uint8_t>(block_at + i) = out_to(done_port, i);
	machine.vcpu.run_until_out(done_port, 1);
}

// Ring 3, with a gate to ring 3: the frame goes to the same stack, which is misaligned.
void endless_alignment_checks(bool dedicated)
{
	constexpr uint16_t ring3_code = SEL_UCODE32 | 3, ring3_data = SEL_UDATA | 3;
	constexpr uint64_t alignment_mask = 1 << 18, alignment_check = 1 << 18;
	Machine machine({});
	if (dedicated)
		dedicated::dedicate(machine.vcpu, dedicated::last_cpu);
	const kvm_sregs first = machine.vcpu.sregs();
	machine.prepare_protected();
	machine.at<uint64_t>(GUEST_IDT + 8 * 17) =
		handler_at | uint64_t{ring3_code} << 16 | uint64_t{0xee00} << 32;
	constexpr uint8_t load[] = {0xa1, 0x01, 0x00, 0x02, 0x00}; // MOV EAX, [0x20001]
	std::memcpy(machine.memory.data() + block_at, load, sizeof(load));

	machine.vcpu.enter_protected(block_at);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cr0 |= alignment_mask;
	for (kvm_segment *segment : {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss}) {
		segment->selector = ring3_data;
		segment->dpl = 3;
	}
	sregs.cs.selector = ring3_code;
	sregs.cs.dpl = 3;
	machine.vcpu.set_sregs(sregs);
	kvm_regs regs = machine.vcpu.regs();
	regs.rsp = GUEST_STACK + 2;
	regs.rflags = alignment_check | 2;
	machine.vcpu.set_regs(regs);
	expect_interruptible(machine, first);
}

// A watchpoint on the stack that its own exception's frame goes to, the same one each time.
void endless_debug_exceptions(bool dedicated)
{
	constexpr uint64_t tss_ist1 = 0x24;
	Machine machine({});
	if (dedicated)
		dedicated::dedicate(machine.vcpu, dedicated::last_cpu);
	const kvm_sregs first = machine.vcpu.sregs();
	machine.prepare_long();
	machine.at<uint64_t>(GUEST_TSS + tss_ist1) = GUEST_STACK;
	machine.set_gate64(1, handler_at);
	machine.at<uint8_t>(GUEST_IDT + 16 + 4) = 1;
	constexpr uint8_t store[] = {0x89, 0x03}; // MOV [RBX], EAX
	std::memcpy(machine.memory.data() + block_at, store, sizeof(store));
	constexpr uint8_t stay[] = {0xeb, 0xfe}; // JMP to itself
	std::memcpy(machine.memory.data() + handler_at, stay, sizeof(stay));

	machine.vcpu.enter_long(block_at);
	kvm_regs regs = machine.vcpu.regs();
	regs.rbx = GUEST_STACK - 8;
	machine.vcpu.set_regs(regs);
	kvm_debugregs registers{};
	registers.db[0] = GUEST_STACK - 8;
	registers.dr6 = 0xffff0ff0;
	// Writes of 8 bytes.
	registers.dr7 = 0x90402;
	equal("KVM_SET_DEBUGREGS", machine.vcpu.fd().call(KVM_SET_DEBUGREGS, &registers), 0);
	expect_interruptible(machine, first);
}

void triple_faults(bool dedicated)
{
	SteadyGuest other;
	for (const Mode mode : {Mode::real, Mode::protected_, Mode::long_}) {
		Victim victim(mode);
		if (dedicated)
			dedicated::dedicate(victim.vcpu, dedicated::last_cpu);
		victim.prepare();
		kvm_sregs sregs = victim.vcpu.sregs();
		sregs.idt.limit = 0;
		victim.vcpu.set_sregs(sregs);
		constexpr uint8_t undefined[] = {0x0f, 0x0b};
		std::memcpy(victim.memory.data() + block_at, undefined, sizeof(undefined));
		victim.vcpu.run_until(KVM_EXIT_SHUTDOWN);
		Random random(1, 0);
		expect_it_lives(victim, random);
	}
	other.check_progress(1);
}

void exceptions_on_a_cpu_of_linuxs()
{
	triple_faults(false);
	endless_alignment_checks(false);
	endless_debug_exceptions(false);
}

void exceptions_on_a_cpu_of_its_own()
{
	dedicated::begin();
	triple_faults(true);
	endless_alignment_checks(true);
	endless_debug_exceptions(true);
}

bool take_option(std::string_view text)
{
	return option::take(text, "blocks=", options.blocks) ||
	       option::take(text, "seconds=", options.seconds) ||
	       option::take(text, "seed=", options.seed);
}

} // namespace

int main(int argc, char **argv)
{
	std::vector<char *> others{argv[0]};
	for (int i = 1; i < argc; i++)
		if (!take_option(argv[i]))
			others.push_back(argv[i]);
	const auto limit = static_cast<unsigned>(options.seconds * 5 + options.blocks / 2 + 120);
	const ktap::Case cases[] = {
		{"exceptions_on_a_cpu_of_linuxs", exceptions_on_a_cpu_of_linuxs, 240},
		{"exceptions_on_a_cpu_of_its_own", exceptions_on_a_cpu_of_its_own, 240},
		{"on_a_cpu_of_linuxs", on_a_cpu_of_linuxs, limit},
		{"on_a_cpu_of_its_own", on_a_cpu_of_its_own, limit},
	};
	return ktap::run(cases, static_cast<int>(others.size()), others.data());
}
