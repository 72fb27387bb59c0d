// SPDX-License-Identifier: GPL-2.0
/* The table of memory slots is read inside the SRCU of the VM that it belongs to. */
#include "virt/vm.hpp"

using namespace kvmpp;

bool of_another_vm(Vm &vm, Vm &other)
{
	SrcuRead read(other.srcu());

	// expected-error@+1 {{'slots' requires holding srcu 'vm.srcu_'}}
	return vm.slots(read).find_id(0);
}

bool of_none(Vm &vm)
{
	// expected-error@+1 {{too few arguments to function call}}
	return vm.slots().find_id(0);
}
