// SPDX-License-Identifier: GPL-2.0
/* No spin lock is waited for with interrupts off: its holder may be waiting for this CPU's IPI. */
#include "virt/mmu.hpp"

using namespace kvmpp;

void Mmu::invalidate_begin(const MemslotTable &, u64, u64)
{
	IrqOff irq;
	// expected-error@+1 {{'Locked' while context 'irqs_off' is held}}
	Locked locked(lock_);

	in_progress_++;
}
