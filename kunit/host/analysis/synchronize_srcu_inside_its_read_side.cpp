// SPDX-License-Identifier: GPL-2.0
/* A reader that waits for all readers waits for itself. */
#include "virt/vm.hpp"

using namespace kvmpp;

void Vm::publish(Owned<MemslotTable>)
{
	SrcuRead read(srcu_);

	// expected-error-re@+1 {{'synchronize' while {{.*}} 'srcu_' is held}}
	srcu_.synchronize();
}
