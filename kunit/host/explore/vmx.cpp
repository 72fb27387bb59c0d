// SPDX-License-Identifier: GPL-2.0
#include "vmx.hpp"

#include "arch/x86/vmcs_field.hpp"
#include "arch/x86/x2apic.hpp"
#include "arch/x86/x86.hpp"
#include "crash.hpp"
#include "dedicated.hpp"
#include "kunit/capable_registers.hpp"
#include "machine.hpp"
#include "memory.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/guest.h>
#include <linux_glue/x86.h>

#include <asm/errno.h>

#include <utility>

/* The address that entry.S gives the CPU to come back to. */
extern "C" const char kvmpp_vmx_exit[1] = {};

namespace kvmpp::explore
{

namespace
{

constexpr u64 no_page = 0;
constexpr int most_vmcss = 16, tlb_entries = 8, most_frames = 4096;

/* Those fields that decide anything here; all others are written into the void and read as 0. */
struct Vmcs {
	u64 page = no_page;
	int active_on = nobody;
	bool cleared = false, launched = false;
	bool event = false;
	u64 ept_pointer = 0, host_tr_base = 0, host_gs_base = 0;
	/* 0: without page-modification logging. */
	u64 pml_address = 0, pml_index = 0;
};

struct Translation {
	u64 ept_pointer, frame, host_frame;
	/* Its dirty bit is set. */
	bool writable;
};

struct Processor {
	bool vmxe = false, vmx = false, pt_knows = false, broken = false;
	u64 vmxon_region = no_page, current = no_page;
	Translation tlb[tlb_entries];
	int cached = 0;
	/* The exit's. */
	u64 reason = 0, guest_phys = 0, interruption_info = 0;
};

struct Vmx {
	Processor processors[max_cpus];
	Vmcs vmcss[most_vmcss];
};

struct State : Vmx {
	bool taken[most_frames];
	u64 touched_by[max_processes];
	bool written_by[max_processes];
	u16 writes[most_frames];
	bool waits, computes;
	bool rescheduled[max_cpus];
};
State state;
Vmx before_crash;

Processor &here()
{
	return state.processors[this_cpu()];
}

Vmcs &vmcs_at(u64 page)
{
	for (Vmcs &v : state.vmcss)
		if (v.page == page || v.page == no_page) {
			v.page = page;
			return v;
		}
	fail("more VMCSs than the model has");
}

u16 object_of_page(u64 page)
{
	return object_at(glue_phys_to_virt(page));
}

/* False where it raises #UD and that is no surprise: a crash may find VMX on its way on or off. */
bool check_vmx(const char *what)
{
	if (!irqs_off())
		fail("%s with interrupts on", what);
	if (!here().vmx && !crashing())
		fail("%s outside VMX operation", what);
	return here().vmx;
}

void drop_translations(Processor &p, u64 ept_pointer)
{
	int left = 0;

	for (int i = 0; i < p.cached; i++)
		if (ept_pointer && p.tlb[i].ept_pointer != ept_pointer)
			p.tlb[left++] = p.tlb[i];
	p.cached = left;
}

constexpr u64 ept_address = 0x000ffffffffff000, ept_large = 1 << 7, no_frame = ~u64{0};

void log_page(Vmcs &vmcs, u64 frame)
{
	auto *log = static_cast<u64 *>(glue_phys_to_virt(vmcs.pml_address));

	log[vmcs.pml_index--] = frame << page_shift;
}

/* What the CPU has cached, else what the tables say, in which it notes what it does. */
u64 translate(Processor &p, Vmcs &vmcs, u64 frame, bool write)
{
	const u64 ept_pointer = vmcs.ept_pointer;
	constexpr u64 accessed = 1 << 8, dirty = 1 << 9, rights = 7, writable = 2;
	const u64 noted = write ? accessed | dirty : accessed;

	for (int i = 0; i < p.cached; i++)
		if (p.tlb[i].ept_pointer == ept_pointer && p.tlb[i].frame == frame &&
		    (p.tlb[i].writable || !write))
			return p.tlb[i].host_frame;
	u64 entry = ept_pointer | rights, *place = nullptr;
	int shift = 4 * 9;
	bool is_leaf = false;
	while (!is_leaf) {
		auto *table = static_cast<u64 *>(glue_phys_to_virt(entry & ept_address));

		shift -= 9;
		place = &table[frame >> shift & 0x1ff];
		entry = load_entry(place);
		is_leaf = shift == 0 || (entry & ept_large);
		if (!(entry & (is_leaf && write ? writable : rights)))
			return no_frame;
	}
	/* Not the right one any more: a fault is as good as a walk anew. */
	if ((entry & noted) != noted && !set_in_entry(place, entry, noted))
		return no_frame;
	if (write && !(entry & dirty) && vmcs.pml_address)
		log_page(vmcs, frame);
	u64 host_frame = ((entry & ept_address) >> page_shift) + (frame & ((u64{1} << shift) - 1));
	if (p.cached < tlb_entries)
		p.tlb[p.cached++] = {ept_pointer, frame, host_frame,
				     (entry & writable) && (write || (entry & dirty))};
	return host_frame;
}

void *frame_object(u64 host_frame)
{
	return &state.taken[host_frame % most_frames];
}

void use_page(Vmcs &vmcs, u64 frame, bool write);

void run_guest(Vmcs &vmcs)
{
	Processor &p = here();
	u64 frame = exploring() ? state.touched_by[running] : no_frame;
	int cpu = this_cpu();

	p.reason = 12; /* HLT */
	if (std::exchange(vmcs.event, false) && state.waits) {
		p.reason = 2; /* triple fault */
		return;
	}
	if (frame != no_frame) {
		use_page(vmcs, frame, state.written_by[running]);
		if (p.reason != 12)
			return;
	}
	if (state.computes) {
		step(Op{.what = "guest computes until an interrupt comes"}
			     .write(rescheduled(cpu))
			     .when([](u64 c) { return state.rescheduled[c]; },
				   static_cast<u64>(cpu)));
		state.rescheduled[cpu] = false;
		p.reason = 1; /* external interrupt */
	}
}

void use_page(Vmcs &vmcs, u64 frame, bool write)
{
	Processor &p = here();
	u64 host_frame = translate(p, vmcs, frame, write);
	if (host_frame == no_frame) {
		p.reason = 48; /* EPT violation */
		p.guest_phys = frame << page_shift;
		return;
	}
	Op use{.what = "guest uses host frame %#llx", .argument = host_frame};
	use.accesses.add(object_at(frame_object(host_frame)), write ? Kind::write : Kind::read);
	if (self().bare != nobody)
		use.accesses.add(object_of(Fixed::interrupts, this_cpu()), Kind::read);
	step(static_cast<Op &&>(use));
	if (state.taken[host_frame % most_frames])
		fail("the guest uses a page that Linux has taken away: frame %#llx",
		     static_cast<unsigned long long>(host_frame));
	if (write)
		state.writes[host_frame % most_frames]++;
}

} // namespace

void reset_vmx()
{
	state = {};
	for (u64 &frame : state.touched_by)
		frame = no_frame;
	keep(&state, sizeof(state));
}

void check_cpu_at_rest(int cpu)
{
	for (const Vmcs &v : state.vmcss)
		if (v.page != no_page && v.active_on == cpu)
			fail("CPU %d is left with an active VMCS", cpu);
	if (state.processors[cpu].vmx)
		fail("CPU %d is left in VMX operation", cpu);
	if (state.processors[cpu].vmxe)
		fail("CPU %d is left with CR4.VMXE set", cpu);
}

void memory_freed(u64 offset, u64 bytes)
{
	u64 address = glue_virt_to_phys(arena + offset);

	for (Vmcs &v : state.vmcss)
		if (v.page != no_page && v.page - address < bytes) {
			if (v.active_on != nobody)
				fail("memory of a VMCS freed that is active on CPU %d",
				     v.active_on);
			/* Its page stays in the table, for the next one there. */
			v = {.page = v.page};
		}
	for (int cpu = 0; cpu < max_cpus; cpu++)
		if (state.processors[cpu].vmx &&
		    state.processors[cpu].vmxon_region - address < bytes)
			fail("VMXON region of CPU %d freed in VMX operation", cpu);
}

void break_vmxon(int cpu)
{
	state.processors[cpu].broken = true;
}

bool in_vmx_operation(int cpu)
{
	return state.processors[cpu].vmx;
}

void keep_vmx_for_crash()
{
	before_crash = state;
}

void undo_vmx_of_crash()
{
	static_cast<Vmx &>(state) = before_crash;
}

void guest_touches(u64 frame)
{
	state.touched_by[running] = frame;
}

void guest_writes(u64 frame)
{
	guest_touches(frame);
	state.written_by[running] = true;
}

u64 copy_of_frame(u64 host_frame)
{
	step(Op{.what = "host frame %#llx is copied", .argument = host_frame}.read(
		object_at(frame_object(host_frame))));
	return writes_to_frame(host_frame);
}

u64 writes_to_frame(u64 host_frame)
{
	return state.writes[host_frame % most_frames];
}

void wait_for_write(u64 host_frame)
{
	step(Op{.what = "sees that host frame %#llx was written to", .argument = host_frame}
		     .read(object_at(frame_object(host_frame)))
		     .when([](u64 f) { return state.writes[f % most_frames] != 0; }, host_frame));
}

void guests_wait(Waits how)
{
	state.waits = true;
	state.computes = how == Waits::computing;
}

void reschedule(int cpu)
{
	state.rescheduled[cpu] = true;
}

u16 rescheduled(int cpu)
{
	return object_at(&state.rescheduled[cpu]);
}

void take_frame_away(u64 host_frame)
{
	step(Op{.what = "host frame %#llx is somebody else's now", .argument = host_frame}.write(
		object_at(frame_object(host_frame))));
	state.taken[host_frame % most_frames] = true;
}

} // namespace kvmpp::explore

using namespace kvmpp;
using namespace kvmpp::explore;

int glue_vmxe_is_set(void)
{
	return here().vmxe;
}

int glue_vmxe_set(void)
{
	if (here().vmxe)
		return -EBUSY;
	crash_may_come("sets CR4.VMXE", 0);
	here().vmxe = true;
	return 0;
}

void glue_vmxe_clear(void)
{
	crash_may_come("clears CR4.VMXE", 0);
	if (here().vmx)
		fail("CR4.VMXE cleared in VMX operation, which raises #GP");
	here().vmxe = false;
}

void glue_intel_pt_vmx(int on)
{
	if (here().pt_knows == (on != 0))
		fail("Intel PT told twice");
	here().pt_knows = on;
}

int glue_rdmsr_safe(glue_u32 msr, glue_u64 *value)
{
	*value = insn::rdmsr(msr);
	return 0;
}

void glue_host_state_read(glue_host_state *s)
{
	*s = {};
	s->tr_base = 0x1000u + static_cast<unsigned>(this_cpu());
	s->gs_base = 0x4000u + static_cast<unsigned>(this_cpu());
}

glue_u64 glue_host_cr3(void)
{
	return 0x7000;
}

glue_u64 glue_host_cr4(void)
{
	return 0x3726e0;
}

glue_u64 glue_host_xcr0(void)
{
	return 0;
}

int glue_split_lock(glue_u64)
{
	return 0;
}

namespace
{

Vmcs &enter(int launched, bool bare)
{
	check_vmx("VM entry");
	Processor &p = here();
	if (p.current == no_page)
		fail("VM entry without a current VMCS");
	if (!bare)
		step(Op{.what = launched ? "VMRESUME" : "VMLAUNCH"}.write(
			object_of_page(p.current)));
	Vmcs &vmcs = vmcs_at(p.current);
	if (vmcs.launched != static_cast<bool>(launched))
		fail(launched ? "VMRESUME of a VMCS not launched" : "VMLAUNCH of a VMCS launched");
	glue_host_state host;
	glue_host_state_read(&host);
	if ((vmcs.host_tr_base == host.tr_base) == bare || vmcs.host_gs_base != host.gs_base)
		fail("VM entry with another CPU's host state");
	vmcs.launched = true;
	return vmcs;
}

} // namespace

int glue_vmx_enter(kvmpp_gprs *, int launched)
{
	run_guest(enter(launched, false));
	return 0;
}

namespace kvmpp::explore
{

u16 current_vmcs()
{
	return object_of_page(here().current);
}

void enter_vmcs(int launched)
{
	enter(launched, true);
}

bool guest_uses_first_page()
{
	here().reason = 0;
	use_page(vmcs_at(here().current), 0, false);
	return here().reason != 0;
}

void note_exit(u32 reason, u32 interruption_info)
{
	here().reason = reason;
	here().interruption_info = interruption_info;
}

} // namespace kvmpp::explore

namespace kvmpp::insn
{

CpuidResult cpuid(u32 leaf, u32)
{
	if (leaf == 0x80000008)
		return {0x3027, 0, 0, 0};
	return {0, 0, 1u << 5, 0};
}

/* Long after the beginning, for what asks how long ago something was. */
u64 rdtsc()
{
	return 1'000'000;
}

/* The same on each CPU. */
u64 rdmsr(u32 msr)
{
	constexpr VmxRegisters capable = capable_registers();

	switch (msr) {
	case msr::feature_control:
		return capable.feature_control;
	case msr::vmx_basic:
		return capable.basic;
	case msr::vmx_true_pinbased_controls:
		return capable.pin;
	case msr::vmx_true_procbased_controls:
		return capable.primary;
	case msr::vmx_procbased_controls2:
		return capable.secondary | u64{secondary::enable_pml} << 32;
	case msr::vmx_true_exit_controls:
		return capable.exit;
	case msr::vmx_true_entry_controls:
		return capable.entry;
	case msr::vmx_ept_vpid_cap:
		return capable.ept_vpid;
	case msr::vmx_misc:
		return capable.misc;
	case msr::vmx_cr0_fixed0:
		return capable.cr0_fixed0;
	case msr::vmx_cr4_fixed0:
		return capable.cr4_fixed0;
	default:
		return 0;
	}
}

void wrmsr(u32 index, u64 value)
{
	if (index == x2apic::icr)
		write_icr(value);
}
void xsetbv(u32, u64)
{
}
void write_debug_registers(const u64 (&)[4])
{
}

u64 read_cr2()
{
	return 0;
}

void write_cr4(u64 value)
{
	if (here().vmx && !(value & cr4::vmxe))
		fail("CR4.VMXE cleared in VMX operation, which raises #GP");
	here().vmxe = value & cr4::vmxe;
}

u64 gdt_base()
{
	return gdt_of(this_cpu());
}

void fence_before_ipi()
{
	note_fence();
}

u64 read_cr0()
{
	return 0x80050033;
}

Result<> vmxon(HostPhys region)
{
	if (!explore::irqs_off())
		fail("VMXON with interrupts on");
	step({.what = "VMXON"});
	Processor &p = here();
	if (p.vmx)
		fail("VMXON in VMX operation");
	if (!p.vmxe || p.broken)
		return Errno::io;
	for (const Processor &other : state.processors)
		if (other.vmx && other.vmxon_region == region.value)
			fail("two CPUs share a VMXON region");
	p.vmx = true;
	p.vmxon_region = region.value;
	p.current = no_page;
	return {};
}

Result<> vmxoff()
{
	if (!check_vmx("VMXOFF"))
		return Errno::io;
	step({.what = "VMXOFF"});
	for (const Vmcs &v : state.vmcss)
		if (v.page != no_page && v.active_on == this_cpu())
			fail("VMXOFF with an active VMCS");
	here().vmx = false;
	return {};
}

Result<> vmclear(HostPhys address)
{
	if (!check_vmx("VMCLEAR"))
		return Errno::io;
	step(Op{.what = "VMCLEAR"}.write(object_of_page(address.value)));
	Vmcs &vmcs = vmcs_at(address.value);
	if (vmcs.active_on != nobody && vmcs.active_on != this_cpu())
		fail("VMCLEAR of a VMCS that is active on CPU %d", vmcs.active_on);
	vmcs.active_on = nobody;
	vmcs.cleared = true;
	vmcs.launched = false;
	if (here().current == address.value)
		here().current = no_page;
	return {};
}

Result<> vmptrld(HostPhys address)
{
	check_vmx("VMPTRLD");
	step(Op{.what = "VMPTRLD"}.write(object_of_page(address.value)));
	Vmcs &vmcs = vmcs_at(address.value);
	if (vmcs.active_on != nobody && vmcs.active_on != this_cpu())
		fail("VMPTRLD of a VMCS that is active on CPU %d", vmcs.active_on);
	if (!vmcs.cleared)
		fail("VMPTRLD of a VMCS that was never cleared");
	vmcs.active_on = this_cpu();
	here().current = address.value;
	return {};
}

/* VMREAD, VMWRITE and the invalidations touch what is this CPU's alone: checked, but no steps. */
bool vmread(u64 field, u64 &value)
{
	check_vmx("VMREAD");
	Processor &p = here();
	if (p.current == no_page)
		fail("VMREAD without a current VMCS");
	value = field == field::exit_reason.encoding                 ? p.reason
		: field == field::guest_physical_address.encoding    ? p.guest_phys
		: field == field::vm_exit_interruption_info.encoding ? p.interruption_info
		: field == field::guest_pml_index.encoding           ? vmcs_at(p.current).pml_index
								     : 0;
	return true;
}

bool vmwrite(u64 field, u64 value)
{
	check_vmx("VMWRITE");
	if (here().current == no_page)
		fail("VMWRITE without a current VMCS");
	Vmcs &vmcs = vmcs_at(here().current);
	if (field == field::ept_pointer.encoding)
		vmcs.ept_pointer = value;
	else if (field == field::pml_address.encoding)
		vmcs.pml_address = value;
	else if (field == field::guest_pml_index.encoding)
		vmcs.pml_index = value;
	else if (field == field::vm_entry_interruption_info.encoding)
		vmcs.event = value >> 31;
	else if (field == field::host_tr_base.encoding)
		vmcs.host_tr_base = value;
	else if (field == field::host_gs_base.encoding)
		vmcs.host_gs_base = value;
	return true;
}

Result<> invept(Invalidate type, u64 ept_pointer)
{
	check_vmx("INVEPT");
	drop_translations(here(), type == Invalidate::single_context ? ept_pointer : 0);
	return {};
}

Result<> invvpid(Invalidate, u16)
{
	check_vmx("INVVPID");
	return {};
}

} // namespace kvmpp::insn
