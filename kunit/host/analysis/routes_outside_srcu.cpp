// SPDX-License-Identifier: GPL-2.0
/* Routes of interrupts are read inside the SRCU of their controllers. */
#include "virt/irqchip/irqchip.hpp"

using namespace kvmpp;

int Irqchip::set_irq(IrqSource, u32 gsi, bool)
{
	Srcu another;
	SrcuRead read(another);

	// expected-error@+1 {{'routing' requires holding srcu 'srcu_'}}
	return routing(read).find(gsi) != nullptr;
}

bool Irqchip::user_wants_end_of(u8 vector)
{
	// expected-error@+1 {{too few arguments to function call}}
	return routing().user_pin_has(vector);
}
