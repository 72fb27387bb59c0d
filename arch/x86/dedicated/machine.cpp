// SPDX-License-Identifier: GPL-2.0
#include "machine.hpp"

#include "arch/x86/cpu_insn.hpp"
#include "arch/x86/vmx_insn.hpp"

/* traps.S */
extern "C" {
extern const kvmpp::u8 kvmpp_dedicated_stubs[][16];
extern const kvmpp::u8 kvmpp_dedicated_nmi_stub[];
}

namespace kvmpp
{

namespace
{

constexpr u64 code_segment = 0x00af9b000000ffff, data_segment = 0x00cf93000000ffff;
constexpr u8 interrupt_gate = 0x8e;
constexpr u8 nmi_ist = 1, fault_ist = 2, machine_check_ist = 3;

IdtGate gate(const void *handler, u8 ist)
{
	u64 address = reinterpret_cast<u64>(handler);

	return {.offset_low = static_cast<u16>(address),
		.selector = DedicatedMachine::code_selector,
		.ist = ist,
		.type = interrupt_gate,
		.offset_middle = static_cast<u16>(address >> 16),
		.offset_high = static_cast<u32>(address >> 32),
		.reserved = 0};
}

} // namespace

void DedicatedMachine::prepare()
{
	u64 task = reinterpret_cast<u64>(&tss);

	gdt[code_selector / 8] = code_segment;
	gdt[data_selector / 8] = data_segment;
	/* "TSS Descriptor in 64-bit mode": available, 64 bits wide. */
	gdt[tss_selector / 8] = (sizeof(Tss) - 1) | (task & 0xffffff) << 16 | u64{0x89} << 40 |
				((task >> 24) & 0xff) << 56;
	gdt[tss_selector / 8 + 1] = task >> 32;
	gdt_pointer = {{}, sizeof(gdt) - 1, gdt};

	/* The record is found from a stack by its alignment: see machine_of(). */
	tss.ist[nmi_ist - 1] = reinterpret_cast<u64>(nmi_stack + sizeof(nmi_stack));
	tss.ist[fault_ist - 1] = reinterpret_cast<u64>(fault_stack + sizeof(fault_stack));
	tss.ist[machine_check_ist - 1] =
		reinterpret_cast<u64>(machine_check_stack + sizeof(machine_check_stack));
	tss.io_map_base = sizeof(Tss);

	for (unsigned vector = 0; vector < 256; vector++)
		idt[vector] = gate(kvmpp_dedicated_stubs[vector], 0);
	idt[static_cast<u8>(Vector::nmi)] = gate(kvmpp_dedicated_nmi_stub, nmi_ist);
	auto set_ist = [&](Vector vector, u8 ist) { idt[static_cast<u8>(vector)].ist = ist; };
	set_ist(Vector::double_fault, fault_ist);
	set_ist(Vector::machine_check, machine_check_ist);
	idt_pointer = {{}, sizeof(idt) - 1, idt};
}

} // namespace kvmpp
