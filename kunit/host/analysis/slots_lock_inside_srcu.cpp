// SPDX-License-Identifier: GPL-2.0
/* kvmpp_slots_lock is never taken inside the SRCU read side: its holder waits for the readers. */
#include "virt/vm.hpp"

using namespace kvmpp;

Result<> Vm::set_memory(const SlotRequest &)
{
	SrcuRead read(srcu_);
	// expected-error@+1 {{mutex 'slots_lock_' must be acquired before 'srcu_'}}
	Locked locked(slots_lock_);

	return {};
}

Result<> one_call_up(Vm &vm, const SlotRequest &request)
{
	SrcuRead read(vm.srcu());

	// expected-error-re@+1 {{'set_memory' while {{.*}} 'vm.srcu_' is held}}
	return vm.set_memory(request);
}
