// SPDX-License-Identifier: GPL-2.0
/* Who waits for the end of an interrupt lowers its line then, which takes kvmpp_irqchip_lock. */
#include "virt/irqchip/irqchip.hpp"

using namespace kvmpp;

void Irqchip::end_of_interrupt(u8, bool)
{
	Locked locked(lock_);

	// expected-error@+1 {{cannot call function 'tell_listeners' while spinlock 'lock_' is held}}
	tell_listeners(IrqchipId::ioapic, 1);
}
