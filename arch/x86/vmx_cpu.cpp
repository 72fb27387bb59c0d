// SPDX-License-Identifier: GPL-2.0
#include "vmx_cpu.hpp"

#include "cpu_insn.hpp"
#include "vmx_insn.hpp"
#include "x86.hpp"

#include <linux_glue/cpu.h>
#include <linux_glue/log.h>
#include <linux_glue/trace.h>
#include <linux_glue/x86.h>

namespace kvmpp
{

constinit VmxCpu *VmxCpu::all_ = nullptr;
constinit const VmxConfig *VmxCpu::config_ = nullptr;
constinit bool VmxCpu::exclusive_ = true;

Result<> VmxCpu::create_all(const VmxConfig &config, bool exclusive)
{
	int count = glue_nr_cpus();
	auto *cpus = static_cast<VmxCpu *>(glue_zalloc(count * sizeof(VmxCpu)));

	if (!cpus)
		return Errno::nomem;
	all_ = cpus;
	config_ = &config;
	exclusive_ = exclusive;
	for (int i = 0; i < count; i++)
		new (&cpus[i]) VmxCpu;
	for (int i = 0; i < count; i++) {
		cpus[i].vmxon_region_ = Page::create();
		if (!cpus[i].vmxon_region_) {
			destroy_all();
			return Errno::nomem;
		}
		*cpus[i].vmxon_region_.as<u32>() = config.revision;
	}
	return {};
}

void VmxCpu::destroy_all()
{
	for (int i = 0; i < glue_nr_cpus(); i++)
		all_[i].~VmxCpu();
	glue_free(all_);
	all_ = nullptr;
}

bool VmxCpu::vmx_on(const IrqOff &irq, Refusal &refusal)
{
	if (glue_vmxe_set() != 0) {
		refusal = {Errno::busy, "CR4.VMXE is set: another hypervisor is in VMX operation"};
		return false;
	}
	glue_intel_pt_vmx(1);
	if (!insn::vmxon(vmxon_region_.phys())) {
		glue_intel_pt_vmx(0);
		glue_vmxe_clear();
		refusal = {Errno::io, "VMXON failed"};
		return false;
	}
	/* Nobody else is in VMX operation, who could have a guest's values there. */
	host_star_ = insn::rdmsr(msr::star);
	host_lstar_ = insn::rdmsr(msr::lstar);
	host_cstar_ = insn::rdmsr(msr::cstar);
	host_syscall_mask_ = insn::rdmsr(msr::syscall_mask);
	if (config_->has_rdtscp())
		host_tsc_aux_ = insn::rdmsr(msr::tsc_aux);
	on_ = true;
	enables_++;
	glue_trace_vmx_on();
	/* What guests of an earlier time in VMX operation left in the TLB. */
	(void)insn::invept(insn::Invalidate::all_contexts, 0);
	(void)insn::invvpid(insn::Invalidate::all_contexts, 0);
	return true;
}

void VmxCpu::vmx_off(const IrqOff &irq, ClearCause cause)
{
	if (!on_)
		return;
	/*
	 * An uncleared VMCS could be written back over memory that has become somebody else's.
	 * (Clang does not take a context into a lambda; the guard goes in with it.)
	 */
	loaded_.for_each([&](LoadedVmcs &vmcs)
				 NO_THREAD_SAFETY_ANALYSIS { vmcs.clear_here(irq, cause); });
	if (!insn::vmxoff())
		glue_log_ratelimited("VMXOFF failed on CPU %d", irq.cpu().value);
	on_ = false;
	disables_++;
	glue_trace_vmx_off();
	glue_intel_pt_vmx(0);
	glue_vmxe_clear();
}

bool VmxCpu::enable(const IrqOff &irq, Refusal &refusal)
{
	if (enabled_)
		return true;

	VmxConfig own;
	if (!vmx_configure(VmxRegisters::read(irq), own, refusal))
		return false;
	if (!(own == *config_)) {
		refusal = {Errno::io, "its VMX differs from that of the first CPU"};
		return false;
	}
	if (exclusive_ && !vmx_on(irq, refusal))
		return false;
	enabled_ = true;
	return true;
}

void VmxCpu::disable(const IrqOff &irq)
{
	enabled_ = false;
	vmx_off(irq, ClearCause::offline);
}

Result<> VmxCpu::get_slow(const IrqOff &irq)
{
	Refusal refusal;

	if (!enabled_)
		return Errno::again;
	return vmx_on(irq, refusal) ? Result<>() : refusal.error;
}

void VmxCpu::put(const IrqOff &irq)
{
	if (!exclusive_)
		vmx_off(irq, ClearCause::put);
}

void VmxCpu::link(LoadedVmcs &vmcs)
{
	loaded_.push_front(vmcs);
	loaded_count_++;
}

void VmxCpu::unlink(LoadedVmcs &vmcs)
{
	vmcs.unlink();
	loaded_count_--;
	/* A VMCS at the same address later must be loaded again. */
	if (current_ == &vmcs)
		current_ = nullptr;
}

void VmxCpu::crash_here()
{
	/* What is noted of this CPU may be wrong in the middle of a change; the register is not. */
	if (!glue_vmxe_is_set())
		return;
	VmxCpu &here = all_[glue_this_cpu()];

	here.loaded_.for_each([&](LoadedVmcs &vmcs) {
		(void)insn::vmclear(vmcs.phys_);
		here.clears_[static_cast<unsigned>(ClearCause::crash)]++;
	});
	(void)insn::vmxoff();
	glue_vmxe_clear();
}

void VmxCpu::restore_host_msrs(bool syscall, bool tsc_aux) const
{
	if (syscall) {
		insn::wrmsr(msr::star, host_star_);
		insn::wrmsr(msr::lstar, host_lstar_);
		insn::wrmsr(msr::cstar, host_cstar_);
		insn::wrmsr(msr::syscall_mask, host_syscall_mask_);
	}
	if (tsc_aux)
		insn::wrmsr(msr::tsc_aux, host_tsc_aux_);
}

} // namespace kvmpp
