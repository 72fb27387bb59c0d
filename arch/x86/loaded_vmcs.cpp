// SPDX-License-Identifier: GPL-2.0
#include "loaded_vmcs.hpp"

#include "vmx_cpu.hpp"

#include <linux_glue/log.h>
#include <linux_glue/speculation.h>
#include <linux_glue/trace.h>

namespace kvmpp
{

const char *clear_cause_name(ClearCause cause)
{
	static constexpr const char *names[] = {"move", "free", "offline", "put", "crash"};

	static_assert(sizeof(names) / sizeof(*names) == clear_causes);
	return names[static_cast<unsigned>(cause)];
}

Result<> ActiveVmcs::ok() const
{
	if (failed_ == 0)
		return {};
	glue_log_ratelimited("access to VMCS field %#x failed", failed_ & ~failed_bit);
	return Errno::io;
}

Result<> LoadedVmcs::create(u32 revision, const VmcsOwner &owner)
{
	page_ = Page::create();
	if (!page_)
		return Errno::nomem;
	*page_.as<u32>() = revision;
	phys_ = page_.phys();
	owner_ = owner;
	return {};
}

LoadedVmcs::~LoadedVmcs()
{
	clear(ClearCause::free);
}

Result<ActiveVmcs> LoadedVmcs::load(const IrqOff &irq)
{
	VmxCpu &here = VmxCpu::here(irq);

	if (Result<> on = here.get(irq); !on)
		return on.error();
	/* Pairs with the release in clear_here(): whoever sees "none" sees the list without it. */
	int cpu = cpu_.load(std::memory_order_acquire);
	if (cpu >= 0 && cpu != irq.cpu().value)
		return Errno::again;
	if (cpu < 0) {
		if (!cleared_once_) {
			/*
			 * "Software Use of Virtual-Machine Control Structures": first VMCLEAR, then
			 * VMPTRLD.
			 */
			if (Result<> r = insn::vmclear(phys_); !r)
				return r.error();
			cleared_once_ = true;
		}
		/* On the list before it is active: the sweep after a crash comes by NMI. */
		here.link(*this);
		cpu_.store(irq.cpu().value, std::memory_order_relaxed);
		glue_trace_vmcs_load(owner_.process, owner_.vm, owner_.vcpu);
	}
	if (here.current_ != this) {
		if (Result<> r = insn::vmptrld(phys_); !r)
			return r.error();
		here.current_ = this;
		glue_branch_predictor_barrier();
	}
	return ActiveVmcs(*this);
}

void LoadedVmcs::clear_here(const IrqOff &irq, ClearCause cause)
{
	/* It moved, or was swept, while the IPI was on its way. */
	if (cpu_.load(std::memory_order_relaxed) != irq.cpu().value)
		return;

	VmxCpu &here = VmxCpu::here(irq);
	/* Active no longer, then off the list: see load(). */
	if (!insn::vmclear(phys_))
		glue_log_ratelimited("VMCLEAR failed on CPU %d", irq.cpu().value);
	here.unlink(*this);
	here.clears_[static_cast<unsigned>(cause)]++;
	launched_ = false;
	glue_trace_vmcs_clear(owner_.process, owner_.vm, owner_.vcpu, clear_cause_name(cause));
	/* Pairs with the acquire in load(): "none" may be seen only after the unlinking. */
	cpu_.store(-1, std::memory_order_release);
}

void LoadedVmcs::clear(ClearCause cause)
{
	struct Request {
		LoadedVmcs *vmcs;
		ClearCause cause;
	} request{this, cause};
	CpuId on = cpu();

	if (on.is_none())
		return;
	/*
	 * A CPU that is no longer online has swept its VMCSs on the way: nothing is left to clear.
	 */
	(void)glue_call_on_cpu(
		on.value,
		[](void *argument) {
			auto *r = static_cast<Request *>(argument);
			IrqOff irq;
			r->vmcs->clear_here(irq, r->cause);
		},
		&request);
}

} // namespace kvmpp
