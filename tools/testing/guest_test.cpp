// SPDX-License-Identifier: GPL-2.0
//
// What a guest can do without its VMM noticing, and what its VMM gets to see: ports, HLT, shutdown,
// modes, exceptions. Registers, MMIO and memory have programs of their own.

#include "expect.hpp"
#include "guests.hpp"
#include "ktap.hpp"
#include "modes.hpp"

#include <thread>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
namespace real = guest::real;
namespace modes = guest::modes;
namespace lm = guest::longmode;

std::byte *io_data(Vcpu &vcpu)
{
	return reinterpret_cast<std::byte *>(&vcpu.state()) + vcpu.state().io.data_offset;
}

// ---- Ports and HLT, in real mode

void port_out()
{
	RealMachine machine(real::out_sizes);
	Vcpu &vcpu = machine.vcpu;
	for (const uint16_t port : {0x1234, 0x80}) {
		equal("byte", vcpu.run_until_out(port, 1), 0x11);
		equal("word", vcpu.run_until_out(port, 2), 0x2211);
		equal("double word", vcpu.run_until_out(port, 4), 0x44332211);
	}
	that("io.data lies behind kvm_run's first page, within the mapping",
	     vcpu.state().io.data_offset >= sizeof(kvm_run) &&
		     vcpu.state().io.data_offset < machine.device.run_size());
	vcpu.run_until(KVM_EXIT_HLT);
}

void port_in()
{
	RealMachine machine(real::in_sizes);
	Vcpu &vcpu = machine.vcpu;
	struct {
		uint16_t port;
		unsigned size;
		uint32_t eax;
	} const reads[] = {
		{0x1234, 1, 0xaaaaaa78},
		{0x1234, 2, 0xaaaa5678},
		{0x1234, 4, 0x12345678},
		{0x60, 1, 0xaaaaaa78},
	};
	constexpr uint32_t data = 0x12345678;
	for (const auto &read : reads) {
		vcpu.run_until(KVM_EXIT_IO);
		const auto &io = vcpu.state().io;
		equal("io.direction", io.direction, KVM_EXIT_IO_IN);
		equal("io.port", io.port, read.port);
		equal("io.size", io.size, read.size);
		equal("io.count", io.count, 1u);
		// All four bytes, whatever the size: the rest must not be taken.
		std::memcpy(io_data(vcpu), &data, sizeof(data));
	}
	vcpu.run_until(KVM_EXIT_HLT);
	for (unsigned i = 0; i < std::size(reads); i++)
		equal("EAX", machine.at<uint32_t>(GUEST_RESULTS + 8 * i), reads[i].eax);
}

// A VMM may rely on the elements' order and size, not on how many come in one exit.
std::vector<std::byte> collect(Vcpu &vcpu, unsigned size, size_t bytes)
{
	std::vector<std::byte> collected;
	while (collected.size() < bytes) {
		vcpu.run_until(KVM_EXIT_IO);
		const auto &io = vcpu.state().io;
		equal("io.direction", io.direction, KVM_EXIT_IO_OUT);
		equal("io.port", io.port, 0x70);
		equal("io.size", io.size, size);
		that("io.count is at least 1 and within what is left",
		     io.count >= 1 && collected.size() + io.count * size <= bytes);
		collected.insert(collected.end(), io_data(vcpu), io_data(vcpu) + io.count * size);
	}
	return collected;
}

void string_out()
{
	RealMachine machine(real::outs);
	for (unsigned i = 0; i < 16; i++)
		machine.at<uint8_t>(GUEST_RESULTS + i) = static_cast<uint8_t>(0x30 + 3 * i);
	for (const unsigned size : {1u, 2u, 4u}) {
		const auto collected = collect(machine.vcpu, size, 16);
		that("OUTS gives memory's content in order",
		     !std::memcmp(collected.data(), &machine.at<uint8_t>(GUEST_RESULTS), 16));
	}
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("SI", machine.vcpu.regs().rsi & 0xffff, GUEST_RESULTS + 16);
	equal("CX", machine.vcpu.regs().rcx & 0xffff, 0);

	call(machine, real::outs_none);
}

void string_out_downwards()
{
	RealMachine machine(real::outs_down);
	machine.at<uint32_t>(GUEST_RESULTS) = 0x44332211;
	const auto collected = collect(machine.vcpu, 1, 4);
	constexpr uint8_t wanted[] = {0x44, 0x33, 0x22, 0x11};
	that("with DF set, OUTS goes downwards", !std::memcmp(collected.data(), wanted, 4));
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("SI", machine.vcpu.regs().rsi & 0xffff, GUEST_RESULTS - 1);
}

void string_in()
{
	RealMachine machine(real::ins);
	Vcpu &vcpu = machine.vcpu;
	uint8_t next = 1;
	for (const unsigned size : {1u, 2u, 4u}) {
		for (unsigned given = 0; given < 16;) {
			vcpu.run_until(KVM_EXIT_IO);
			const auto &io = vcpu.state().io;
			equal("io.direction", io.direction, KVM_EXIT_IO_IN);
			equal("io.port", io.port, 0x71);
			equal("io.size", io.size, size);
			that("io.count is at least 1 and within what is left",
			     io.count >= 1 && given + io.count * size <= 16);
			for (unsigned i = 0; i < io.count * size; i++)
				io_data(vcpu)[i] = std::byte{next++};
			given += io.count * size;
		}
	}
	vcpu.run_until(KVM_EXIT_IO);
	equal("the lone INSB's count", vcpu.state().io.count, 1u);
	*io_data(vcpu) = std::byte{next++};
	vcpu.run_until(KVM_EXIT_HLT);
	for (unsigned i = 0; i < 49; i++)
		equal("byte in memory", machine.at<uint8_t>(GUEST_RESULTS + i), i + 1);
	equal("byte behind", machine.at<uint8_t>(GUEST_RESULTS + 49), 0);
	equal("DI", vcpu.regs().rdi & 0xffff, GUEST_RESULTS + 49);
}

void halt()
{
	RealMachine machine(real::halt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("RIP after HLT", machine.vcpu.regs().rip, real::halt_after);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("AL", machine.vcpu.regs().rax & 0xff, 0x77);
	equal("RIP after HLT", machine.vcpu.regs().rip, real::halt_after2);
}

void triple_fault()
{
	RealMachine machine(real::triple);
	machine.vcpu.run_until(KVM_EXIT_SHUTDOWN);
	// The VMM may go on with another state, as a reset does.
	machine.vcpu.enter_real(real::halt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void real_interrupt()
{
	RealMachine machine(real::interrupt);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("BX", machine.vcpu.regs().rbx & 0xffff, 0x41);
}

void real_far_jumps()
{
	RealMachine machine(real::far);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("BX", machine.vcpu.regs().rbx, 3);
	equal("CS there", machine.at<uint16_t>(GUEST_RESULTS), 0x100);
	equal("CS back", machine.at<uint16_t>(GUEST_RESULTS + 8), 0);
	equal("CS base", machine.vcpu.sregs().cs.base, 0);
}

void real_flags()
{
	RealMachine machine(real::flags);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("arithmetic flags, IF, DF", machine.at<uint32_t>(GUEST_RESULTS), 0xad7);
	equal("AC, ID", machine.at<uint32_t>(GUEST_RESULTS + 8), 0x240002);
}

void segment_base()
{
	// A real-mode segment given by the VMM with a base that is not 16 times its selector.
	RealMachine machine(real::halt);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cs.base = 0x800;
	sregs.cs.selector = 0x80;
	machine.vcpu.set_sregs(sregs);
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = real::halt - 0x800;
	machine.vcpu.set_regs(regs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("RIP after HLT", machine.vcpu.regs().rip, real::halt_after - 0x800);
}

void reset_state()
{
	// What the manual's section on the processor's state after reset promises.
	Device device;
	Vm vm(device);
	Vcpu vcpu(vm);
	const kvm_sregs sregs = vcpu.sregs();
	const kvm_regs regs = vcpu.regs();
	equal("CS selector", sregs.cs.selector, 0xf000);
	equal("CS base", sregs.cs.base, 0xffff0000);
	equal("CS limit", sregs.cs.limit, 0xffffu);
	equal("DS base", sregs.ds.base, 0u);
	equal("RIP", regs.rip, 0xfff0u);
	equal("RFLAGS", regs.rflags, 2u);
	equal("CR0", sregs.cr0, 0x60000010u);
	equal("CR4", sregs.cr4, 0u);
	equal("EFER", sregs.efer, 0u);
	equal("GDT limit", sregs.gdt.limit, 0xffffu);
	equal("IDT limit", sregs.idt.limit, 0xffffu);
}

void reset_vector()
{
	// A page at the top of the 4 GiB, where a guest fresh from reset starts.
	Device device;
	Vm vm(device);
	Memory memory(0x1000);
	vm.set_memory(0, 0xfffff000, memory.size(), memory.data());
	memory.at<uint8_t>(0xff0) = 0xf4;
	Vcpu vcpu(vm);
	vcpu.run_until(KVM_EXIT_HLT);
	equal("RIP", vcpu.regs().rip, 0xfff1u);
}

// ---- Modes

void write_paging32(Machine &machine, bool pae)
{
	constexpr uint64_t first = GUEST_TABLES;
	constexpr uint64_t second = GUEST_TABLES + 0x1000;
	constexpr uint64_t third = GUEST_TABLES + 0x2000;
	if (pae) {
		machine.at<uint64_t>(first) = second | 1;
		machine.at<uint64_t>(first + 8 * 3) = (second + 0x3000) | 1;
		machine.at<uint64_t>(second) = third | 7;
		for (uint64_t i = 0; i < 0xa0; i++)
			machine.at<uint64_t>(third + 8 * i) = i << 12 | 7;
		machine.at<uint64_t>(third + 8 * 0x80) = GUEST_SCRATCH | 7;
		machine.at<uint64_t>(second + 0x3000) = 0x87;
	} else {
		machine.at<uint32_t>(first) = second | 7;
		for (uint32_t i = 0; i < 0xa0; i++)
			machine.at<uint32_t>(second + 4 * i) = i << 12 | 7;
		machine.at<uint32_t>(second + 4 * 0x80) = GUEST_SCRATCH | 7;
		machine.at<uint32_t>(first + 4 * 0x300) = 0x87;
	}
	machine.at<uint32_t>(GUEST_SCRATCH) = 0x11112222;
	machine.at<uint32_t>(0x80000) = 0x33334444;
}

void protected_paging(bool pae)
{
	Machine machine(modes::image());
	machine.prepare_protected();
	write_paging32(machine, pae);
	machine.vcpu.enter_protected(modes::paging);
	kvm_regs regs = machine.vcpu.regs();
	regs.rbx = pae ? 0x20 : 0x10;
	machine.vcpu.set_regs(regs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("read through the 4 KiB page", machine.result(0), 0x11112222u);
	equal("written through the large page", machine.result(1), 0x600dcafeu);
	equal("CR3", machine.result(2), uint64_t{GUEST_TABLES});
	equal("read with paging off", machine.result(3), 0x33334444u);
	const kvm_sregs sregs = machine.vcpu.sregs();
	equal("CR4", sregs.cr4, regs.rbx);
	equal("EFER", sregs.efer, 0u);
}

void paging_32bit()
{
	protected_paging(false);
}

void paging_pae()
{
	protected_paging(true);
}

void page_fault_32bit()
{
	for (const bool pae : {false, true}) {
		Machine machine(modes::image());
		machine.prepare_protected();
		machine.set_gate32(14, modes::fault32_handler);
		write_paging32(machine, pae);
		machine.vcpu.enter_protected(modes::paging_fault);
		kvm_regs regs = machine.vcpu.regs();
		regs.rbx = pae ? 0x20 : 0x10;
		machine.vcpu.set_regs(regs);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		const auto &fault = machine.at<Fault>(GUEST_FAULT);
		equal("vector", fault.vector, 14u);
		equal("error code", fault.error, 0u);
		equal("CR2", fault.cr2, 0xd0000000u);
		equal("EIP", fault.rip, modes::fault32);
	}
}

// PAE paging the VMM starts: the PDPTEs must come from memory, not from what the vCPU had.
void paging_pae_from_sregs()
{
	Machine machine(modes::image());
	machine.prepare_protected();
	write_paging32(machine, true);
	machine.set_gate32(14, modes::fault32_handler);
	machine.vcpu.enter_protected(modes::fault32);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cr0 |= bit(31);
	sregs.cr4 |= bit(5);
	sregs.cr3 = GUEST_TABLES;
	machine.vcpu.set_sregs(sregs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("vector", machine.at<Fault>(GUEST_FAULT).vector, 14u);
}

void real_to_long_and_back()
{
	Machine machine(modes::image());
	machine.prepare_long();
	machine.vcpu.enter_real(modes::from_real);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("64-bit result", machine.result(0), 0x23456789abcdef01u);
	equal("EFER in the guest", machine.result(1), 0x500u);
	equal("CR0.PG and PE in the guest", machine.result(2) & 0x80000001, 0x80000001u);
	kvm_sregs sregs = machine.vcpu.sregs();
	equal("EFER", sregs.efer, 0x500u);
	equal("CS.L", sregs.cs.l, 1u);
	equal("CR3", sregs.cr3, uint64_t{GUEST_TABLES});

	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("real mode reached", machine.result(3), 0x4ea1u);
	sregs = machine.vcpu.sregs();
	equal("EFER", sregs.efer, 0u);
	equal("CR0.PG and PE", sregs.cr0 & 0x80000001, 0u);
}

void long_from_sregs()
{
	LongMachine machine(lm::control_more);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	const kvm_sregs sregs = machine.vcpu.sregs();
	equal("EFER", sregs.efer, 0x501u);
	equal("CS.L", sregs.cs.l, 1u);
}

// ---- Exceptions

constexpr uint64_t unmapped = 0x1'0000'0000;
void exceptions()
{
	const Raise raises[] = {
		{"UD2", lm::ud, lm::ud_at, 6, 0, {}},
		{"#GP by a non-canonical address",
		 lm::load,
		 lm::load_at,
		 13,
		 0,
		 {.rbx = non_canonical}},
		{"#GP with a selector", lm::load_fs, lm::load_fs_at, 13, 0x1000, {.rax = 0x1000}},
		{"#NP", lm::load_fs, lm::load_fs_at, 11, SEL_NOTPRESENT, {.rax = SEL_NOTPRESENT}},
		{"#DE", lm::divide, lm::divide_at, 0, 0, {}},
		{"#PF by a read", lm::load, lm::load_at, 14, 0, {.rbx = unmapped}},
		{"#PF by a write", lm::store, lm::store_at, 14, 2, {.rbx = unmapped}},
		{"INT3", lm::breakpoint, lm::breakpoint_done, 3, 0, {}},
		{"INT 0x21", lm::interrupt, lm::interrupt_done, 33, 0, {}},
	};
	for (const Raise &raise : raises)
		expect_fault(raise);
}

void exception_device_not_available()
{
	LongMachine machine(lm::sse);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cr0 |= 8;
	machine.vcpu.set_sregs(sregs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("vector", machine.fault().vector, 7u);
	equal("RIP", machine.fault().rip, lm::sse_at);
}

void single_step()
{
	LongMachine machine(lm::single_step);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	const auto &fault = machine.fault();
	equal("vector", fault.vector, 1u);
	equal("exceptions", fault.count, 1u);
	equal("RIP", fault.rip, lm::single_step_trap);
	equal("DR6.BS", fault.dr6 & bit(14), bit(14));
}

void exceptions_in_ring_3()
{
	LongMachine machine(lm::user_halt);
	Msrs msrs(machine);
	msrs.write(msr_star, uint64_t{SEL_CODE64 | (SEL_UCODE32 | 3) << 16} << 32);
	msrs.write(msr_lstar, lm::user_syscall);
	call(machine, lm::user_halt);
	equal("HLT's vector", machine.result(0), 13u);
	equal("HLT's error code", machine.result(1), 0u);
	equal("HLT's RIP", machine.result(2), lm::user_halt_at);
	equal("HLT's CS", machine.result(3), uint64_t{SEL_UCODE64 | 3});
	equal("OUT's vector", machine.result(4), 13u);
	equal("#PF's error code, from user mode", machine.result(5), 4u);
}

// ---- The rest

void long_far_jumps()
{
	LongMachine machine(lm::far);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("RBX", machine.vcpu.regs().rbx, 3u);
	equal("CS in compatibility mode", machine.result(0) & 0xffff, SEL_CODE32);
	equal("CS in 64-bit mode", machine.result(1), SEL_CODE64);
}

void long_flags()
{
	LongMachine machine(lm::flags);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("flags", machine.result(0), 0x240cd7u);
	equal("flags after STI", machine.result(1), 0x202u);
	equal("flags after CLI", machine.result(2), 2u);
}

void invalidations()
{
	LongMachine machine(lm::invalidate);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("exceptions", machine.fault().count, 0u);
}

void two_vcpus()
{
	LongMachine machine(lm::ud);
	Vcpu second(machine.vm, 1);
	second.enter_long(lm::poke);
	kvm_regs regs = second.regs();
	regs.rbx = GUEST_SCRATCH;
	regs.rax = 0x1122334455667788;
	second.set_regs(regs);
	second.run_until(KVM_EXIT_HLT);
	regs = machine.vcpu.regs();
	regs.rbx = GUEST_SCRATCH;
	machine.vcpu.set_regs(regs);
	call(machine, lm::peek);
	equal("what the other vCPU wrote", machine.vcpu.regs().rax, 0x1122334455667788u);
}

void two_vcpus_at_once()
{
	constexpr uint64_t times = 200'000;
	LongMachine machine(lm::count_locked);
	Vcpu second(machine.vm, 1);
	second.enter_long(lm::count_locked);
	for (const Vcpu *vcpu : {&machine.vcpu, &second}) {
		kvm_regs regs = vcpu->regs();
		regs.rbx = GUEST_SCRATCH;
		regs.rcx = times;
		vcpu->set_regs(regs);
	}
	std::thread other([&] { second.run_until(KVM_EXIT_HLT); });
	machine.vcpu.run_until(KVM_EXIT_HLT);
	other.join();
	equal("both counted", machine.at<uint64_t>(GUEST_SCRATCH), 2 * times);
}

constexpr ktap::Case cases[] = {
	{"port_out", port_out},
	{"port_in", port_in},
	{"string_out", string_out},
	{"string_out_downwards", string_out_downwards},
	{"string_in", string_in},
	{"halt", halt},
	{"triple_fault", triple_fault},
	{"real_interrupt", real_interrupt},
	{"real_far_jumps", real_far_jumps},
	{"real_flags", real_flags},
	{"segment_base", segment_base},
	{"reset_state", reset_state},
	{"reset_vector", reset_vector},
	{"paging_32bit", paging_32bit},
	{"paging_pae", paging_pae},
	{"paging_pae_from_sregs", paging_pae_from_sregs},
	{"page_fault_32bit", page_fault_32bit},
	{"real_to_long_and_back", real_to_long_and_back},
	{"long_from_sregs", long_from_sregs},
	{"exceptions", exceptions},
	{"exception_device_not_available", exception_device_not_available},
	{"single_step", single_step},
	{"exceptions_in_ring_3", exceptions_in_ring_3},
	{"long_far_jumps", long_far_jumps},
	{"long_flags", long_flags},
	{"invalidations", invalidations},
	{"two_vcpus", two_vcpus},
	{"two_vcpus_at_once", two_vcpus_at_once},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
