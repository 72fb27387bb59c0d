// SPDX-License-Identifier: GPL-2.0
#include "guests.hpp"

#include "expect.hpp"

RealMachine::RealMachine(uint64_t entry, size_t memory_size)
	: Machine(guest::real::image(), memory_size)
{
	vcpu.enter_real(entry);
}

LongMachine::LongMachine(uint64_t entry, size_t memory_size)
	: Machine(guest::longmode::image(), memory_size)
{
	using namespace guest::longmode;

	prepare_long();
	set_gate64(0, on_0);
	set_gate64(1, on_1);
	set_gate64(3, on_3, 3);
	set_gate64(6, on_6);
	set_gate64(7, on_7);
	set_gate64(11, on_11);
	set_gate64(13, on_13);
	set_gate64(14, on_14);
	set_gate64(33, on_33);
	vcpu.enter_long(entry);
}

void call(Machine &machine, uint64_t entry)
{
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = entry;
	machine.vcpu.set_regs(regs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void call(Machine &machine, uint64_t entry, uint64_t rax, uint64_t rbx, uint64_t rcx)
{
	kvm_regs regs = machine.vcpu.regs();
	regs.rax = rax;
	regs.rbx = rbx;
	regs.rcx = rcx;
	machine.vcpu.set_regs(regs);
	call(machine, entry);
}

kvm_regs identify(Machine &machine, uint32_t leaf, uint32_t subleaf)
{
	kvm_regs regs = machine.vcpu.regs();
	regs.rax = leaf;
	regs.rcx = subleaf;
	machine.vcpu.set_regs(regs);
	call(machine, guest::longmode::identify);
	return machine.vcpu.regs();
}

void check_fault(const LongMachine &machine, const Raise &raise)
{
	const auto &fault = machine.fault();
	if (fault.count != 1 || fault.vector != raise.vector || fault.error != raise.error ||
	    fault.rip != raise.rip)
		expect::fail("%s: %llu exceptions, vector %llu error %#llx RIP %#llx, "
			     "expected vector %u error %#llx RIP %#llx",
			     raise.name, (unsigned long long)fault.count,
			     (unsigned long long)fault.vector, (unsigned long long)fault.error,
			     (unsigned long long)fault.rip, raise.vector,
			     (unsigned long long)raise.error, (unsigned long long)raise.rip);
	if (raise.vector == 14)
		expect::equal("CR2", fault.cr2, raise.regs.rbx);
}

void expect_fault(const Raise &raise)
{
	LongMachine machine(raise.entry);
	kvm_regs regs = machine.vcpu.regs();
	regs.rax = raise.regs.rax;
	regs.rbx = raise.regs.rbx;
	regs.rcx = raise.regs.rcx;
	regs.rdx = raise.regs.rdx;
	machine.vcpu.set_regs(regs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	check_fault(machine, raise);
}

void Msrs::write(uint32_t index, uint64_t value) const
{
	kvm_regs regs = machine_.vcpu.regs();
	regs.rcx = index;
	regs.rax = value & 0xffffffff;
	regs.rdx = value >> 32;
	machine_.vcpu.set_regs(regs);
	call(machine_, guest::longmode::msr_write);
}

uint64_t Msrs::read(uint32_t index) const
{
	kvm_regs regs = machine_.vcpu.regs();
	regs.rcx = index;
	// WRMSR and RDMSR use halves; RDMSR must clear the others.
	regs.rax = regs.rdx = ~0ull;
	machine_.vcpu.set_regs(regs);
	call(machine_, guest::longmode::msr_read);
	regs = machine_.vcpu.regs();
	expect::that("RDMSR clears the upper halves", !(regs.rax >> 32) && !(regs.rdx >> 32));
	return regs.rdx << 32 | regs.rax;
}
