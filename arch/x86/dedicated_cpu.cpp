// SPDX-License-Identifier: GPL-2.0
#include "dedicated_cpu.hpp"

#include "cpu_insn.hpp"
#include "cpuid.hpp"
#include "events.hpp"
#include "vmcs_state.hpp"
#include "vmx_insn.hpp"

namespace kvmpp
{

namespace
{

u64 fpu_mask(const DedicatedCpu &cpu)
{
	return guest_features().xcr0 & cpu.registers.xcr0;
}

/* What the guest has in XCR0 is another value than what is there in the host. */
bool own_xcr0(const DedicatedCpu &cpu, const VcpuState &s)
{
	return (s.cr4 & cr4::osxsave) && s.xcr0 != cpu.registers.xcr0;
}

void load_guest_msrs(VcpuState &s, const VmxConfig &config)
{
	insn::wrmsr(msr::star, s.star);
	insn::wrmsr(msr::lstar, s.lstar);
	insn::wrmsr(msr::cstar, s.cstar);
	insn::wrmsr(msr::syscall_mask, s.syscall_mask);
	if (config.has_rdtscp())
		insn::wrmsr(msr::tsc_aux, s.tsc_aux);
	s.cpu_registers_dirty = false;
}

/* What the CPU has of the guest beside the VMCS and what a dirty bit tells of; and back. */
void load_rest(const DedicatedCpu &cpu, DedicatedRun &run)
{
	kvmpp_fpu_load(run.fpu_image, fpu_mask(cpu));
	insn::wrmsr(msr::kernel_gs_base, run.state->kernel_gs_base);
	run.reload = false;
}

void save_rest(const DedicatedCpu &cpu, DedicatedRun &run)
{
	constexpr unsigned xstate_bv = 512 / 8;
	constexpr u64 sse = 2;

	kvmpp_fpu_save(run.fpu_image, fpu_mask(cpu));
	/* XSAVE tells by this bit of the XMM registers only; Linux takes MXCSR by it, too. */
	if (fpu_mask(cpu))
		static_cast<u64 *>(run.fpu_image)[xstate_bv] |= sse;
	run.state->kernel_gs_base = insn::rdmsr(msr::kernel_gs_base);
	if (run.passthrough)
		run.state->cr8 = insn::rdmsr(x2apic::tpr) >> 4;
}

/* CR8 is the APIC's there, and user space may have set it since. */
void load_cr8(const VcpuState &s)
{
	if (insn::rdmsr(x2apic::tpr) >> 4 != s.cr8)
		insn::wrmsr(x2apic::tpr, s.cr8 << 4);
}

/* The vCPU's state comes into the CPU, where it stays: nobody else is here. */
void attach(DedicatedCpu &cpu, DedicatedRun &run, ActiveVmcs &vmcs)
{
	VcpuState &s = *run.state;

	write_controls(vmcs, *run.config, run.controls, s);
	write_host_state(vmcs, cpu.host_state);
	vmcs.write(field::host_cr3, cpu.cr3);
	vmcs.write(field::host_cr4, cpu.registers.cr4 | cr4::vmxe);
	vmcs.write(field::host_fs_base, 0);
	vmcs.write(field::host_rip, reinterpret_cast<u64>(kvmpp_dedicated_exit));
	/* What it has of an earlier time. */
	(void)insn::invept(insn::Invalidate::single_context, run.controls.ept_pointer);
	(void)insn::invvpid(insn::Invalidate::single_context, run.controls.vpid);
	load_rest(cpu, run);
	load_guest_msrs(s, *run.config);
	if (run.passthrough) {
		load_x2apic(s.apic.real);
		s.apic.sending = &cpu.sending;
	}
	run.x2apic_bitmap_in_use = false;
	run.attached = true;
}

void prepare_entry(const DedicatedCpu &cpu, DedicatedRun &run, ActiveVmcs &vmcs)
{
	VcpuState &s = *run.state;
	bool x2apic = s.apic.owned && (s.apic_base & apic_base_bit::extended);

	if (x2apic != run.x2apic_bitmap_in_use) {
		vmcs.write(field::msr_bitmap,
			   x2apic ? run.x2apic_bitmap.value : run.msr_bitmap.value);
		run.x2apic_bitmap_in_use = x2apic;
	}
	if (s.flush_tlb) {
		(void)insn::invvpid(insn::Invalidate::single_context, run.controls.vpid);
		s.flush_tlb = false;
	}
	if (s.cpu_registers_dirty)
		load_guest_msrs(s, *run.config);
	/* What is injected wakes a guest that has halted, and so does who sets it elsewhere. */
	bool elsewhere = s.dirty.has(Group::rip);
	if (s.is_due())
		write_due(vmcs, s);
	write_registers(vmcs, s, *run.config);
	if (s.delivering != Delivery::none || elsewhere)
		vmcs.write(field::guest_activity_state, 0);
	if (s.effective_dr7() & dr7::enabled)
		insn::write_debug_registers(s.effective_dr());
	if (own_xcr0(cpu, s))
		insn::xsetbv(0, s.xcr0);
}

void after_exit(DedicatedCpu &cpu, DedicatedRun &run, ActiveVmcs &vmcs)
{
	VcpuState &s = *run.state;

	run.exit.cpu = cpu.cpu;
	ReadExit read = read_exit(vmcs, run.exit);
	if (!read.guest_ran) {
		cancel_delivery(vmcs, s);
		return;
	}
	vmcs.set_launched();
	end_delivery(s);
	read_state_anew(vmcs, s, read.state);
	cpu.exits[read.row]++;
}

/* True: it has been seen to, and the guest goes on. */
bool handle_here(DedicatedRun &run)
{
	const Exit &exit = run.exit;

	run.next = Next::needs_linux;
	if (exit.entry_failed())
		return false;
	if (exit.reason() == ExitReason::external_interrupt) {
		kvmpp_take_interrupts();
		return true;
	}
	run.next = handle_bare(*run.state, *run.identity, exit);
	return run.next == Next::resume && !run.state->debug.step_due;
}

} // namespace

Result<ActiveVmcs> LoadedVmcs::load_dedicated(CpuId cpu)
{
	if (!cleared_once_) {
		/* As load(). */
		if (Result<> r = insn::vmclear(phys_); !r)
			return r.error();
		cleared_once_ = true;
	}
	cpu_.store(cpu.value, std::memory_order_relaxed);
	if (Result<> r = insn::vmptrld(phys_); !r)
		return r.error();
	return ActiveVmcs(*this);
}

void LoadedVmcs::clear_dedicated()
{
	(void)insn::vmclear(phys_);
	launched_ = false;
	cpu_.store(-1, std::memory_order_release);
}

Answer run_dedicated(DedicatedCpu &cpu, DedicatedRun &run)
{
	VcpuState &s = *run.state;
	Result<ActiveVmcs> active = run.vmcs->load_dedicated(cpu.cpu);

	if (!active)
		return Answer::failed;
	ActiveVmcs &vmcs = *active;
	if (!run.attached)
		attach(cpu, run, vmcs);
	else if (run.reload)
		load_rest(cpu, run);
	if (run.passthrough)
		load_cr8(s);

	Answer answer = Answer::none;
	while (answer == Answer::none) {
		prepare_entry(cpu, run, vmcs);
		if (vmcs.failed()) {
			answer = Answer::failed;
			break;
		}
		run.kick->enter_dedicated(cpu.cpu);
		int outcome = kvmpp_dedicated_enter(&s, vmcs.launched(), &run.kick->asked());
		run.kick->leave_dedicated();
		if (own_xcr0(cpu, s))
			insn::xsetbv(0, cpu.registers.xcr0);

		if (outcome == 0) {
			after_exit(cpu, run, vmcs);
			if (run.exit.is_nmi()) {
				/* The next kick is to find us at any instruction from here on. */
				cpu.note_nmi();
				deliver_again(s, run.exit);
				kvmpp_unblock_nmis();
			} else if (run.exit.is_machine_check()) {
				/* The next one would reset the machine. The banks are Linux's to read. */
				insn::wrmsr(msr::mcg_status, 0);
				answer = Answer::died;
			} else if (handle_here(run)) {
				cpu.stayed.store(cpu.stayed.load(std::memory_order_relaxed) + 1,
						 std::memory_order_relaxed);
			} else {
				answer = Answer::exited;
			}
		} else if (outcome == 1) {
			run.exit.cpu = cpu.cpu;
			run.exit.renew(vmcs.read(field::vm_instruction_error));
			cancel_delivery(vmcs, s);
			answer = Answer::vmfail;
		} else {
			cancel_delivery(vmcs, s);
		}
		Requests asked = run.kick->take();
		if (asked.has(Request::flush_ept))
			(void)insn::invept(insn::Invalidate::single_context,
					   run.controls.ept_pointer);
		bool leaves = asked.is_for_thread() || cpu.crash.load(std::memory_order_relaxed);
		if (leaves && answer == Answer::none)
			answer = Answer::interrupted;
	}
	/* The thread cannot read what is here. */
	if (run.controls.secondary & secondary::enable_pml)
		read_page_log(vmcs, s);
	read_state(vmcs, s, Groups::all());
	save_rest(cpu, run);
	return vmcs.failed() ? Answer::failed : answer;
}

void detach_dedicated(DedicatedCpu &cpu, DedicatedRun &run)
{
	if (!run.attached)
		return;
	if (Result<ActiveVmcs> vmcs = run.vmcs->load_dedicated(cpu.cpu); vmcs)
		run.left.activity = vmcs->read(field::guest_activity_state);
	if (run.passthrough)
		save_x2apic(run.left.apic);
	run.left.valid = true;
	run.vmcs->clear_dedicated();
	run.attached = false;
}

} // namespace kvmpp
