// SPDX-License-Identifier: GPL-2.0
//
// KVM_EXIT_MMIO for the forms of MOV that drivers use: what the VMM sees, and where what it gives
// for a read ends up.

#include "expect.hpp"
#include "guests.hpp"
#include "ktap.hpp"
#include "mmio.hpp"

#include <iterator>

namespace
{

using expect::equal;
using expect::that;
namespace mm = guest::mmio;

constexpr uint64_t rax = 0x1122334455667788;
constexpr uint64_t rcx = 0x99aabbccddeeff00;
constexpr uint64_t rdx = 0x0102030405060708;
constexpr uint64_t r9 = 0xf1f2f3f4f5f6f7f8;
constexpr uint64_t rsi = 0x5152535455565758;
constexpr uint64_t rdi = 2;
// What the device says; negative as a byte, a word and a double word.
constexpr uint64_t answer = 0x8182838485868788;

struct Store {
	const char *name;
	uint64_t entry;
	unsigned size;
	uint64_t data;
	uint64_t offset = 0;
};

struct Load {
	const char *name;
	uint64_t entry;
	unsigned size;
	__u64 kvm_regs::*target;
	uint64_t value;
	uint64_t offset = 0;
};

void set_registers(Machine &machine, uint64_t entry, uint64_t device)
{
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = entry;
	regs.rax = rax;
	regs.rbx = device;
	regs.rcx = rcx;
	regs.rdx = rdx;
	regs.rsi = rsi;
	regs.rdi = rdi;
	regs.r9 = r9;
	regs.r12 = regs.r13 = device;
	machine.vcpu.set_regs(regs);
}

void expect_mmio(Vcpu &vcpu, const char *name, uint64_t address, unsigned size, bool is_write)
{
	vcpu.run_until(KVM_EXIT_MMIO);
	const auto &mmio = vcpu.state().mmio;
	if (mmio.phys_addr != address || mmio.len != size || mmio.is_write != is_write)
		expect::fail("%s: MMIO %s of %u bytes at %#llx, expected %s of %u at %#llx", name,
			     mmio.is_write ? "write" : "read", mmio.len,
			     static_cast<unsigned long long>(mmio.phys_addr),
			     is_write ? "write" : "read", size,
			     static_cast<unsigned long long>(address));
}

uint64_t written(Vcpu &vcpu)
{
	const auto &mmio = vcpu.state().mmio;
	uint64_t value = 0;
	std::memcpy(&value, mmio.data, mmio.len);
	return value;
}

void give(Vcpu &vcpu, uint64_t value)
{
	std::memcpy(vcpu.state().mmio.data, &value, sizeof(value));
}

// base: what BX holds; device: the physical address it stands for.
void check_store(Machine &machine, const Store &store, uint64_t base, uint64_t device)
{
	set_registers(machine, store.entry, base);
	const kvm_regs before = machine.vcpu.regs();
	expect_mmio(machine.vcpu, store.name, device + store.offset, store.size, true);
	equal(store.name, written(machine.vcpu), store.data);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	kvm_regs after = machine.vcpu.regs();
	after.rip = before.rip;
	that("a store changes no register", !std::memcmp(&before, &after, sizeof(before)));
}

void check_load(Machine &machine, const Load &load, uint64_t base, uint64_t device)
{
	set_registers(machine, load.entry, base);
	kvm_regs wanted = machine.vcpu.regs();
	wanted.*load.target = load.value;
	expect_mmio(machine.vcpu, load.name, device + load.offset, load.size, false);
	give(machine.vcpu, answer);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	kvm_regs after = machine.vcpu.regs();
	equal(load.name, after.*load.target, load.value);
	after.rip = wanted.rip;
	that("a load changes its target only", !std::memcmp(&wanted, &after, sizeof(wanted)));
}

constexpr Store long_stores[] = {
	{"mov %al, (%rbx)", mm::store_al, 1, 0x88},
	{"mov %ah, (%rbx)", mm::store_ah, 1, 0x77},
	{"mov %ax, (%rbx)", mm::store_ax, 2, 0x7788},
	{"mov %eax, (%rbx)", mm::store_eax, 4, 0x55667788},
	{"mov %rax, (%rbx)", mm::store_rax, 8, rax},
	{"mov %sil, (%rbx)", mm::store_sil, 1, 0x58},
	{"mov %r9b, (%rbx)", mm::store_r9b, 1, 0xf8},
	{"mov %r9, (%rbx)", mm::store_r9, 8, r9},
	{"movb $0x5a, (%rbx)", mm::store_imm8, 1, 0x5a},
	{"movw $0x1234, (%rbx)", mm::store_imm16, 2, 0x1234},
	{"movl $0x12345678, (%rbx)", mm::store_imm32, 4, 0x12345678},
	{"movq $-2, (%rbx)", mm::store_imm64, 8, ~1ul},
	{"mov %eax, 0x10(%rbx)", mm::store_disp8, 4, 0x55667788, 0x10},
	{"mov %eax, 0x1000(%rbx)", mm::store_disp32, 4, 0x55667788, 0x1000},
	{"mov %eax, 4(%rbx, %rdi, 8)", mm::store_sib, 4, 0x55667788, 20},
	{"mov %eax, (%r12)", mm::store_r12, 4, 0x55667788},
	{"mov %eax, (%r13)", mm::store_r13, 4, 0x55667788},
	{"mov %eax, %fs:0x20", mm::store_fs, 4, 0x55667788, 0x820},
	{"mov %eax, device(%rip)", mm::store_rip, 4, 0x55667788, mm::store_rip_next},
	{"movl $0x12345678, device + 8(%rip)", mm::store_imm_rip, 4, 0x12345678,
	 mm::store_imm_rip_next + 8},
	{"movabs %al", mm::store_moffs8, 1, 0x88},
	{"movabs %ax", mm::store_moffs16, 2, 0x7788},
	{"movabs %eax", mm::store_moffs32, 4, 0x55667788},
	{"movabs %rax", mm::store_moffs64, 8, rax},
	{"mov %eax, (%ebx)", mm::store_addr32, 4, 0x55667788},
};

constexpr Load long_loads[] = {
	{"mov (%rbx), %al", mm::load_al, 1, &kvm_regs::rax, 0x1122334455667788},
	{"mov (%rbx), %ah", mm::load_ah, 1, &kvm_regs::rax, 0x1122334455668888},
	{"mov (%rbx), %r9b", mm::load_r9b, 1, &kvm_regs::r9, 0xf1f2f3f4f5f6f788},
	{"mov (%rbx), %sil", mm::load_sil, 1, &kvm_regs::rsi, 0x5152535455565788},
	{"mov (%rbx), %ax", mm::load_ax, 2, &kvm_regs::rax, 0x1122334455668788},
	{"mov (%rbx), %eax", mm::load_eax, 4, &kvm_regs::rax, 0x85868788},
	{"mov (%rbx), %rax", mm::load_rax, 8, &kvm_regs::rax, answer},
	{"mov (%rbx), %r9d", mm::load_r9d, 4, &kvm_regs::r9, 0x85868788},
	{"mov %fs:0x20, %eax", mm::load_fs, 4, &kvm_regs::rax, 0x85868788, 0x820},
	{"mov device(%rip), %rax", mm::load_rip, 8, &kvm_regs::rax, answer, mm::load_rip_next},
	{"movabs, %al", mm::load_moffs8, 1, &kvm_regs::rax, 0x1122334455667788},
	{"movabs, %ax", mm::load_moffs16, 2, &kvm_regs::rax, 0x1122334455668788},
	{"movabs, %eax", mm::load_moffs32, 4, &kvm_regs::rax, 0x85868788},
	{"movabs, %rax", mm::load_moffs64, 8, &kvm_regs::rax, answer},
	{"mov (%rbx), %rbx", mm::load_own_base, 8, &kvm_regs::rbx, answer},
};

constexpr Load long_extending_loads[] = {
	{"movzbw", mm::movzbw, 1, &kvm_regs::rax, 0x1122334455660088},
	{"movzbl", mm::movzbl, 1, &kvm_regs::rax, 0x88},
	{"movzbq", mm::movzbq, 1, &kvm_regs::rax, 0x88},
	{"movzwl", mm::movzwl, 2, &kvm_regs::rax, 0x8788},
	{"movzwq", mm::movzwq, 2, &kvm_regs::rax, 0x8788},
	{"movsbw", mm::movsbw, 1, &kvm_regs::rax, 0x112233445566ff88},
	{"movsbl", mm::movsbl, 1, &kvm_regs::rax, 0xffffff88},
	{"movsbq", mm::movsbq, 1, &kvm_regs::rax, 0xffffffffffffff88},
	{"movswl", mm::movswl, 2, &kvm_regs::rax, 0xffff8788},
	{"movswq", mm::movswq, 2, &kvm_regs::rax, 0xffffffffffff8788},
	{"movslq", mm::movslq, 4, &kvm_regs::rax, 0xffffffff85868788},
};

struct MmioMachine : Machine {
	MmioMachine() : Machine(mm::image())
	{
		prepare_long();
		vcpu.enter_long(0);
		kvm_sregs sregs = vcpu.sregs();
		sregs.fs.base = GUEST_MMIO + 0x800;
		vcpu.set_sregs(sregs);
	}
};

void long_mode_stores()
{
	MmioMachine machine;
	for (const Store &store : long_stores)
		check_store(machine, store, GUEST_MMIO, GUEST_MMIO);
}

void long_mode_loads()
{
	MmioMachine machine;
	for (const Load &load : long_loads)
		check_load(machine, load, GUEST_MMIO, GUEST_MMIO);
}

void extending_loads()
{
	MmioMachine machine;
	for (const Load &load : long_extending_loads)
		check_load(machine, load, GUEST_MMIO, GUEST_MMIO);
}

// The guest's page tables say where a linear address really is: phys_addr is that.
void through_page_tables()
{
	MmioMachine machine;
	constexpr uint64_t linear = 0x40000000;
	constexpr uint64_t directory = GUEST_TABLES + 3 * 0x1000;
	machine.at<uint64_t>(directory) = GUEST_MMIO | 0xe7;
	check_store(machine, long_stores[0], linear + 0x123, GUEST_MMIO + 0x123);
	check_load(machine, long_loads[0], linear + 0x124, GUEST_MMIO + 0x124);
}

void protected_mode()
{
	Machine machine(mm::image());
	machine.prepare_protected();
	machine.vcpu.enter_protected(0);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.es.base = GUEST_MMIO + 0x800;
	machine.vcpu.set_sregs(sregs);
	constexpr Store stores[] = {
		{"mov %al, (%ebx)", mm::p_store_al, 1, 0x88},
		{"mov %ah, (%ebx)", mm::p_store_ah, 1, 0x77},
		{"mov %ax, (%ebx)", mm::p_store_ax, 2, 0x7788},
		{"mov %eax, (%ebx)", mm::p_store_eax, 4, 0x55667788},
		{"movl $, 8(%ebx)", mm::p_store_imm32, 4, 0x12345678, 8},
		{"mov %eax, moffs", mm::p_store_moffs, 4, 0x55667788},
		{"mov %eax, %es:0x20", mm::p_store_es, 4, 0x55667788, 0x820},
	};
	for (const Store &store : stores)
		check_store(machine, store, GUEST_MMIO, GUEST_MMIO);
	// In 32-bit code the registers' upper halves are undefined after a load: compare the lower.
	constexpr Load loads[] = {
		{"mov (%ebx), %al", mm::p_load_al, 1, &kvm_regs::rax, 0x55667788},
		{"mov (%ebx), %ch", mm::p_load_ch, 1, &kvm_regs::rcx, 0xddee8800},
		{"mov (%ebx), %ax", mm::p_load_ax, 2, &kvm_regs::rax, 0x55668788},
		{"mov (%ebx), %eax", mm::p_load_eax, 4, &kvm_regs::rax, 0x85868788},
		{"mov moffs, %eax", mm::p_load_moffs, 4, &kvm_regs::rax, 0x85868788},
		{"movzwl", mm::p_movzwl, 2, &kvm_regs::rax, 0x8788},
		{"movsbl", mm::p_movsbl, 1, &kvm_regs::rax, 0xffffff88},
		{"mov absolute, %edx", mm::p_absolute, 4, &kvm_regs::rdx, 0x85868788, 4},
	};
	for (const Load &load : loads) {
		set_registers(machine, load.entry, GUEST_MMIO);
		expect_mmio(machine.vcpu, load.name, GUEST_MMIO + load.offset, load.size, false);
		give(machine.vcpu, answer);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		equal(load.name, machine.vcpu.regs().*load.target & 0xffffffff, load.value);
	}
}

// The same linear address as a device, in two kinds of 32-bit paging.
void protected_mode_paging()
{
	constexpr uint64_t linear = 0x40000000;
	for (const bool pae : {false, true}) {
		Machine machine(mm::image());
		machine.prepare_protected();
		if (pae) {
			for (uint64_t i = 0; i < 4; i++)
				machine.at<uint64_t>(GUEST_TABLES + 8 * i) =
					(GUEST_TABLES + (i + 1) * 0x1000) | 1;
			machine.at<uint64_t>(GUEST_TABLES + 0x1000) = 0xe7;
			machine.at<uint64_t>(GUEST_TABLES + 0x2000) = GUEST_MMIO | 0xe7;
		} else {
			machine.at<uint32_t>(GUEST_TABLES) = 0xe7;
			machine.at<uint32_t>(GUEST_TABLES + (linear >> 22) * 4) = GUEST_MMIO | 0xe7;
		}
		machine.vcpu.enter_protected(0);
		kvm_sregs sregs = machine.vcpu.sregs();
		sregs.cr4 |= pae ? 0x20 : 0x10;
		sregs.cr3 = GUEST_TABLES;
		sregs.cr0 |= 0x80000000;
		machine.vcpu.set_sregs(sregs);
		const Store store{"mov %eax, (%ebx)", mm::p_store_eax, 4, 0x55667788};
		check_store(machine, store, linear + 0x321, GUEST_MMIO + 0x321);
		set_registers(machine, mm::p_load_eax, linear + 0x323);
		expect_mmio(machine.vcpu, "mov (%ebx), %eax", GUEST_MMIO + 0x323, 4, false);
		give(machine.vcpu, answer);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		equal("EAX", machine.vcpu.regs().rax & 0xffffffff, 0x85868788u);
	}
}

// A driver in ring 3.
void user_mode()
{
	MmioMachine machine;
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cs.selector = SEL_UCODE64 | 3;
	sregs.ss.selector = SEL_UDATA | 3;
	sregs.cs.dpl = sregs.ss.dpl = 3;
	machine.vcpu.set_sregs(sregs);
	set_registers(machine, mm::driver, GUEST_MMIO);
	expect_mmio(machine.vcpu, "status", GUEST_MMIO + 4, 4, false);
	give(machine.vcpu, 1);
	expect_mmio(machine.vcpu, "data", GUEST_MMIO, 4, true);
	equal("data", written(machine.vcpu), rcx & 0xffffffff);
}

// An access that begins in a device and ends where the guest has no page is the guest's page fault,
// and none of the device's business.
void crossing_into_no_page()
{
	LongMachine machine(guest::longmode::store);
	constexpr uint64_t linear = 0x40000000;
	constexpr uint64_t directory = GUEST_TABLES + 3 * 0x1000;
	machine.at<uint64_t>(directory) = GUEST_MMIO | 0xe7;
	machine.at<uint64_t>(directory + 8) = 0;
	call(machine, guest::longmode::store, rax, linear + 0x1ffffc);
	equal("vector", machine.fault().vector, 14u);
	equal("error code", machine.fault().error, 2u);
	equal("CR2", machine.fault().cr2, linear + 0x200000);
	equal("RIP", machine.fault().rip, guest::longmode::store_at);
}

void real_mode()
{
	Machine machine(mm::image());
	machine.vcpu.enter_real(0);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.es.selector = GUEST_MMIO16 >> 4;
	sregs.es.base = GUEST_MMIO16;
	machine.vcpu.set_sregs(sregs);
	constexpr uint64_t bx = 0x100;
	constexpr Store stores[] = {
		{"mov %al, %es:(%bx)", mm::r_store_al, 1, 0x88, bx},
		{"mov %ax, %es:(%bx)", mm::r_store_ax, 2, 0x7788, bx},
		{"mov %eax, %es:(%bx)", mm::r_store_eax, 4, 0x55667788, bx},
		{"movw $, %es:2(%bx, %di)", mm::r_store_imm16, 2, 0x1234, bx + 4},
		{"mov %ax, %es:0x30", mm::r_store_moffs, 2, 0x7788, 0x30},
		{"mov %eax, %es:4(%ebx)", mm::r_store_addr32, 4, 0x55667788, bx + 4},
	};
	for (const Store &store : stores)
		check_store(machine, store, bx, GUEST_MMIO16);
	constexpr Load loads[] = {
		{"mov %es:(%bx), %al", mm::r_load_al, 1, &kvm_regs::rax, 0x55667788, bx},
		{"mov %es:(%bx), %dh", mm::r_load_dh, 1, &kvm_regs::rdx, 0x05068808, bx},
		{"mov %es:(%bx), %ax", mm::r_load_ax, 2, &kvm_regs::rax, 0x55668788, bx},
		{"mov %es:(%bx), %eax", mm::r_load_eax, 4, &kvm_regs::rax, 0x85868788, bx},
		{"mov %es:0x30, %al", mm::r_load_moffs, 1, &kvm_regs::rax, 0x55667788, 0x30},
		{"movzbw", mm::r_movzbw, 1, &kvm_regs::rax, 0x55660088, bx},
	};
	for (const Load &load : loads) {
		set_registers(machine, load.entry, bx);
		expect_mmio(machine.vcpu, load.name, GUEST_MMIO16 + load.offset, load.size, false);
		give(machine.vcpu, answer);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		equal(load.name, machine.vcpu.regs().*load.target & 0xffffffff, load.value);
	}
}

// An access that begins in memory and ends beyond it: memory's part is done, the rest is MMIO.
void crossing_from_memory()
{
	MmioMachine machine;
	constexpr uint64_t edge = GUEST_MEMORY;
	set_registers(machine, mm::store_rax, edge - 4);
	expect_mmio(machine.vcpu, "store", edge, 4, true);
	equal("the upper half to the device", written(machine.vcpu), rax >> 32);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("the lower half to memory", machine.at<uint32_t>(edge - 4), rax & 0xffffffff);

	set_registers(machine, mm::load_rax, edge - 3);
	machine.at<uint32_t>(edge - 4) = 0xa1a2a3a4;
	expect_mmio(machine.vcpu, "load", edge, 5, false);
	give(machine.vcpu, answer);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("both parts", machine.vcpu.regs().rax, answer << 24 | 0xa1a2a3);
}

// Between two pages of a device: an exit for each page.
void crossing_between_pages()
{
	MmioMachine machine;
	set_registers(machine, mm::store_rax, GUEST_MMIO + 0xffe);
	expect_mmio(machine.vcpu, "store", GUEST_MMIO + 0xffe, 2, true);
	equal("first part", written(machine.vcpu), rax & 0xffff);
	expect_mmio(machine.vcpu, "store", GUEST_MMIO + 0x1000, 6, true);
	equal("second part", written(machine.vcpu), rax >> 16);
	machine.vcpu.run_until(KVM_EXIT_HLT);

	set_registers(machine, mm::load_rax, GUEST_MMIO + 0xffe);
	expect_mmio(machine.vcpu, "load", GUEST_MMIO + 0xffe, 2, false);
	give(machine.vcpu, 0x1111);
	expect_mmio(machine.vcpu, "load", GUEST_MMIO + 0x1000, 6, false);
	give(machine.vcpu, 0x222222222222);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("both parts", machine.vcpu.regs().rax, 0x2222222222221111u);
}

// An access within a page needs no alignment.
void unaligned()
{
	MmioMachine machine;
	check_store(machine, long_stores[4], GUEST_MMIO + 3, GUEST_MMIO + 3);
	check_load(machine, long_loads[6], GUEST_MMIO + 5, GUEST_MMIO + 5);
}

// The instruction itself may lie across two pages.
void instruction_across_pages()
{
	MmioMachine machine;
	constexpr uint64_t edge = GUEST_SCRATCH + 0x1000;
	const uint8_t code[] = {0x48, 0x89, 0x03, 0xf4}; // mov %rax, (%rbx); hlt
	for (unsigned before = 1; before <= 3; before++) {
		std::memcpy(&machine.at<uint8_t>(edge - before), code, sizeof(code));
		const Store store{"mov %rax, (%rbx)", edge - before, 8, rax};
		check_store(machine, store, GUEST_MMIO, GUEST_MMIO);
		equal("RIP", machine.vcpu.regs().rip, edge - before + 4);
	}
}

void driver()
{
	MmioMachine machine;
	set_registers(machine, mm::driver, GUEST_MMIO);
	kvm_regs regs = machine.vcpu.regs();
	regs.rcx = 50;
	machine.vcpu.set_regs(regs);
	for (unsigned left = 50; left > 0; left--) {
		// Not ready at first.
		for (const uint32_t status : {0x100u, 0x101u}) {
			expect_mmio(machine.vcpu, "status", GUEST_MMIO + 4, 4, false);
			give(machine.vcpu, status);
		}
		expect_mmio(machine.vcpu, "data", GUEST_MMIO, 4, true);
		equal("data", written(machine.vcpu), left);
	}
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

// Memory put where the guest has just met none, and taken away again.
void memory_over_mmio()
{
	MmioMachine machine;
	Memory page(0x1000);
	check_load(machine, long_loads[6], GUEST_MMIO, GUEST_MMIO);

	machine.vm.set_memory(1, GUEST_MMIO, page.size(), page.data());
	page.at<uint64_t>(0) = 0x600d;
	set_registers(machine, mm::load_rax, GUEST_MMIO);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("RAX from memory", machine.vcpu.regs().rax, 0x600du);

	machine.vm.set_memory(1, GUEST_MMIO, 0, page.data());
	check_load(machine, long_loads[6], GUEST_MMIO, GUEST_MMIO);
	check_store(machine, long_stores[4], GUEST_MMIO, GUEST_MMIO);
	equal("memory that was taken away", page.at<uint64_t>(0), 0x600du);
}

// The page that an instruction uses beside the device: what the host does for the guest leaves the same
// traces in its tables as the CPU would.
void accessed_and_dirty()
{
	constexpr uint64_t present = 1 | 2 | 4, accessed = 0x20, dirty = 0x40;
	constexpr uint64_t linear =
		0x40000000; // one to one in tables of its own, but for this page
	constexpr uint64_t directory = GUEST_TABLES + 0x3000, table = GUEST_TABLES + 0x7000;
	Machine machine(mm::image());
	machine.prepare_long();
	machine.vcpu.enter_long(mm::copy_byte);
	auto &root = machine.at<uint64_t>(GUEST_TABLES),
	     &middle = machine.at<uint64_t>(GUEST_TABLES + 0x1008),
	     &upper = machine.at<uint64_t>(directory), &leaf = machine.at<uint64_t>(table);
	that("the directory is where it is thought to be", (middle & ~0xffful) == directory);

	const auto run = [&](const char *name, uint64_t entry, uint64_t rsi, uint32_t exit,
			     uint64_t flags) {
		middle = directory | present;
		upper = table | present;
		leaf = GUEST_SCRATCH | present;
		kvm_regs regs = machine.vcpu.regs();
		regs.rip = entry;
		regs.rsi = rsi;
		regs.rdi = linear;
		regs.rdx = 0x10;
		machine.vcpu.set_regs(regs);
		machine.vcpu.run_until(exit);
		if (exit == KVM_EXIT_MMIO)
			give(machine.vcpu, 0x5a);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		equal(name, leaf, GUEST_SCRATCH | present | flags);
		equal(name, upper, table | present | accessed);
		equal(name, middle, directory | present | accessed);
		that(name, root & accessed);
	};
	run("MOVS from a device", mm::copy_byte, GUEST_MMIO, KVM_EXIT_MMIO, accessed | dirty);
	equal("data", machine.at<uint8_t>(GUEST_SCRATCH), 0x5a);
	run("INS", mm::input_byte, 0, KVM_EXIT_IO, accessed | dirty);
	run("OUTS", mm::output_byte, linear, KVM_EXIT_IO, accessed);
}

constexpr ktap::Case cases[] = {
	{"long_mode_stores", long_mode_stores},
	{"long_mode_loads", long_mode_loads},
	{"extending_loads", extending_loads},
	{"through_page_tables", through_page_tables},
	{"protected_mode", protected_mode},
	{"protected_mode_paging", protected_mode_paging},
	{"real_mode", real_mode},
	{"user_mode", user_mode},
	{"crossing_from_memory", crossing_from_memory},
	{"crossing_between_pages", crossing_between_pages},
	{"crossing_into_no_page", crossing_into_no_page},
	{"unaligned", unaligned},
	{"instruction_across_pages", instruction_across_pages},
	{"driver", driver},
	{"memory_over_mmio", memory_over_mmio},
	{"accessed_and_dirty", accessed_and_dirty},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
