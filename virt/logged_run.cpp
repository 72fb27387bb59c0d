// SPDX-License-Identifier: GPL-2.0
#include "logged_run.hpp"

#include "arch/x86/vmx_vcpu.hpp"
#include "vm.hpp"

namespace kvmpp
{

LoggedRun::LoggedRun(Vm &vm, VcpuEntry &entry, VmxVcpu &vmx, VcpuState &state)
	: vm_(vm), entry_(entry), vmx_(vmx), state_(state)
{
	if (vm_.mmu().has_pml())
		entry_.logged_runs.begin();
}

LoggedRun::~LoggedRun()
{
	if (!vm_.mmu().has_pml())
		return;
	if (!is_lost_ && vmx_.has_page_log(state_)) {
		SrcuRead read(vm_.srcu());
		const MemslotTable &slots = vm_.slots(read);
		vmx_.take_page_log(state_, [&](u64 frame) { Mmu::log(slots, frame); });
	}
	entry_.logged_runs.end();
}

} // namespace kvmpp
