// SPDX-License-Identifier: GPL-2.0
/* Every rule, kept: clang has nothing to say. */
// expected-no-diagnostics
#include "arch/x86/vmx_cpu.hpp"
#include "virt/vm.hpp"

using namespace kvmpp;

bool fault(Vm &vm, LoadedVmcs &vmcs, Ept::TablePages &pages)
{
	{
		PreemptOff preempt;
		if (vmcs.cpu() != preempt.cpu())
			vmcs.clear(ClearCause::move);
		IrqOff irq;
		if (!vmcs.load(irq) || !VmxCpu::here(irq).is_on())
			return false;
	}
	SrcuRead read(vm.srcu());
	return vm.slots(read).find_id(0) && vm.mmu().fault(vm.slots(read), {0}, {}, pages);
}
