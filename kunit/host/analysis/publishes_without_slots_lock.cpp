// SPDX-License-Identifier: GPL-2.0
/* A table of memory slots is published under kvmpp_slots_lock. */
#include "virt/vm.hpp"

using namespace kvmpp;

Result<> Vm::set_memory(const SlotRequest &)
{
	// expected-error@+1 {{'publish' requires holding mutex 'slots_lock_' exclusively}}
	publish({});
	return {};
}
