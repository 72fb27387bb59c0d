// SPDX-License-Identifier: GPL-2.0
#include "loaded_vmcs.hpp"

#include "vmx_cpu.hpp"

#include <linux_glue/log.h>

namespace kvmpp
{

Result<> ActiveVmcs::ok() const
{
	if (failed_ == 0)
		return {};
	glue_log_ratelimited("access to VMCS field %#x failed", failed_ & ~failed_bit);
	return Errno::io;
}

bool ActiveVmcs::launched() const
{
	return vmcs_->launched_;
}

void ActiveVmcs::set_launched()
{
	vmcs_->launched_ = true;
}

Result<> LoadedVmcs::create(u32 revision)
{
	page_ = Page::create();
	if (!page_)
		return Errno::nomem;
	*page_.as<u32>() = revision;
	return {};
}

LoadedVmcs::~LoadedVmcs()
{
	clear(ClearCause::free);
}

Result<ActiveVmcs> LoadedVmcs::load(const IrqOff &irq)
{
	VmxCpu &here = VmxCpu::here(irq);

	if (!here.is_on())
		return Errno::again;
	/* Pairs with the release in clear_here(): whoever sees "none" sees the list without it. */
	int cpu = cpu_.load(std::memory_order_acquire);
	if (cpu >= 0 && cpu != irq.cpu().value)
		return Errno::again;
	if (cpu < 0 && !cleared_once_) {
		/*
		 * "Software Use of Virtual-Machine Control Structures": first VMCLEAR, then
		 * VMPTRLD.
		 */
		if (Result<> r = insn::vmclear(page_.phys()); !r)
			return r.error();
		cleared_once_ = true;
	}
	if (here.current_ != this) {
		if (Result<> r = insn::vmptrld(page_.phys()); !r)
			return r.error();
		here.current_ = this;
	}
	if (cpu < 0) {
		/* Interrupts have been off since VMPTRLD: no sweep has missed it. */
		here.loaded_.push_front(*this);
		here.loaded_count_++;
		moved_ = true;
		cpu_.store(irq.cpu().value, std::memory_order_relaxed);
	}
	return ActiveVmcs(*this);
}

void LoadedVmcs::clear_here(const IrqOff &irq, ClearCause cause)
{
	/* It moved, or was swept, while the IPI was on its way. */
	if (cpu_.load(std::memory_order_relaxed) != irq.cpu().value)
		return;

	VmxCpu &here = VmxCpu::here(irq);
	if (!insn::vmclear(page_.phys()))
		glue_log_ratelimited("VMCLEAR failed on CPU %d", irq.cpu().value);
	/* A VMCS at the same address later must be loaded again. */
	if (here.current_ == this)
		here.current_ = nullptr;
	unlink();
	here.loaded_count_--;
	launched_ = false;
	here.clears_[static_cast<unsigned>(cause)]++;
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
