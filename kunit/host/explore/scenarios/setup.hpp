/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What scenarios of several areas begin with, do and end with. All is built with the module's sources
 * into each variant: see variant.hpp.
 */
#pragma once

#include "scenario.hpp"

#include "arch/x86/vmx_cpu.hpp"
#include "arch/x86/vmx_vcpu.hpp"
#include "virt/hardware.hpp"
#include "virt/vm.hpp"

namespace kvmpp::explore
{

extern const Scenarios vmcs_scenarios, hardware_scenarios, memory_scenarios, vcpus_scenarios,
	dedicated_scenarios, io_scenarios, apic_scenarios;

extern Vm *vm;
/* As Vcpu has them: its VMX side and its registers. */
struct Guest {
	VmxVcpu vmx;
	VcpuState state;
	RcuOwned<VcpuEntry> entry;
	Ept::TablePages table_pages;

	explicit Guest(u32 id)
		: vmx(hardware_config(), vm->mmu().ept()), entry(Owned<VcpuEntry>::create(id))
	{
		Locked locked(table().lock);
		table().add(*entry);
	}
	~Guest()
	{
		Locked locked(table().lock);
		table().remove(*entry);
	}
	Result<Entry> enter(Exit &exit)
	{
		const VcpuIdentity identity{.id = entry->id(), .physical_address_bits = 36};
		Next next;

		return vmx.enter(state, identity, exit, next, entry->kick);
	}
	/* Only Vm::create_vcpu() changes it, which makes more of a vCPU than is wanted here. */
	static VcpuTable &table() { return const_cast<VcpuTable &>(vm->vcpus()); }
};
extern Owned<Guest> guests[2];
/* VMX may be off, or going off, where a VMCS is to be loaded. */
extern bool with_hotplug;
/* Of hardware_get(), for finish() to put. */
extern unsigned uses;

void expect(bool so, const char *what);
void load_module();
void make_vm();
void make_guest(int i);
/* One entry, as Vcpu::step() goes about it. False: VMX was off there, or nothing mapped yet. */
bool enter(int i);
void set_up_guest();
void set_up_two_guests();
void set_up_guest_with_hotplug();
void set_up_two_guests_with_hotplug();
/* Its VMCS is active on CPU 1. */
void set_up_guest_on_cpu_1();
void finish();
void enter_first();
void enter_first_twice();
void take_cpu_1_offline();
void bring_cpu_1_online();
void cpu_1_goes_and_comes();

} // namespace kvmpp::explore
