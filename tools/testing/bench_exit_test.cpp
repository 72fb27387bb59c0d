// SPDX-License-Identifier: GPL-2.0
//
// What an exit costs, in instructions of a host with one CPU: those of the hypervisor, of Linux and of the VMM's calls, and
// the guest's own few. Nothing is asserted of them: they are said, in lines "# measured NAME VALUE...".
//
// The local APIC is in the kernel only where the guest needs one, since it makes each exit dearer for KVM.

#include "apic_machine.hpp"
#include "bochs.hpp"
#include "expect.hpp"
#include "ktap.hpp"
#include "measured.hpp"
#include "window.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>

namespace
{

using expect::equal;
using expect::that;
using measured::Samples;
namespace apic = guest::apic;
using Result = ApicMachine::Result;

// Of each kind.
const unsigned samples = measured::wanted("BENCH_SAMPLES", 5);

// ---- Answered in the kernel

void cpuid()
{
	measured::need_one_cpu();
	ApicMachine m(apic::cpuid_rounds, Irqchip::none);

	const auto batch = [&](unsigned rounds) {
		ApicMachine::enter(m.vcpu, apic::cpuid_rounds, GUEST_STACK, rounds);
		const uint32_t exits = bochs::vm_exits(0);
		const uint64_t before = bochs::instructions(0);
		m.vcpu.run_until_out(0x80, 1);
		const uint64_t took = bochs::instructions(0) - before;
		that("exits", bochs::vm_exits(0) - exits > rounds);
		return took;
	};
	measured::of_a_round(samples, 5, 55, batch).say("exits.cpuid");
}

// ---- To user space and KVM_RUN again

template <typename Seen> void to_user_space(const char *name, uint64_t entry, Seen seen)
{
	measured::need_one_cpu();
	ApicMachine m(entry, Irqchip::none);

	const auto batch = [&](unsigned rounds) {
		const uint64_t first = m.now(Result::rounds);
		const uint64_t before = bochs::instructions(0);
		for (unsigned i = 0; i < rounds; i++)
			if (m.vcpu.try_run() != 0 || !seen(m.vcpu.state()))
				expect::fail("KVM_RUN ended with %s",
					     exit_name(m.vcpu.state().exit_reason));
		const uint64_t took = bochs::instructions(0) - before;
		equal("rounds", m.now(Result::rounds) - first, rounds);
		return took;
	};
	measured::of_a_round(samples, 1, 6, batch).say(name);
}

void port()
{
	to_user_space("exits.out", apic::outs,
		      [](const kvm_run &run) { return run.exit_reason == KVM_EXIT_IO; });
}

void mmio()
{
	to_user_space("exits.mmio", apic::stores, [](const kvm_run &run) {
		return run.exit_reason == KVM_EXIT_MMIO && run.mmio.is_write &&
		       run.mmio.phys_addr == GUEST_MMIO && run.mmio.len == 4;
	});
}

// ---- Faults: a guest that reads and writes one page after the other

constexpr size_t fault_pages = 1024;
using Pages = window_machine::WindowMachine;

// What it takes for each page more than when nothing faults.
uint64_t instructions_for_a_page(Pages &m)
{
	const auto walk = [&] {
		const uint64_t before = bochs::instructions(0);
		call(m, guest::longmode::walk, 0, window_machine::window,
		     window_machine::window + m.memory_in_window.size());
		return bochs::instructions(0) - before;
	};
	const uint64_t first = walk();
	return (first - walk()) / fault_pages;
}

// The pages are the VMM's already, and small.
void fresh_page()
{
	measured::need_one_cpu();
	Samples pages;
	for (unsigned i = 0; i < samples; i++) {
		Pages m(fault_pages * window_machine::page_size);
		madvise(m.address(), m.memory_in_window.size(), MADV_NOHUGEPAGE);
		for (size_t page = 0; page < fault_pages; page++)
			m.word(page * window_machine::page_size) = page;
		pages.add(instructions_for_a_page(m));
	}
	pages.say("faults.fresh");
}

// They were mapped, and are read-only since, for a log.
void logged_page()
{
	measured::need_one_cpu();
	Samples pages;
	Pages m(fault_pages * window_machine::page_size);
	const auto log = [&](uint32_t flags) {
		m.vm.set_memory(1, window_machine::window, m.memory_in_window.size(), m.address(),
				flags);
	};
	madvise(m.address(), m.memory_in_window.size(), MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < samples; i++) {
		log(0);
		instructions_for_a_page(m);
		log(KVM_MEM_LOG_DIRTY_PAGES);
		pages.add(instructions_for_a_page(m));
	}
	pages.say("faults.logged");
}

// ---- HLT

void run_before_others(int priority)
{
	const sched_param param = {priority};
	equal("sched_setscheduler", sched_setscheduler(0, SCHED_FIFO, &param), 0);
}

// A vCPU has halted, its thread sleeps; a message (MSI) wakes it, and it halts again. Its thread goes before this one,
// so that the round is over when KVM_SIGNAL_MSI returns. There are two exits in it, HLT and the write of EOI.
void halt_and_wake()
{
	measured::need_one_cpu();
	ApicMachine m(apic::take_ipis, Irqchip::kernel);
	// The thread inherits it.
	run_before_others(2);
	Runner runner(m.vcpu, 0);
	run_before_others(1);
	wait_for("the guest halts", [&] { return m.now(Result::ready) != 0; });

	kvm_msi message = {};
	message.address_lo = 0xfee00000;
	message.data = ApicMachine::ipi_vector;
	const auto batch = [&](unsigned rounds) {
		const uint64_t first = m.now(Result::rounds);
		const uint64_t before = bochs::instructions(0);
		for (unsigned i = 0; i < rounds; i++)
			m.vm.fd().call(KVM_SIGNAL_MSI, &message);
		const uint64_t took = bochs::instructions(0) - before;
		equal("rounds", m.now(Result::rounds) - first, rounds);
		return took;
	};
	const Samples rounds = measured::of_a_round(samples, 1, 6, batch);
	equal("interrupts", m.now(Result::ipis), m.now(Result::rounds));
	rounds.say("exits.halt_and_wake");
	m.result(Result::stop) = 1;
	m.vm.fd().call(KVM_SIGNAL_MSI, &message);
	runner.join();
}

// ---- What a VMM cannot do without: a system call that ends in a driver, which has nothing to do

void system_call()
{
	measured::need_one_cpu();
	const Fd null(open("/dev/null", O_RDWR));

	const auto batch = [&](unsigned rounds) {
		const uint64_t before = bochs::instructions(0);
		for (unsigned i = 0; i < rounds; i++)
			null.call(KVM_RUN);
		return bochs::instructions(0) - before;
	};
	measured::of_a_round(samples, 5, 55, batch).say("floor.ioctl");
}

constexpr ktap::Case cases[] = {
	{"cpuid", cpuid},
	{"port", port},
	{"mmio", mmio},
	{"fresh_page", fresh_page},
	{"logged_page", logged_page},
	{"halt_and_wake", halt_and_wake},
	{"system_call", system_call},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
