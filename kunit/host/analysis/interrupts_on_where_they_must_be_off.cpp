// SPDX-License-Identifier: GPL-2.0
/* A CPU's record and its VMCSs are touched by that CPU only, with interrupts off. */
#include "arch/x86/vmx_cpu.hpp"

using namespace kvmpp;

/* A parameter that the declaration does not mention to clang. */
bool undeclared(const IrqOff &irq)
{
	// expected-error@+1 {{'cpu' requires holding context 'irqs_off' exclusively}}
	int cpu = irq.cpu().value;
	// expected-error@+1 {{'here' requires holding context 'irqs_off' exclusively}}
	return cpu && VmxCpu::here(irq).is_on();
}

bool without_a_guard(LoadedVmcs &vmcs)
{
	PreemptOff preempt;

	// expected-error@+1 {{no viable conversion from 'kvmpp::PreemptOff' to 'const kvmpp::IrqOff'}}
	(void)vmcs.load(preempt);
	// expected-error@+1 {{too few arguments to function call}}
	return VmxCpu::here().is_on();
}
