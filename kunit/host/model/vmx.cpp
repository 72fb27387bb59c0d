// SPDX-License-Identifier: GPL-2.0
#include "host_insn.hpp"

#include "vmx.hpp"

#include "arch/x86/controls.hpp"
#include "arch/x86/x2apic.hpp"
#include "arch/x86/x86.hpp"
#include "dedicated.hpp"
#include "kunit/capable_registers.hpp"
#include "violation.hpp"

#include <linux_glue/x86.h>

#include <utility>

namespace kvmpp::host
{

namespace
{

/* "VM-Instruction Error Numbers" */
constexpr u64 launch_of_launched = 4, resume_of_not_launched = 5;
constexpr u32 instruction_error_field = 0x4400;

Processor processors[cpu_count];
std::map<u64, Vmcs> vmcss;
std::vector<Invalidation> invalidations;
std::set<u32> missing;
CpuidTable cpuids;
u64 tsc;
Guest guest;
std::function<void()> nmi;

/* The time that an instruction takes: an NMI comes before or after. */
struct Moment {
	Moment() { come(); }
	~Moment() { come(); }
	void come()
	{
		if (nmi)
			nmi();
	}
};

bool is_vmx_instruction_allowed(const char *name)
{
	if (!here().vmx)
		violation("%s outside VMX operation on CPU %d", name, this_cpu());
	return here().vmx;
}

bool field_exists(u64 field)
{
	return !(field & 1) && !missing.contains(static_cast<u32>(field));
}

/* What a CPU with all that the module knows of says. */
CpuidTable capable_cpuid()
{
	CpuidTable t;

	t[{0, 0}] = {0x16, 0x756e6547, 0x6c65746e, 0x49656e69};
	t[{1, 0}] = {0x000506e3, 0x03100800, 0xffffffff, 0xffffffff};
	t[{2, 0}] = {0x76036301, 0x00f0b5ff, 0, 0x00c30000};
	t[{4, 0}] = {0x1c004121, 0x01c0003f, 0x0000003f, 0};
	t[{4, 1}] = {};
	t[{5, 0}] = {0x40, 0x40, 3, 0x11142120};
	t[{7, 0}] = {1, 0xffffffff, 0xffffffff, 0xffffffff};
	t[{7, 1}] = {0xffffffff, 0, 0, 0};
	t[{0xa, 0}] = {0x07300804, 0, 0, 0x603};
	t[{0xb, 0}] = {1, 2, 0x100, 3};
	t[{0xd, 0}] = {0x1f, 0x440, 0x440, 0};
	t[{0xd, 1}] = {0xf, 0x440, 0x100, 0};
	t[{0xd, 2}] = {0x100, 0x240, 0, 0};
	t[{0xd, 3}] = {0x40, 0x3c0, 0, 0};
	t[{0x80000000, 0}] = {0x80000008, 0, 0, 0};
	t[{0x80000001, 0}] = {0, 0, 0xffffffff, 0xffffffff};
	t[{0x80000002, 0}] = {0x65746e49, 0x2952286c, 0, 0};
	t[{0x80000006, 0}] = {0, 0, 0x01006040, 0};
	t[{0x80000007, 0}] = {0, 0, 0, 0xffffffff};
	t[{0x80000008, 0}] = {0x00003027, 0xffff, 0xffff, 0xffff};
	return t;
}

} // namespace

void reset_vmx()
{
	for (Processor &p : processors)
		p = Processor();
	vmcss.clear();
	invalidations.clear();
	missing.clear();
	cpuids = capable_cpuid();
	tsc = 1000;
	guest = nullptr;
	nmi = nullptr;
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		set_registers(cpu, capable_registers());
		for (u32 msr : {msr::star, msr::lstar, msr::cstar, msr::syscall_mask, msr::tsc_aux,
				msr::kernel_gs_base})
			processors[cpu].msrs[msr] = msr * u64{16} + static_cast<u64>(cpu);
		add_apic_msrs(cpu);
	}
}

void at_vmx_instructions(std::function<void()> function)
{
	nmi = std::move(function);
}

Processor &processor(int cpu)
{
	return processors[cpu];
}

Vmcs &vmcs_at(u64 address)
{
	return vmcss[address];
}

unsigned active_vmcss(int cpu)
{
	unsigned count = 0;

	for (auto &[address, vmcs] : vmcss)
		count += vmcs.active_on == cpu;
	return count;
}

std::vector<Invalidation> take_invalidations()
{
	return std::exchange(invalidations, {});
}

std::set<u32> &missing_fields()
{
	return missing;
}

void memory_freed(u64 address, u64 bytes)
{
	for (auto it = vmcss.lower_bound(address);
	     it != vmcss.end() && it->first < address + bytes;) {
		if (it->second.active_on >= 0)
			violation("memory of a VMCS freed that is active on CPU %d",
				  it->second.active_on);
		it = vmcss.erase(it);
	}
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (processors[cpu].vmx && processors[cpu].vmxon_region - address < bytes)
			violation("VMXON region of CPU %d freed in VMX operation", cpu);
}

CpuidTable &cpuid_table()
{
	return cpuids;
}

void set_tsc(u64 value)
{
	tsc = value;
}

VmxRegisters capable_registers()
{
	VmxRegisters r = kvmpp::capable_registers();

	r.host_cr4 = glue_host_cr4();
	return r;
}

void set_registers(int cpu, const VmxRegisters &r)
{
	std::map<u32, u64> &m = processors[cpu].msrs;

	m[msr::feature_control] = r.feature_control;
	m[msr::vmx_basic] = r.basic;
	m[msr::vmx_true_pinbased_controls] = r.pin;
	m[msr::vmx_true_procbased_controls] = r.primary;
	m[msr::vmx_true_exit_controls] = r.exit;
	m[msr::vmx_true_entry_controls] = r.entry;
	m[msr::vmx_procbased_controls2] = r.secondary;
	m[msr::vmx_ept_vpid_cap] = r.ept_vpid;
	m[msr::vmx_misc] = r.misc;
	m[msr::vmx_cr0_fixed0] = r.cr0_fixed0;
	m[msr::vmx_cr4_fixed0] = r.cr4_fixed0;
}

void set_guest(Guest g)
{
	guest = std::move(g);
}

bool enter_guest(kvmpp_gprs &gprs, bool launched)
{
	if (!irqs_off())
		violation("VM entry with interrupts on");
	if (!is_vmx_instruction_allowed("VM entry") || here().current == Processor::no_vmcs)
		return true;
	Vmcs &vmcs = vmcss[here().current];
	if (vmcs.launched != launched) {
		violation(launched ? "VMRESUME of a VMCS not launched"
				   : "VMLAUNCH of a VMCS launched");
		vmcs.fields[instruction_error_field] =
			launched ? resume_of_not_launched : launch_of_launched;
		return true;
	}
	if (!guest) {
		violation("VM entry where the test expected none");
		return true;
	}
	here().cr2 = gprs.cr2;
	bool failed = guest(vmcs, gprs.gpr);
	gprs.cr2 = here().cr2;
	if (failed)
		return true;
	here().debugctl = 0; /* "Loading MSRs" of "Loading Host State": cleared by every VM exit */
	constexpr u32 exit_reason_field = 0x4402, entry_info_field = 0x4016;
	/* "VM-Entry Failures During or After Loading Guest State": no launch, no other field changes. */
	if (vmcs.fields[exit_reason_field] >> 31)
		return false;
	vmcs.launched = true;
	/* "VM-Entry Controls for Event Injection": VM exits clear the valid bit. */
	vmcs.fields[entry_info_field] &= ~InterruptionInfo::valid_bit;
	return false;
}

} // namespace kvmpp::host

namespace kvmpp::insn
{

using namespace host;

CpuidResult cpuid(u32 leaf, u32 subleaf)
{
	auto it = cpuids.find({leaf, subleaf});

	if (it == cpuids.end())
		it = cpuids.find({leaf, 0});
	return it == cpuids.end() ? CpuidResult{} : it->second;
}

u64 rdtsc()
{
	return tsc;
}

u64 rdmsr(u32 msr)
{
	if (x2apic::is_msr(msr) && !(here().msrs[msr::apic_base] & apic_base_bit::extended))
		violation("RDMSR of %#x without x2APIC mode", msr);
	auto it = here().msrs.find(msr);

	if (it != here().msrs.end())
		return it->second;
	violation("RDMSR of %#x, which does not exist", msr);
	return 0;
}

void wrmsr(u32 msr, u64 value)
{
	if (!here().msrs.contains(msr))
		violation("WRMSR of %#x, which does not exist", msr);
	if ((msr == msr::lstar || msr == msr::cstar || msr == msr::kernel_gs_base) &&
	    !is_canonical(value))
		violation("WRMSR of a value to %#x that raises #GP", msr);
	here().msrs[msr] = value;
	written_msr(msr, value);
}

void xsetbv(u32 index, u64 value)
{
	if (index != 0 || !(value & 1) || value & ~u64{7} || (value & 6) == 4)
		violation("XSETBV that raises #GP");
	here().xcr0 = value;
}

u64 read_cr0()
{
	return cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::am | cr0::pg;
}

u64 read_cr2()
{
	return here().cr2;
}

void write_cr4(u64 value)
{
	Processor &p = here();

	if (p.vmx && !(value & cr4::vmxe))
		violation("CR4.VMXE cleared in VMX operation, which raises #GP");
	p.cr4 = value;
	p.vmxe = value & cr4::vmxe;
}

u64 gdt_base()
{
	return here().gdt_base;
}

void fence_before_ipi()
{
}

void write_debug_registers(const u64 (&dr)[4])
{
	for (int i = 0; i < 4; i++)
		here().dr[i] = dr[i];
}

Result<> vmxon(HostPhys region)
{
	Moment moment;
	Processor &p = here();

	if (!p.vmxe || p.vmx || region.page_offset() || std::exchange(p.fail_vmxon, false))
		return Errno::io;
	if (*reinterpret_cast<u32 *>(region.value) !=
	    static_cast<u32>(p.msrs[msr::vmx_basic] & 0x7fffffff))
		return Errno::io;
	for (int cpu = 0; cpu < cpu_count; cpu++)
		if (processors[cpu].vmx && processors[cpu].vmxon_region == region.value)
			violation("CPUs %d and %d share a VMXON region", cpu, this_cpu());
	p.vmx = true;
	p.vmxon_region = region.value;
	p.current = Processor::no_vmcs;
	return {};
}

Result<> vmxoff()
{
	Moment moment;
	if (!is_vmx_instruction_allowed("VMXOFF"))
		return Errno::io;
	if (unsigned left = active_vmcss(this_cpu()))
		violation("VMXOFF on CPU %d with %u active VMCSs", this_cpu(), left);
	here().vmx = false;
	here().current = Processor::no_vmcs;
	return {};
}

Result<> vmclear(HostPhys address)
{
	Moment moment;
	if (!is_vmx_instruction_allowed("VMCLEAR"))
		return Errno::io;
	Processor &p = here();
	if (address.page_offset() || address.value == p.vmxon_region ||
	    std::exchange(p.fail_vmclear, false))
		return Errno::io;
	Vmcs &vmcs = vmcss[address.value];
	if (vmcs.active_on >= 0 && vmcs.active_on != this_cpu())
		violation("VMCLEAR on CPU %d of a VMCS that is active on CPU %d", this_cpu(),
			  vmcs.active_on);
	vmcs.active_on = -1;
	vmcs.cleared = true;
	vmcs.launched = false;
	if (p.current == address.value)
		p.current = Processor::no_vmcs;
	return {};
}

Result<> vmptrld(HostPhys address)
{
	Moment moment;
	if (!is_vmx_instruction_allowed("VMPTRLD"))
		return Errno::io;
	Processor &p = here();
	if (address.page_offset() || address.value == p.vmxon_region ||
	    std::exchange(p.fail_vmptrld, false))
		return Errno::io;
	if (*reinterpret_cast<u32 *>(address.value) !=
	    static_cast<u32>(p.msrs[msr::vmx_basic] & 0x7fffffff))
		return Errno::io;
	Vmcs &vmcs = vmcss[address.value];
	if (!vmcs.cleared)
		violation("VMPTRLD of a VMCS that was never cleared");
	if (vmcs.active_on >= 0 && vmcs.active_on != this_cpu())
		violation("VMPTRLD on CPU %d of a VMCS that is active on CPU %d", this_cpu(),
			  vmcs.active_on);
	vmcs.active_on = this_cpu();
	p.current = address.value;
	return {};
}

bool vmread(u64 field, u64 &value)
{
	value = 0;
	if (!is_vmx_instruction_allowed("VMREAD") || here().current == Processor::no_vmcs ||
	    !field_exists(field))
		return false;
	value = vmcss[here().current].fields[static_cast<u32>(field)];
	return true;
}

bool vmwrite(u64 field, u64 value)
{
	bool read_only = ((field >> 10) & 3) == 1;

	if (!is_vmx_instruction_allowed("VMWRITE") || here().current == Processor::no_vmcs ||
	    !field_exists(field) || read_only)
		return false;
	unsigned width = (field >> 13) & 3;
	vmcss[here().current].fields[static_cast<u32>(field)] = width == 0   ? value & 0xffff
								: width == 2 ? value & 0xffffffff
									     : value;
	return true;
}

Result<> invept(Invalidate type, u64 ept_pointer)
{
	if (!is_vmx_instruction_allowed("INVEPT"))
		return Errno::io;
	invalidations.push_back({this_cpu(), false, type, ept_pointer});
	return {};
}

Result<> invvpid(Invalidate type, u16 vpid)
{
	if (!is_vmx_instruction_allowed("INVVPID"))
		return Errno::io;
	if (type == Invalidate::single_context && vpid == 0)
		return Errno::io;
	invalidations.push_back({this_cpu(), true, type, vpid});
	return {};
}

} // namespace kvmpp::insn
