// SPDX-License-Identifier: GPL-2.0
/* No IPI is waited for with interrupts off: the other CPU may be waiting for this one's. */
#include "arch/x86/loaded_vmcs.hpp"
#include "virt/vcpu_table.hpp"

using namespace kvmpp;

void directly(void (*function)(void *), glue_cpumask *mask)
{
	IrqOff irq;

	// expected-error@+1 {{'glue_call_on_cpu' while context 'irqs_off' is held}}
	(void)glue_call_on_cpu(0, function, nullptr);
	// expected-error@+1 {{'glue_call_on_all_cpus' while context 'irqs_off' is held}}
	glue_call_on_all_cpus(function, nullptr);
	// expected-error@+1 {{'glue_call_on_cpumask' while context 'irqs_off' is held}}
	glue_call_on_cpumask(mask, function, nullptr);
}

void one_call_up(LoadedVmcs &vmcs, VcpuTable &table, CpuMask &cpus)
{
	IrqOff irq;

	// expected-error@+1 {{'clear' while context 'irqs_off' is held}}
	vmcs.clear(ClearCause::move);
	// expected-error@+1 {{'ask_all' while context 'irqs_off' is held}}
	table.ask_all(Request::flush_ept, cpus);
}

/* It is the caller who has switched them off. */
void LoadedVmcs::clear_here(const IrqOff &, ClearCause cause)
{
	// expected-error@+1 {{'clear' while context 'irqs_off' is held}}
	clear(cause);
}
