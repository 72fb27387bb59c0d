// SPDX-License-Identifier: GPL-2.0
//
// The registers a guest has to itself: control, debug and model-specific ones, what CPUID and the
// TSC say, system calls, SIMD state. They hold what the guest wrote, over exits as well, and refuse
// what a processor refuses.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <atomic>
#include <thread>

#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;

// ---- Registers

void control_registers()
{
	LongMachine machine(lm::control);
	std::memcpy(&machine.at<std::byte>(GUEST_SCRATCH), &machine.at<std::byte>(GUEST_TABLES),
		    0x1000);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	const uint64_t cr0 = machine.result(0);
	equal("CR0 at the start", cr0, 0x80000033u);
	equal("CR0 with TS", machine.result(1), cr0 | 8);
	equal("CR0 after CLTS", machine.result(2), cr0);
	equal("CR0 after LMSW", machine.result(3), cr0 | 8);
	equal("CR0 with WP, AM", machine.result(4), cr0 | 0x50000);
	equal("CR4 at the start", machine.result(5), 0x620u);
	equal("CR4 with DE, PGE", machine.result(6), 0x6a8u);
	equal("CR3 at the start", machine.result(7), uint64_t{GUEST_TABLES});
	equal("CR3 later", machine.result(8), uint64_t{GUEST_SCRATCH});
	equal("CR8 at the start", machine.result(9), 0u);
	equal("CR8 later", machine.result(10), 5u);

	const kvm_sregs sregs = machine.vcpu.sregs();
	equal("KVM_GET_SREGS CR0", sregs.cr0, cr0 | 0x50000);
	equal("KVM_GET_SREGS CR2", sregs.cr2, 0x123456789u);
	equal("KVM_GET_SREGS CR3", sregs.cr3, uint64_t{GUEST_SCRATCH});
	equal("KVM_GET_SREGS CR4", sregs.cr4, 0x6a8u);
	equal("KVM_GET_SREGS CR8", sregs.cr8, 5u);
	equal("kvm_run's CR8", machine.vcpu.state().cr8, 5u);

	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("CR2 after an exit", machine.result(11), 0x123456789u);
	equal("CR8 after an exit", machine.result(12), 5u);
}

// Without an APIC in the kernel, a lower CR8 is the VMM's business: it may have an interrupt for
// the guest which the higher one held back.
void cr8_lowered()
{
	LongMachine machine(lm::cr8_down);
	machine.vcpu.run_until(KVM_EXIT_SET_TPR);
	equal("kvm_run's CR8", machine.vcpu.state().cr8, 3u);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("CR8", machine.vcpu.regs().rbx, 3u);
}

void control_registers_refuse()
{
	constexpr uint64_t cr0 = 0x80000033;
	constexpr uint64_t cr4 = 0x620;
	const Raise raises[] = {
		{"CR0.PG without PE", lm::write_cr0, lm::write_cr0_at, 13, 0, {.rax = cr0 & ~1ul}},
		{"CR0.NW without CD",
		 lm::write_cr0,
		 lm::write_cr0_at,
		 13,
		 0,
		 {.rax = cr0 | bit(29)}},
		{"CR0 bit 32", lm::write_cr0, lm::write_cr0_at, 13, 0, {.rax = cr0 | bit(32)}},
		{"CR3 bit 62",
		 lm::write_cr3,
		 lm::write_cr3_at,
		 13,
		 0,
		 {.rax = GUEST_TABLES | bit(62)}},
		{"CR4 without PAE", lm::write_cr4, lm::write_cr4_at, 13, 0, {.rax = cr4 & ~bit(5)}},
		{"CR4 bit 15", lm::write_cr4, lm::write_cr4_at, 13, 0, {.rax = cr4 | bit(15)}},
		{"CR4 bit 40", lm::write_cr4, lm::write_cr4_at, 13, 0, {.rax = cr4 | bit(40)}},
		{"CR8 0x10", lm::write_cr8, lm::write_cr8_at, 13, 0, {.rax = 0x10}},
	};
	for (const Raise &raise : raises)
		expect_fault(raise);
}

struct Msr {
	const char *name;
	uint32_t index;
	uint64_t value;
};

void msr_round_trips()
{
	LongMachine machine(lm::msr_read);
	Msrs msrs(machine);
	constexpr Msr list[] = {
		{"STAR", msr_star, 0x0011223344556677},
		{"LSTAR", msr_lstar, 0xffffffff81000000},
		{"CSTAR", msr_cstar, 0xffffffff82000000},
		{"FMASK", msr_fmask, 0x47700},
		{"FS_BASE", msr_fs_base, 0x7f0012345678},
		{"GS_BASE", msr_gs_base, 0xffff888012345678},
		{"KERNEL_GS_BASE", msr_kernel_gs_base, 0xffff888087654321},
		{"SYSENTER_CS", msr_sysenter_cs, 0x10},
		{"SYSENTER_ESP", msr_sysenter_esp, 0xffff888000001000},
		{"SYSENTER_EIP", msr_sysenter_eip, 0xffffffff83000000},
		{"PAT", msr_pat, 0x0007040600070401},
		{"EFER", msr_efer, 0xd01},
	};
	// All written before any is read, with exits, and thereby the host's own values, between.
	for (const Msr &msr : list)
		msrs.write(msr.index, msr.value);
	for (unsigned round = 0; round < 2; round++)
		for (const Msr &msr : list)
			equal(msr.name, msrs.read(msr.index), msr.value);
	equal("KVM_GET_SREGS FS base", machine.vcpu.sregs().fs.base, list[4].value);
	equal("KVM_GET_SREGS GS base", machine.vcpu.sregs().gs.base, list[5].value);
	equal("KVM_GET_SREGS EFER", machine.vcpu.sregs().efer, 0xd01u);
	equal("exceptions", machine.fault().count, 0u);
}

void msr_tsc_aux_round_trip()
{
	LongMachine machine(lm::msr_read);
	Msrs msrs(machine);
	if (!(identify(machine, 0x80000001).rdx & bit(27)))
		ktap::skip("the guest has no RDTSCP");
	msrs.write(msr_tsc_aux, 0x1234567);
	equal("TSC_AUX", msrs.read(msr_tsc_aux), 0x1234567u);
	call(machine, lm::timep);
	equal("RDTSCP's ECX", machine.vcpu.regs().rcx, 0x1234567u);
}

void msr_apic_base_round_trip()
{
	LongMachine machine(lm::msr_read);
	Msrs msrs(machine);
	const uint64_t value = msrs.read(msr_apic_base);
	equal("KVM_GET_SREGS APIC base", machine.vcpu.sregs().apic_base, value);
	msrs.write(msr_apic_base, value);
	equal("APIC_BASE", msrs.read(msr_apic_base), value);
	equal("exceptions", machine.fault().count, 0u);
}

Raise refused_read(uint32_t index)
{
	return {"RDMSR", lm::read_msr, lm::read_msr_at, 13, 0, {.rcx = index}};
}

Raise refused_write(const char *name, uint32_t index, uint64_t value)
{
	return {name,
		lm::write_msr,
		lm::write_msr_at,
		13,
		0,
		{.rax = value & 0xffffffff, .rcx = index, .rdx = value >> 32}};
}

void msr_refusals()
{
	const Raise raises[] = {
		refused_read(0x12345),
		refused_read(0xc0012345),
		refused_write("unknown MSR", 0x12345, 0),
		refused_write("LSTAR not canonical", msr_lstar, non_canonical),
		refused_write("FS_BASE not canonical", msr_fs_base, non_canonical),
		refused_write("KERNEL_GS_BASE not canonical", msr_kernel_gs_base, non_canonical),
		refused_write("SYSENTER_EIP not canonical", msr_sysenter_eip, non_canonical),
		refused_write("PAT with a reserved type", msr_pat, 0x0007040600070402),
		refused_write("EFER with a reserved bit", msr_efer, 0x501 | bit(9)),
		refused_write("EFER.LME off with paging on", msr_efer, 1),
	};
	for (const Raise &raise : raises)
		expect_fault(raise);
}

void system_calls()
{
	LongMachine machine(lm::system_calls);
	Msrs msrs(machine);
	msrs.write(msr_star, uint64_t{SEL_CODE64 | (SEL_UCODE32 | 3) << 16} << 32);
	msrs.write(msr_lstar, lm::syscall_entry);
	msrs.write(msr_fmask, 0x201);
	call(machine, lm::system_calls);
	equal("CS in ring 3", machine.result(0), uint64_t{SEL_UCODE64 | 3});
	equal("SS in ring 3", machine.result(1), uint64_t{SEL_UDATA | 3});
	equal("CF and IF after FMASK", machine.result(2) & 0x201, 0u);
	equal("CS in ring 0", machine.result(3), uint64_t{SEL_CODE64});
	equal("SS in ring 0", machine.result(4), uint64_t{SEL_DATA});
	equal("RCX", machine.result(5), lm::syscall_return);
	equal("R11", machine.result(6), 0x203u);
}

void fast_system_calls()
{
	LongMachine machine(lm::fast_calls);
	Msrs msrs(machine);
	msrs.write(msr_sysenter_cs, SEL_CODE64);
	msrs.write(msr_sysenter_esp, GUEST_STACK - 0x100);
	msrs.write(msr_sysenter_eip, lm::sysenter_entry);
	call(machine, lm::fast_calls);
	equal("CS in ring 3", machine.result(0), uint64_t{SEL_UCODE64 | 3});
	equal("SS in ring 3", machine.result(1), uint64_t{SEL_UDATA_ | 3});
	equal("RSP in ring 3", machine.result(2), uint64_t{GUEST_STACK_USER});
	equal("CS in ring 0", machine.result(3), uint64_t{SEL_CODE64});
	equal("SS in ring 0", machine.result(4), uint64_t{SEL_DATA});
	equal("RSP in ring 0", machine.result(5), uint64_t{GUEST_STACK - 0x100});
}

void swapgs()
{
	LongMachine machine(lm::swap);
	Msrs msrs(machine);
	machine.at<uint64_t>(GUEST_SCRATCH) = 111;
	machine.at<uint64_t>(GUEST_SCRATCH + 0x100) = 222;
	msrs.write(msr_gs_base, GUEST_SCRATCH);
	msrs.write(msr_kernel_gs_base, GUEST_SCRATCH + 0x100);
	call(machine, lm::swap);
	equal("through KERNEL_GS_BASE", machine.vcpu.regs().rax, 222u);
	equal("through GS_BASE", machine.vcpu.regs().rbx, 111u);
}

void cpuid()
{
	// call() expects HLT: an exit of CPUID to user space would fail it.
	LongMachine machine(lm::identify);
	kvm_regs regs = identify(machine, 0);
	that("there are leaves up to 1 at least", regs.rax >= 1);
	const uint32_t vendor[] = {static_cast<uint32_t>(regs.rbx), static_cast<uint32_t>(regs.rdx),
				   static_cast<uint32_t>(regs.rcx)};
	that("the vendor is GenuineIntel", !std::memcmp(vendor, "GenuineIntel", sizeof(vendor)));
	that("CPUID clears the upper halves", !((regs.rax | regs.rbx | regs.rcx | regs.rdx) >> 32));

	regs = identify(machine, 1);
	equal("hypervisor bit", regs.rcx >> 31 & 1, 1u);
	constexpr uint64_t needed =
		bit(0) | bit(4) | bit(5) | bit(6) | bit(8) | bit(23) | bit(24) | bit(25) | bit(26);
	equal("FPU, TSC, MSR, PAE, CX8, MMX, FXSR, SSE, SSE2", regs.rdx & needed, needed);
	equal("OSXSAVE, with CR4.OSXSAVE clear", regs.rcx >> 27 & 1, 0u);

	regs = identify(machine, 0x80000000);
	that("there are extended leaves", regs.rax >= 0x80000001);
	regs = identify(machine, 0x80000001);
	equal("LM and SYSCALL", regs.rdx & (bit(29) | bit(11)), bit(29) | bit(11));
}

void time_stamps()
{
	LongMachine machine(lm::time);
	uint64_t last = 0;
	for (unsigned round = 0; round < 20; round++) {
		kvm_regs regs = machine.vcpu.regs();
		regs.rip = lm::time;
		machine.vcpu.set_regs(regs);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		const uint64_t now = machine.vcpu.regs().rbx;
		that("the TSC does not go backwards over exits", now >= last);
		last = now;
	}
	equal("exceptions", machine.fault().count, 0u);
	that("the TSC moves", last > 0);
}

// As debug_write takes and debug_read gives them.
void expect_debug_registers(const kvm_regs &read, const kvm_regs &written)
{
	equal("DR0", read.r8, written.r8);
	equal("DR1", read.r9, written.r9);
	equal("DR2", read.r10, written.r10);
	equal("DR3", read.r11, written.r11);
	equal("DR6", read.r12, written.r12);
	equal("DR7", read.r13, written.r13);
}

void debug_registers()
{
	LongMachine machine(lm::debug_write);
	kvm_regs regs = machine.vcpu.regs();
	regs.r8 = 0x111000;
	regs.r9 = 0x222000;
	regs.r10 = 0xffffffff81234567;
	regs.r11 = 0x444000;
	regs.r12 = 0xffff0ff1;
	// Bits that enable nothing, but have to be kept: LEN and R/W of two breakpoints, GE.
	regs.r13 = 0x00dd0600;
	machine.vcpu.set_regs(regs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	const kvm_regs written = regs;
	for (unsigned round = 0; round < 2; round++) {
		regs.r8 = regs.r9 = regs.r10 = regs.r11 = regs.r12 = regs.r13 = 0;
		regs.rip = lm::debug_read;
		machine.vcpu.set_regs(regs);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		regs = machine.vcpu.regs();
		expect_debug_registers(regs, written);
	}
}

void breakpoint_on_instruction()
{
	LongMachine machine(lm::break_execute);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	const auto &fault = machine.fault();
	equal("exceptions", fault.count, 1u);
	equal("vector", fault.vector, 1u);
	equal("RIP", fault.rip, lm::break_execute_at);
	equal("DR6", fault.dr6 & 0xf, 1u);
}

void breakpoint_on_write()
{
	LongMachine machine(lm::break_write);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	const auto &fault = machine.fault();
	equal("exceptions", fault.count, 1u);
	equal("vector", fault.vector, 1u);
	equal("RIP", fault.rip, lm::break_write_after);
	equal("DR6", fault.dr6 & 0xf, 2u);
}

// A breakpoint the guest sets before an exit hits after it.
void breakpoint_over_exit()
{
	LongMachine machine(lm::debug_write);
	kvm_regs regs = machine.vcpu.regs();
	regs.r8 = lm::ud_at;
	regs.r12 = 0xffff0ff0;
	regs.r13 = 0x402;
	machine.vcpu.set_regs(regs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	call(machine, lm::ud);
	const auto &fault = machine.fault();
	equal("vector", fault.vector, 1u);
	equal("RIP", fault.rip, lm::ud_at);
}

// ---- Ring 3

// An entry's registers and flags; everything else is at rest, in ring 3 if so wanted.
void enter(const LongMachine &machine, uint64_t entry, const Raise::Registers &values,
	   uint64_t rflags, bool ring_3)
{
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cs.selector = ring_3 ? SEL_UCODE64 | 3 : SEL_CODE64;
	sregs.ss.selector = ring_3 ? SEL_UDATA | 3 : SEL_DATA;
	sregs.cs.dpl = sregs.ss.dpl = ring_3 ? 3 : 0;
	machine.vcpu.set_sregs(sregs);
	kvm_regs regs{};
	regs.rip = entry;
	regs.rsp = ring_3 ? GUEST_STACK_USER : GUEST_STACK;
	regs.rax = values.rax;
	regs.rcx = values.rcx;
	regs.rdx = values.rdx;
	regs.rflags = rflags | 2;
	machine.vcpu.set_regs(regs);
	machine.at<Fault>(GUEST_FAULT) = {};
}

constexpr uint64_t flag_tf = 1 << 8;
constexpr uint64_t flags_iopl3 = 3 << 12;
constexpr uint8_t port = 0x80;

void expect_fault_in_ring_3(LongMachine &machine, const Raise &raise)
{
	enter(machine, raise.entry, raise.regs, flags_iopl3, true);
	machine.vcpu.run_until_out(port, 1);
	check_fault(machine, raise);
	equal(raise.name, machine.fault().cs, uint64_t{SEL_UCODE64 | 3});
	// What would have been written is not, and what would have been read is not seen.
	equal(raise.name, machine.vcpu.regs().rax, raise.regs.rax);
}

void control_registers_in_ring_3()
{
	LongMachine machine(lm::user_read_cr0);
	const kvm_sregs before = machine.vcpu.sregs();
	constexpr uint64_t efer_with_nx = 0xd01;
	const Raise raises[] = {
		// Values which ring 0 may write.
		{"to CR0", lm::user_write_cr0, lm::user_write_cr0_at, 13, 0, {.rax = 0x8005003b}},
		{"to CR2", lm::user_write_cr2, lm::user_write_cr2_at, 13, 0, {.rax = 0x1234}},
		{"to CR3", lm::user_write_cr3, lm::user_write_cr3_at, 13, 0, {.rax = 0x30000}},
		{"to CR4", lm::user_write_cr4, lm::user_write_cr4_at, 13, 0, {.rax = 0x6a8}},
		{"to CR8", lm::user_write_cr8, lm::user_write_cr8_at, 13, 0, {.rax = 5}},
		{"from CR0", lm::user_read_cr0, lm::user_read_cr0_at, 13, 0, {.rax = 0x5a5a}},
		{"from CR2", lm::user_read_cr2, lm::user_read_cr2_at, 13, 0, {.rax = 0x5a5a}},
		{"from CR3", lm::user_read_cr3, lm::user_read_cr3_at, 13, 0, {.rax = 0x5a5a}},
		{"from CR4", lm::user_read_cr4, lm::user_read_cr4_at, 13, 0, {.rax = 0x5a5a}},
		{"from CR8", lm::user_read_cr8, lm::user_read_cr8_at, 13, 0, {.rax = 0x5a5a}},
		{"CLTS", lm::user_clts, lm::user_clts_at, 13, 0, {}},
		{"LMSW", lm::user_lmsw, lm::user_lmsw_at, 13, 0, {.rax = 0x3b}},
		{"RDMSR",
		 lm::user_read_msr,
		 lm::user_read_msr_at,
		 13,
		 0,
		 {.rax = 0x5a5a, .rcx = msr_efer}},
		{"WRMSR",
		 lm::user_write_msr,
		 lm::user_write_msr_at,
		 13,
		 0,
		 {.rax = efer_with_nx, .rcx = msr_efer}},
	};
	for (const Raise &raise : raises)
		expect_fault_in_ring_3(machine, raise);
	const kvm_sregs after = machine.vcpu.sregs();
	equal("CR0", after.cr0, before.cr0);
	equal("CR2", after.cr2, before.cr2);
	equal("CR3", after.cr3, before.cr3);
	equal("CR4", after.cr4, before.cr4);
	equal("CR8", after.cr8, before.cr8);
	equal("EFER", after.efer, before.efer);
}

void xsetbv_in_ring_3()
{
	LongMachine machine(lm::identify);
	if (!(identify(machine, 1).rcx & bit(26)))
		ktap::skip("the guest has no XSAVE");
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cr4 |= bit(18);
	machine.vcpu.set_sregs(sregs);
	expect_fault_in_ring_3(
		machine, {"XSETBV", lm::user_set_xcr, lm::user_set_xcr_at, 13, 0, {.rax = 3}});
}

// A VM exit of MOV DR comes before the processor's check of the ring.
void debug_registers_in_ring_3()
{
	LongMachine machine(lm::debug_write);
	kvm_regs regs = machine.vcpu.regs();
	regs.r8 = 0x111000;
	regs.r9 = 0x222000;
	regs.r10 = 0x333000;
	regs.r11 = 0x444000;
	regs.r12 = 0xffff0ff0;
	regs.r13 = 0x00dd0600;
	machine.vcpu.set_regs(regs);
	machine.vcpu.run_until(KVM_EXIT_HLT);

	const Raise raises[] = {
		{"to DR0", lm::user_write_dr0, lm::user_write_dr0_at, 13, 0, {.rax = 0x5a5a}},
		{"to DR3", lm::user_write_dr3, lm::user_write_dr3_at, 13, 0, {.rax = 0x5a5a}},
		{"to DR4", lm::user_write_dr4, lm::user_write_dr4_at, 13, 0, {.rax = 0x5a5a}},
		{"to DR6", lm::user_write_dr6, lm::user_write_dr6_at, 13, 0, {.rax = 0xffff0ff1}},
		{"to DR7", lm::user_write_dr7, lm::user_write_dr7_at, 13, 0, {.rax = 0x403}},
		{"to DR7, upper half",
		 lm::user_write_dr7,
		 lm::user_write_dr7_at,
		 13,
		 0,
		 {.rax = bit(40)}},
		{"from DR0", lm::user_read_dr0, lm::user_read_dr0_at, 13, 0, {.rax = 0x5a5a}},
		{"from DR3", lm::user_read_dr3, lm::user_read_dr3_at, 13, 0, {.rax = 0x5a5a}},
		{"from DR5", lm::user_read_dr5, lm::user_read_dr5_at, 13, 0, {.rax = 0x5a5a}},
		{"from DR6", lm::user_read_dr6, lm::user_read_dr6_at, 13, 0, {.rax = 0x5a5a}},
		{"from DR7", lm::user_read_dr7, lm::user_read_dr7_at, 13, 0, {.rax = 0x5a5a}},
	};
	for (const Raise &raise : raises)
		expect_fault_in_ring_3(machine, raise);
	// With CR4.DE there are no DR4 and DR5, in no ring.
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cr4 |= bit(3);
	machine.vcpu.set_sregs(sregs);
	expect_fault_in_ring_3(
		machine, {"DR4, CR4.DE", lm::user_write_dr4, lm::user_write_dr4_at, 6, 0, {}});
	expect_fault_in_ring_3(machine,
			       {"DR5, CR4.DE", lm::user_read_dr5, lm::user_read_dr5_at, 6, 0, {}});

	enter(machine, lm::debug_read, {}, 0, false);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	expect_debug_registers(machine.vcpu.regs(), regs);
}

// ---- Traps held back

// What an instruction leaves blocked must not outlast the trap that comes behind it: VM entry
// refuses a guest with such a state. (Bochs does not.)
void expect_trap(uint64_t entry, uint64_t rip, uint64_t rflags, bool ring_3)
{
	LongMachine machine(entry);
	// A debug exception leaves in DR6 what it has nothing to say about.
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = lm::debug_write;
	regs.r12 = 0xffff0ff0;
	regs.r13 = 0x400;
	machine.vcpu.set_regs(regs);
	machine.vcpu.run_until(KVM_EXIT_HLT);

	const uint16_t code = ring_3 ? SEL_UCODE64 | 3 : SEL_CODE64;
	const uint16_t stack = ring_3 ? SEL_UDATA | 3 : SEL_DATA;
	enter(machine, entry, {.rax = stack}, rflags, ring_3);
	machine.vcpu.run_until_out(port, 1);
	const Fault &fault = machine.fault();
	equal("exceptions", fault.count, 1u);
	equal("vector", fault.vector, 1u);
	equal("RIP", fault.rip, rip);
	equal("CS", fault.cs, code);
	// INT1 is no single step, nor the end of one.
	const bool is_step = rip == lm::step_sti_trap || rip == lm::step_mov_ss_trap;
	equal("DR6", fault.dr6 & (bit(14) | 0xf), is_step ? bit(14) : 0);
}

void single_step_over_sti()
{
	expect_trap(lm::step_sti, lm::step_sti_trap, flag_tf, false);
	expect_trap(lm::step_sti, lm::step_sti_trap, flag_tf | flags_iopl3, true);
}

void single_step_over_mov_ss()
{
	// MOV SS holds its own trap back; the next instruction's comes.
	expect_trap(lm::step_mov_ss, lm::step_mov_ss_trap, flag_tf, false);
	expect_trap(lm::step_mov_ss, lm::step_mov_ss_trap, flag_tf | flags_iopl3, true);
}

void int1()
{
	expect_trap(lm::plain_int1, lm::plain_int1_trap, 0, false);
	expect_trap(lm::plain_int1, lm::plain_int1_trap, flags_iopl3, true);
}

void int1_behind_mov_ss()
{
	expect_trap(lm::step_mov_ss_int1, lm::step_mov_ss_int1_trap, 0, false);
	expect_trap(lm::step_mov_ss_int1, lm::step_mov_ss_int1_trap, flags_iopl3, true);
}

void int1_behind_mov_ss_stepped()
{
	expect_trap(lm::step_mov_ss_int1, lm::step_mov_ss_int1_trap, flag_tf, false);
	expect_trap(lm::step_mov_ss_int1, lm::step_mov_ss_int1_trap, flag_tf | flags_iopl3, true);
}

// ---- SIMD

void simd_kept()
{
	LongMachine machine(lm::simd_load);
	// An FXSAVE image: FCW, MXCSR, and 16 registers of each kind with patterns.
	auto *image = &machine.at<uint8_t>(GUEST_SCRATCH);
	for (unsigned i = 32; i < 416; i++)
		image[i] = static_cast<uint8_t>(i * 7 + 1);
	// x87 registers have 10 bytes; what FXSAVE puts behind them is zero.
	for (unsigned i = 0; i < 8; i++)
		std::memset(image + 32 + 16 * i + 10, 0, 6);
	std::memset(image, 0, 32);
	machine.at<uint16_t>(GUEST_SCRATCH) = 0x27f;
	image[4] = 0xff; // all x87 registers in use
	machine.at<uint32_t>(GUEST_SCRATCH + 24) = 0x3f80;

	machine.vcpu.run_until(KVM_EXIT_HLT);
	// The VMM's own use of the registers.
	volatile double value = 3;
	for (unsigned i = 0; i < 100; i++)
		value = value * 1.5 + 1;
	machine.vcpu.run_until(KVM_EXIT_HLT);
	const auto *saved = &machine.at<uint8_t>(GUEST_SCRATCH + 512);
	equal("FCW", machine.at<uint16_t>(GUEST_SCRATCH + 512), 0x27f);
	equal("MXCSR", machine.at<uint32_t>(GUEST_SCRATCH + 512 + 24), 0x3f80u);
	that("x87 registers kept", !std::memcmp(saved + 32, image + 32, 128));
	that("XMM registers kept", !std::memcmp(saved + 160, image + 160, 256));
}

// A guest that loads YMM registers from GUEST_SCRATCH and stores them to GUEST_SCRATCH + 512.
struct AvxMachine : LongMachine {
	explicit AvxMachine(uint64_t entry) : LongMachine(entry)
	{
		constexpr uint64_t xsave_avx = bit(26) | bit(28);
		if ((identify(*this, 1).rcx & xsave_avx) != xsave_avx)
			ktap::skip("the guest has no AVX");
		for (unsigned i = 0; i < 96; i++)
			at<uint8_t>(GUEST_SCRATCH + i) = static_cast<uint8_t>(i * 5 + 3);
	}

	void check_kept() const
	{
		that("YMM registers kept", !std::memcmp(&at<uint8_t>(GUEST_SCRATCH + 512),
							&at<uint8_t>(GUEST_SCRATCH), 96));
	}
};

void avx_kept()
{
	AvxMachine machine(lm::avx_load);
	call(machine, lm::avx_load);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	machine.check_kept();
	equal("XCR0", machine.vcpu.regs().rax, 7u);
	equal("OSXSAVE, with CR4.OSXSAVE set", identify(machine, 1).rcx >> 27 & 1, 1u);
}

// What Linux saves of the guest has more than the guest's XCR0: it is not to be restored under that one, which faults.
void avx_kept_while_not_in_xcr0()
{
	AvxMachine machine(lm::avx_set_aside);
	machine.at<uint32_t>(GUEST_RESULTS) = 0;
	host::pin({host::online_cpus().front()});
	// On the same CPU: each time that it wakes the vCPU's thread loses the registers.
	std::thread other([&] {
		for (unsigned i = 0; i < 10; i++) {
			asm volatile("vpcmpeqd %%xmm0, %%xmm0, %%xmm0\n"
				     "vinsertf128 $1, %%xmm0, %%ymm0, %%ymm0\n"
				     "vmovaps %%ymm0, %%ymm7\n"
				     "vmovaps %%ymm0, %%ymm15\n"
				     :
				     :
				     : "xmm0", "xmm7", "xmm15");
			usleep(1000);
		}
		std::atomic_ref(machine.at<uint32_t>(GUEST_RESULTS)).store(1);
	});
	call(machine, lm::avx_set_aside);
	other.join();
	machine.check_kept();
}

void xsetbv_refuses()
{
	LongMachine machine(lm::identify);
	if (!(identify(machine, 1).rcx & bit(26)))
		ktap::skip("the guest has no XSAVE");
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cr4 |= bit(18);
	machine.vcpu.set_sregs(sregs);
	// x87 off, AVX without SSE, an unknown component, a register other than XCR0.
	const struct {
		uint64_t rax, rcx;
	} bad[] = {{6, 0}, {5, 0}, {bit(30), 0}, {7, 1}};
	for (unsigned i = 0; i < std::size(bad); i++) {
		kvm_regs regs = machine.vcpu.regs();
		regs.rax = bad[i].rax;
		regs.rcx = bad[i].rcx;
		regs.rdx = 0;
		machine.vcpu.set_regs(regs);
		call(machine, lm::set_xcr);
		equal("exceptions", machine.fault().count, i + 1);
		equal("vector", machine.fault().vector, 13u);
	}
}

constexpr ktap::Case cases[] = {
	{"control_registers", control_registers},
	{"cr8_lowered", cr8_lowered},
	{"control_registers_refuse", control_registers_refuse},
	{"msr_round_trips", msr_round_trips},
	{"msr_tsc_aux", msr_tsc_aux_round_trip},
	{"msr_apic_base", msr_apic_base_round_trip},
	{"msr_refusals", msr_refusals},
	{"system_calls", system_calls},
	{"fast_system_calls", fast_system_calls},
	{"swapgs", swapgs},
	{"cpuid", cpuid},
	{"time_stamps", time_stamps},
	{"debug_registers", debug_registers},
	{"breakpoint_on_instruction", breakpoint_on_instruction},
	{"breakpoint_on_write", breakpoint_on_write},
	{"breakpoint_over_exit", breakpoint_over_exit},
	{"control_registers_in_ring_3", control_registers_in_ring_3},
	{"xsetbv_in_ring_3", xsetbv_in_ring_3},
	{"debug_registers_in_ring_3", debug_registers_in_ring_3},
	{"single_step_over_sti", single_step_over_sti},
	{"single_step_over_mov_ss", single_step_over_mov_ss},
	{"int1", int1},
	{"int1_behind_mov_ss", int1_behind_mov_ss},
	{"int1_behind_mov_ss_stepped", int1_behind_mov_ss_stepped},
	{"simd_kept", simd_kept},
	{"avx_kept", avx_kept},
	{"avx_kept_while_not_in_xcr0", avx_kept_while_not_in_xcr0},
	{"xsetbv_refuses", xsetbv_refuses},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
