// SPDX-License-Identifier: GPL-2.0
//
// A vCPU's state as the VMM sets and gets it: what comes back as it was given, what is refused, and
// what KVM_RUN says of a state that no processor could be in. Every errno and exit is the one stock
// KVM of Linux 6.1 gives with an unrestricted guest.

#include "expect.hpp"
#include "guests.hpp"
#include "ktap.hpp"

#include <cerrno>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;
namespace real = guest::real;

constexpr uint64_t page_size = 0x1000;

// ---- Registers

uint64_t next_random()
{
	static uint64_t state = 0x9e3779b97f4a7c15;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

void regs_round_trip()
{
	RealMachine machine(real::halt);
	for (unsigned round = 0; round < 50; round++) {
		kvm_regs regs;
		for (auto member :
		     {&kvm_regs::rax, &kvm_regs::rbx, &kvm_regs::rcx, &kvm_regs::rdx,
		      &kvm_regs::rsi, &kvm_regs::rdi, &kvm_regs::rsp, &kvm_regs::rbp, &kvm_regs::r8,
		      &kvm_regs::r9, &kvm_regs::r10, &kvm_regs::r11, &kvm_regs::r12, &kvm_regs::r13,
		      &kvm_regs::r14, &kvm_regs::r15, &kvm_regs::rip})
			regs.*member = next_random();
		regs.rflags = (next_random() & 0x250dd5) | 2;
		machine.vcpu.set_regs(regs);
		const kvm_regs back = machine.vcpu.regs();
		that("KVM_GET_REGS gives what KVM_SET_REGS took",
		     !std::memcmp(&regs, &back, sizeof(regs)));
	}
	// RFLAGS bit 1 is always set.
	kvm_regs regs = machine.vcpu.regs();
	regs.rflags = 0;
	machine.vcpu.set_regs(regs);
	equal("RFLAGS", machine.vcpu.regs().rflags, 2u);
}

kvm_segment random_segment(unsigned type)
{
	kvm_segment segment{};
	segment.selector = static_cast<uint16_t>(next_random());
	segment.base = next_random() & 0xffffffff;
	segment.limit = static_cast<uint32_t>(next_random());
	segment.type = static_cast<uint8_t>(type);
	segment.s = 1;
	segment.dpl = next_random() & 3;
	segment.present = 1;
	segment.avl = next_random() & 1;
	segment.l = 0;
	segment.db = next_random() & 1;
	segment.g = next_random() & 1;
	return segment;
}

void check_segment(const char *name, const kvm_segment &seen, const kvm_segment &wanted)
{
	equal(name, seen.selector, wanted.selector);
	equal(name, seen.base, wanted.base);
	equal(name, seen.limit, wanted.limit);
	equal(name, seen.type, wanted.type);
	equal(name, seen.s, wanted.s);
	equal(name, seen.dpl, wanted.dpl);
	equal(name, seen.present, wanted.present);
	equal(name, seen.avl, wanted.avl);
	equal(name, seen.l, wanted.l);
	equal(name, seen.db, wanted.db);
	equal(name, seen.g, wanted.g);
	equal(name, seen.unusable, wanted.unusable);
}

void sregs_round_trip()
{
	LongMachine machine(lm::peek);
	kvm_sregs sregs = machine.vcpu.sregs();
	for (unsigned round = 0; round < 50; round++) {
		// Odd types: KVM sets the accessed bit by itself where the hardware demands it.
		sregs.cs = random_segment(0x9 | (next_random() & 6));
		for (kvm_segment *segment : {&sregs.ds, &sregs.es, &sregs.fs, &sregs.gs, &sregs.ss})
			*segment = random_segment(1 | (next_random() & 0xe));
		sregs.tr = random_segment(11);
		sregs.tr.s = 0;
		sregs.ldt = random_segment(2);
		sregs.ldt.s = 0;
		// KVM knows no present segment that is unusable, nor the reverse.
		sregs.gs.present = 0;
		sregs.gs.unusable = 1;
		sregs.ldt.present = round & 1;
		sregs.ldt.unusable = !sregs.ldt.present;
		sregs.gdt = {next_random() & 0xffffffff, static_cast<uint16_t>(next_random()), {}};
		sregs.idt = {next_random() & 0xffffffff, static_cast<uint16_t>(next_random()), {}};
		sregs.cr2 = next_random();
		sregs.cr3 = next_random() & 0xfffffff000;
		sregs.cr8 = round & 15;
		machine.vcpu.set_sregs(sregs);
		const kvm_sregs back = machine.vcpu.sregs();
		check_segment("CS", back.cs, sregs.cs);
		check_segment("DS", back.ds, sregs.ds);
		check_segment("ES", back.es, sregs.es);
		check_segment("FS", back.fs, sregs.fs);
		check_segment("GS", back.gs, sregs.gs);
		check_segment("SS", back.ss, sregs.ss);
		check_segment("TR", back.tr, sregs.tr);
		check_segment("LDTR", back.ldt, sregs.ldt);
		equal("GDT base", back.gdt.base, sregs.gdt.base);
		equal("GDT limit", back.gdt.limit, sregs.gdt.limit);
		equal("IDT base", back.idt.base, sregs.idt.base);
		equal("IDT limit", back.idt.limit, sregs.idt.limit);
		equal("CR0", back.cr0, sregs.cr0);
		equal("CR2", back.cr2, sregs.cr2);
		equal("CR3", back.cr3, sregs.cr3);
		equal("CR4", back.cr4, sregs.cr4);
		equal("CR8", back.cr8, sregs.cr8);
		equal("EFER", back.efer, sregs.efer);
		equal("APIC base", back.apic_base, sregs.apic_base);
		that("interrupt bitmap", !std::memcmp(back.interrupt_bitmap, sregs.interrupt_bitmap,
						      sizeof(sregs.interrupt_bitmap)));
	}
}

void sregs_refused()
{
	LongMachine machine(lm::peek);
	const kvm_sregs good = machine.vcpu.sregs();
	const auto refuse = [&](const char *what, auto change) {
		kvm_sregs bad = good;
		change(bad);
		equal(what, machine.vcpu.try_set_sregs(bad), -EINVAL);
		const kvm_sregs now = machine.vcpu.sregs();
		that("nothing is changed", !std::memcmp(&now, &good, sizeof(good)));
	};
	refuse("LME and PG without PAE", [](kvm_sregs &sregs) { sregs.cr4 &= ~bit(5); });
	refuse("LME and PG without LMA", [](kvm_sregs &sregs) { sregs.efer &= ~bit(10); });
	refuse("LMA without LME", [](kvm_sregs &sregs) { sregs.efer &= ~bit(8); });
	refuse("LMA without PG", [](kvm_sregs &sregs) { sregs.cr0 &= ~bit(31); });
	refuse("CS.L without long mode", [](kvm_sregs &sregs) { sregs.efer = 0; });
	refuse("CR3 beyond physical addresses", [](kvm_sregs &sregs) { sregs.cr3 |= bit(60); });
	refuse("CR4 bit 15", [](kvm_sregs &sregs) { sregs.cr4 |= bit(15); });
	refuse("CR4 bit 40", [](kvm_sregs &sregs) { sregs.cr4 |= bit(40); });
	refuse("APIC base with a reserved bit", [](kvm_sregs &sregs) { sregs.apic_base |= 1; });
	call(machine, lm::peek, 0, GUEST_SCRATCH);
}

// ---- KVM_RUN where no processor could be

void impossible_states()
{
	const auto refuse = [](const char *what, auto change) {
		LongMachine machine(lm::peek);
		const kvm_sregs good_sregs = machine.vcpu.sregs();
		const kvm_regs good_regs = machine.vcpu.regs();
		kvm_sregs sregs = good_sregs;
		kvm_regs regs = good_regs;
		// Should the entry succeed after all, the guest's first exception is its end.
		sregs.idt.limit = 0;
		change(sregs, regs);
		equal(what, machine.vcpu.try_set_sregs(sregs), 0);
		machine.vcpu.set_regs(regs);
		equal(what, machine.vcpu.try_run(), 0);
		const kvm_run &state = machine.vcpu.state();
		if (state.exit_reason != KVM_EXIT_FAIL_ENTRY)
			expect::fail("%s: %s", what, exit_name(state.exit_reason));
		// "VM-entry failure due to invalid guest state", with bit 31.
		equal(what, state.fail_entry.hardware_entry_failure_reason, 0x80000021u);
		// The vCPU is none the worse for it.
		machine.vcpu.set_sregs(good_sregs);
		machine.vcpu.set_regs(good_regs);
		call(machine, lm::peek, 0, GUEST_SCRATCH);
	};
	refuse("RFLAGS with a reserved bit",
	       [](kvm_sregs &, kvm_regs &regs) { regs.rflags |= bit(15); });
	refuse("RFLAGS.VM in long mode",
	       [](kvm_sregs &, kvm_regs &regs) { regs.rflags |= bit(17); });
	refuse("CS is a data segment", [](kvm_sregs &sregs, kvm_regs &) { sregs.cs.type = 1; });
	refuse("CS.L and CS.D", [](kvm_sregs &sregs, kvm_regs &) { sregs.cs.db = 1; });
	refuse("TR is a 16-bit TSS", [](kvm_sregs &sregs, kvm_regs &) { sregs.tr.type = 3; });
	refuse("TR is an available TSS", [](kvm_sregs &sregs, kvm_regs &) { sregs.tr.type = 9; });
	refuse("TR is not there", [](kvm_sregs &sregs, kvm_regs &) { sregs.tr.unusable = 1; });
	refuse("TR's base not canonical",
	       [](kvm_sregs &sregs, kvm_regs &) { sregs.tr.base = bit(52); });
	refuse("GS base not canonical",
	       [](kvm_sregs &sregs, kvm_regs &) { sregs.gs.base = bit(52); });
	refuse("GDT base not canonical",
	       [](kvm_sregs &sregs, kvm_regs &) { sregs.gdt.base = bit(52); });
	refuse("SS is a code segment", [](kvm_sregs &sregs, kvm_regs &) { sregs.ss.type = 11; });
	refuse("a limit that contradicts G",
	       [](kvm_sregs &sregs, kvm_regs &) { sregs.ds.limit = 0xffff0ffe; });
}

// In real mode a VM entry demands nothing of a segment's attributes; in virtual-8086 mode it does.
void impossible_virtual_8086()
{
	LongMachine machine(lm::peek);
	machine.vcpu.enter_protected(lm::peek);
	kvm_regs regs = machine.vcpu.regs();
	regs.rflags |= bit(17);
	machine.vcpu.set_regs(regs);
	equal("KVM_RUN", machine.vcpu.try_run(), 0);
	equal("exit reason", machine.vcpu.state().exit_reason, KVM_EXIT_FAIL_ENTRY);
}

// The manual makes it a failed entry, Bochs lets the guest begin and have a #GP.
void rip_not_canonical()
{
	LongMachine machine(lm::peek);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.idt.limit = 0;
	machine.vcpu.set_sregs(sregs);
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = bit(52);
	machine.vcpu.set_regs(regs);
	equal("KVM_RUN", machine.vcpu.try_run(), 0);
	const uint32_t reason = machine.vcpu.state().exit_reason;
	that("the exit is KVM_EXIT_FAIL_ENTRY or KVM_EXIT_SHUTDOWN",
	     reason == KVM_EXIT_FAIL_ENTRY || reason == KVM_EXIT_SHUTDOWN);
}

// Paging on, and no memory where CR3 points. KVM gives the guest a page fault, and it shuts down;
// to give up with an internal error is as good. KVM_RUN must end.
void no_page_tables()
{
	LongMachine machine(lm::peek);
	kvm_sregs sregs = machine.vcpu.sregs();
	sregs.cr3 = GUEST_MMIO;
	sregs.idt.limit = 0;
	machine.vcpu.set_sregs(sregs);
	equal("KVM_RUN", machine.vcpu.try_run(), 0);
	const uint32_t reason = machine.vcpu.state().exit_reason;
	that("the exit is KVM_EXIT_SHUTDOWN or KVM_EXIT_INTERNAL_ERROR",
	     reason == KVM_EXIT_SHUTDOWN || reason == KVM_EXIT_INTERNAL_ERROR);
}

// Code where no memory is: nothing to emulate.
void no_code()
{
	Device device;
	Vm vm(device);
	Memory memory(page_size);
	vm.set_memory(0, 0, page_size, memory.data());
	Vcpu vcpu(vm);
	equal("KVM_RUN", vcpu.try_run(), 0);
	equal("exit reason", vcpu.state().exit_reason, KVM_EXIT_INTERNAL_ERROR);
	equal("suberror", vcpu.state().internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
}

constexpr ktap::Case cases[] = {
	{"regs_round_trip", regs_round_trip},
	{"sregs_round_trip", sregs_round_trip},
	{"sregs_refused", sregs_refused},
	{"impossible_states", impossible_states},
	{"impossible_virtual_8086", impossible_virtual_8086},
	{"rip_not_canonical", rip_not_canonical},
	{"no_page_tables", no_page_tables},
	{"no_code", no_code},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
