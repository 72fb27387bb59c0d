// SPDX-License-Identifier: GPL-2.0
/* Everything of a vCPU is under its mutex, and user space is returned to without it. */
#include "virt/vcpu.hpp"

using namespace kvmpp;

Result<> Vcpu::init()
{
	// expected-error@+1 {{'run' requires holding mutex 'mutex_' exclusively}}
	return run();
}

long Vcpu::ioctl(unsigned command, unsigned long argument)
{
	if (!mutex_.lock_killable())
		// expected-error@+1 {{reading variable 'state_' requires holding mutex 'mutex_'}}
		return state_.cr8;
	return dispatch(command, argument) ? 0 : -1;
	// expected-error@+1 {{mutex 'mutex_' is not held on every path through here}}
}
