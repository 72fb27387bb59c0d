// SPDX-License-Identifier: GPL-2.0
#include "vmx_vcpu.hpp"

#include "cpu_insn.hpp"
#include "cpuid.hpp"
#include "dedicated_cpu.hpp"
#include "events.hpp"
#include "virt/irqchip/irqchip.hpp"
#include "virt/irqchip/lapic.hpp"
#include "vmcs_state.hpp"
#include "vmx_cpu.hpp"
#include "vpid.hpp"
#include "x2apic.hpp"

#include <linux/kvm.h>
#include <linux_glue/parameters.h>
#include <linux_glue/speculation.h>
#include <linux_glue/x86.h>

#include <cstring>

extern "C" const char kvmpp_vmx_exit[]; /* entry.S */

namespace kvmpp
{

namespace
{

/* On MSRs that the guest changes without an exit; each comes and goes with the VMCS or the vCPU. */
constexpr u32 guests_own_msrs[] = {
	msr::sysenter_cs, msr::sysenter_esp, msr::sysenter_eip,
	msr::fs_base,     msr::gs_base,      msr::kernel_gs_base,
};

/* The guest's XCR0, where it is not @in_cpu; what is there then. */
u64 load_xcr0(const VcpuState &s, u64 host, u64 in_cpu)
{
	u64 wanted = s.cr4 & cr4::osxsave ? s.xcr0 : host;

	if (wanted != in_cpu)
		insn::xsetbv(0, wanted);
	return wanted;
}

} // namespace

Result<> VmxVcpu::create(const VmcsOwner &owner)
{
	Result<u16> vpid = vpid_alloc();
	if (!vpid)
		return vpid.error();
	vpid_ = *vpid;

	msr_bitmap_ = Page::create();
	if (!msr_bitmap_)
		return Errno::nomem;
	u8 *bitmap = msr_bitmap_.as<u8>();
	std::memset(bitmap, 0xff, page_size);
	for (u32 msr : guests_own_msrs)
		allow_msr(bitmap, msr, true, true);

	if (ept_.has_pml()) {
		page_log_ = Page::create();
		if (!page_log_)
			return Errno::nomem;
	}
	Result<unsigned> vmcs = vmcss_.add(config_.revision, owner);
	return vmcs ? Result<>() : vmcs.error();
}

VmxVcpu::~VmxVcpu()
{
	if (vpid_)
		vpid_free(vpid_);
}

VmcsControls VmxVcpu::controls(const VcpuState &s) const
{
	VmcsControls c{.pin = config_.pin,
		       .primary = config_.primary,
		       .secondary = config_.secondary,
		       .ple_gap = glue_parameters.ple_gap,
		       .ple_window = glue_parameters.ple_window,
		       .ept_pointer = ept_.pointer(),
		       .msr_bitmap = msr_bitmap_.phys().value,
		       .vpid = vpid_};

	if (page_log_)
		c.pml_address = page_log_.phys().value;
	else
		c.secondary &= ~secondary::enable_pml;
	if (c.ple_gap == 0)
		c.secondary &= ~secondary::pause_loop_exiting;
	if (!s.apic.in_kernel)
		c.pin &= ~pin::preemption_timer;
	/* What CPUID does not offer raises #UD. */
	if (!s.model.rdtscp && !s.model.rdpid)
		c.secondary &= ~secondary::enable_rdtscp;
	if (!s.model.invpcid)
		c.secondary &= ~secondary::enable_invpcid;
	return c;
}

void VmxVcpu::load_guest_msrs(const IrqOff &irq, VcpuState &s)
{
	/* Without EFER.SCE there is no SYSCALL to see the first four. */
	if (s.efer & efer::sce) {
		insn::wrmsr(msr::star, s.star);
		insn::wrmsr(msr::lstar, s.lstar);
		insn::wrmsr(msr::cstar, s.cstar);
		insn::wrmsr(msr::syscall_mask, s.syscall_mask);
		syscall_msrs_loaded_ = true;
	}
	if (config_.has_rdtscp())
		insn::wrmsr(msr::tsc_aux, s.tsc_aux);
	s.cpu_registers_dirty = false;
}

/* From the thread's state to the guest's. */
void VmxVcpu::enter_guest(const IrqOff &irq, VcpuState &s)
{
	if (in_guest_state_)
		return;
	in_guest_state_ = true;
	glue_thread_state_save(&thread_);
	insn::wrmsr(msr::kernel_gs_base, s.kernel_gs_base);
	load_guest_msrs(irq, s);
}

void VmxVcpu::leave_guest(const IrqOff &irq, VcpuState &s)
{
	VmxCpu &here = VmxCpu::here(irq);

	if (in_guest_state_) {
		in_guest_state_ = false;
		s.kernel_gs_base = insn::rdmsr(msr::kernel_gs_base);
		here.restore_host_msrs(syscall_msrs_loaded_, config_.has_rdtscp());
		syscall_msrs_loaded_ = false;
		glue_thread_state_restore(&thread_);
	}
	here.put(irq);
}

/* "VMX-Preemption Timer": it counts while the guest runs only, so each entry needs it anew. */
void VmxVcpu::set_preemption_timer(ActiveVmcs &vmcs)
{
	u64 target = lapic_->timer().tsc_target(), now = insn::rdtsc();

	timer_runs_ = target != LapicTimer::never;
	if (target <= now) {
		vmcs.write(field::preemption_timer_value, 0);
		return;
	}
	/* One more: it counts when the bit changes, which the first time may be at once. */
	u64 counts = ((target - now - 1) >> config_.preemption_timer_bit) + 2;
	vmcs.write(field::preemption_timer_value, counts < longest_preemption_timer
							  ? static_cast<u32>(counts)
							  : longest_preemption_timer);
}

/* What seldom is to be done before an entry. */
void VmxVcpu::do_what_is_due(const IrqOff &irq, ActiveVmcs &vmcs, VcpuState &s)
{
	if (s.cpu_registers_dirty)
		load_guest_msrs(irq, s);
	if (s.flush_tlb) {
		(void)insn::invvpid(insn::Invalidate::single_context, vpid_);
		s.flush_tlb = false;
	}
	write_due(vmcs, s);
}

/* VM entry and VM exit with what is not to be done each time around them. */
int VmxVcpu::enter_with_care(VmxCpu &here, bool perf_switches, ActiveVmcs &vmcs, VcpuState &s)
{
	if (glue_l1d_flush(std::exchange(l1d_flush_due_, false)))
		here.count_l1d_flush();
	if (perf_switches)
		glue_perf_enter_guest();
	int failed = glue_vmx_enter(&s, vmcs.launched());
	if (perf_switches)
		glue_perf_leave_guest();
	return failed;
}

/* After a VM exit: what it says, and its handler, where that needs nothing of Linux. */
[[gnu::always_inline]] inline Next VmxVcpu::take_exit(VmxCpu &here, ActiveVmcs &vmcs, VcpuState &s,
						      const VcpuIdentity &identity, Exit &exit)
{
	ReadExit read = read_exit(vmcs, exit);

	if (!read.guest_ran) [[unlikely]] {
		here.count_exit(exit_row(static_cast<u32>(exit.reason())));
		return Next::needs_linux;
	}
	here.count_exit(read.row);
	vmcs.set_launched();
	end_delivery(s);
	read_state_anew(vmcs, s, read.state);
	return vmcs.failed() ? Next::needs_linux : handle_bare(s, identity, exit);
}

/* What has been left for user space, if it is a write to the local APIC that can be done here and now. */
bool VmxVcpu::write_apic(const IrqOff &irq, VcpuState &s)
{
	if (s.user.reason != KVM_EXIT_X86_WRMSR ||
	    !irqchip_->write_at_once(*lapic_, s.user.msr.index, s.user.msr.data, s.tsc_offset))
		return false;
	s.pending.kind = PendingAccess::Kind::none;
	s.skip_instruction(s.pending.instruction_length);
	return true;
}

/*
 * Into the guest, again and again as long as nobody but this code is needed: what is the thread's in the CPU comes
 * back once, after the last exit. An interrupt of the host's ends it, since it ends the guest's run.
 */
[[gnu::always_inline]] inline Entry VmxVcpu::run(const IrqOff &irq, ActiveVmcs &vmcs, VcpuState &s,
						 const VcpuIdentity &identity, Exit &exit,
						 Next &next, KickTarget &kick)
{
	VmxCpu &here = VmxCpu::here(irq);
	const u64 host_xcr0 = guest_features().xcr0 ? glue_host_xcr0() : 0;
	const u64 debugctl = glue_debugctl();
	/* Events come and go with interrupts on. */
	const bool perf_switches = glue_perf_switches();
	const volatile glue_u64 &thread_flags = *glue_thread_flags();
	Entry entry = Entry::asked;

	/* With the host's XCR0, which is what Linux has saved it with. */
	glue_guest_fpu_restore();
	u64 xcr0 = load_xcr0(s, host_xcr0, host_xcr0);
	if (s.effective_dr7() & dr7::enabled)
		insn::write_debug_registers(s.effective_dr());
	glue_guest_timing_enter();
	exit.cpu = irq.cpu();

	Requests asked = kick.enter(irq);
	/* Interrupts, which may have brought what is not the guest's into the L1 data cache, come no more. */
	const bool always = perf_switches || glue_flushes_l1d_each_time();
	for (bool with_care = true;; with_care = always) {
		if (asked.has(Request::flush_ept))
			ept_.invalidate_here(irq);
		if (asked.is_for_thread())
			break;
		if (s.is_due()) [[unlikely]] {
			do_what_is_due(irq, vmcs, s);
			xcr0 = load_xcr0(s, host_xcr0, xcr0);
		}
		if (lapic_ && (timer_runs_ || lapic_->timer().tsc_target() != LapicTimer::never))
			set_preemption_timer(vmcs);
		write_registers(vmcs, s, config_);
		if (vmcs.failed())
			break;
		int failed;
		if (with_care) [[unlikely]] {
			failed = enter_with_care(here, perf_switches, vmcs, s);
			entry = Entry::exited;
		} else {
			failed = glue_vmx_enter(&s, vmcs.launched());
		}
		if (failed) [[unlikely]] {
			exit.renew(vmcs.read(field::vm_instruction_error));
			entry = Entry::vmfail;
			break;
		}
		next = take_exit(here, vmcs, s, identity, exit);
		if (next != Next::resume) {
			if (next != Next::user || !lapic_ || !write_apic(irq, s))
				break;
			next = Next::resume;
			if (lapic_->has_work())
				break;
		}
		if (s.debug.step_due || (thread_flags & GLUE_WORK_FLAGS))
			break;
		/* Who asks from now on sends an interrupt, which is pending at the entry: no barrier. */
		asked = kick.take();
	}
	kick.leave(irq);

	/* Of all passes: a full one ends the last. */
	if (page_log_)
		read_page_log(vmcs, s);
	if (xcr0 != host_xcr0)
		insn::xsetbv(0, host_xcr0);
	glue_debug_registers_restore();
	glue_debugctl_restore(debugctl);
	/* Linux's to handle, before interrupts come: NMIs are blocked until the handler's IRET. */
	if (entry == Entry::exited && next == Next::needs_linux) {
		if (exit.is_nmi())
			glue_deliver_nmi();
		if (exit.is_machine_check())
			glue_deliver_machine_check();
		if (exit.is_interrupt())
			entry = Entry::interrupted;
	}
	/* Only an entry that succeeds takes the event out of the VMCS. */
	cancel_delivery(vmcs, s);
	return entry;
}

Result<Entry> VmxVcpu::enter(VcpuState &s, const VcpuIdentity &identity, Exit &exit, Next &next,
			     KickTarget &kick)
{
	PreemptOff preempt;
	VcpuVmcs &own = vmcss_.current();
	Entry entry;
	Result<> accesses;

	own.leave_other_cpu(preempt);
	{
		IrqOff irq;

		if (*glue_thread_flags() & GLUE_WORK_FLAGS)
			return Entry::work;
		Result<ActiveVmcs> active = own.load(irq);
		if (!active) {
			if (active.error() == Errno::again)
				return Entry::vmx_off;
			return active.error();
		}
		ActiveVmcs &vmcs = *active;
		if (!own.set_up) {
			write_controls(vmcs, config_, controls(s), s);
			vmcs.write(field::host_rip, reinterpret_cast<u64>(kvmpp_vmx_exit));
		}
		if (own.host_cpu != irq.cpu()) {
			glue_host_state host;

			glue_host_state_read(&host);
			write_host_state(vmcs, host);
			own.host_cpu = irq.cpu();
		}
		if (last_cpu_ != irq.cpu()) {
			/* It has missed what was asked of the vCPU elsewhere. */
			ept_.invalidate_here(irq);
			(void)insn::invvpid(insn::Invalidate::single_context, vpid_);
			last_cpu_ = irq.cpu();
		}
		enter_guest(irq, s);
		if (u64 cr3 = glue_host_cr3(); cr3 != own.host_cr3 || !own.set_up)
			vmcs.write(field::host_cr3, own.host_cr3 = cr3);
		if (u64 cr4 = glue_host_cr4(); cr4 != own.host_cr4 || !own.set_up)
			vmcs.write(field::host_cr4, own.host_cr4 = cr4);
		if (u64 base = thread_.fs_base; base != own.host_fs_base || !own.set_up)
			vmcs.write(field::host_fs_base, own.host_fs_base = base);
		own.set_up = true;

		entry = run(irq, vmcs, s, identity, exit, next, kick);
		s.paravirtual.between_instructions = entry == Entry::interrupted;
		accesses = vmcs.ok();
		if (!accesses) {
			own.set_up = false;
			own.host_cpu = {};
		}
	}
	/* The interrupt that caused the exit has been taken, its tick charged to the guest. */
	IrqOff irq;
	glue_guest_timing_exit();
	if (!accesses)
		return accesses.error();
	return entry;
}

Result<> VmxVcpu::lend(VcpuState &s, DedicatedRun &run)
{
	run.passthrough = run.apic_is_free && run.apic_wanted.load(std::memory_order_relaxed);
	/* From here on it can be read by that CPU only. */
	if (Result<> r = fetch(s, Groups::all()); !r)
		return r;
	vmcss_.current().clear(ClearCause::move);
	if (!x2apic_bitmap_) {
		x2apic_bitmap_ = Page::create();
		if (!x2apic_bitmap_)
			return Errno::nomem;
		std::memcpy(x2apic_bitmap_.as<u8>(), msr_bitmap_.as<u8>(), page_size);
		allow_x2apic(x2apic_bitmap_.as<u8>());
	}
	run.vmcs = &vmcss_.current();
	run.config = &config_;
	run.controls = controls(s);
	run.msr_bitmap = msr_bitmap_.phys();
	run.x2apic_bitmap = x2apic_bitmap_.phys();
	/* It has nobody to give its CPU to, and Linux watches its timer. */
	run.controls.secondary &= ~secondary::pause_loop_exiting;
	run.controls.pin &= ~pin::preemption_timer;
	if (run.passthrough) {
		run.controls.pin &= ~pin::external_interrupt_exiting;
		run.controls.primary &= ~(primary::hlt_exiting | primary::cr8_load_exiting |
					  primary::cr8_store_exiting);
	}
	return {};
}

void VmxVcpu::take_back(VcpuState &s, DedicatedRun &run)
{
	vmcss_.current().set_up = false;
	vmcss_.current().host_cpu = {};
	last_cpu_ = {};
	bool had_apic = std::exchange(s.apic.owned, false);
	s.apic.sending = nullptr;
	run.attached = false;
	if (!run.left.valid)
		return;
	run.left.valid = false;
	if (had_apic)
		s.apic.real = run.left.apic;
}

Result<> VmxVcpu::fetch_invalid(VcpuState &s, Groups groups)
{
	for (;;) {
		{
			PreemptOff preempt;

			vmcss_.current().leave_other_cpu(preempt);
			IrqOff irq;
			Result<ActiveVmcs> active = vmcss_.current().load(irq);
			if (active)
				read_state(*active, s, groups);
			/* Else the thread does it when it leaves the CPU. */
			if (!in_guest_state_)
				VmxCpu::here(irq).put(irq);
			if (active)
				return active->ok();
			if (active.error() != Errno::again)
				return active.error();
		}
		if (glue_signal_pending())
			return Errno::intr;
		glue_wait_a_tick();
	}
}

} // namespace kvmpp
