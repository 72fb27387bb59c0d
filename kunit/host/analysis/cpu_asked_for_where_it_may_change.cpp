// SPDX-License-Identifier: GPL-2.0
/* Which CPU this is, and what it can do, is asked for only where the thread stays on it. */
#include "arch/x86/capabilities.hpp"
#include "include/kvmpp/guards.hpp"

using namespace kvmpp;

VmxRegisters read()
{
	// expected-error@+1 {{too few arguments to function call}}
	return VmxRegisters::read();
}

int here()
{
	// expected-error@+2 {{calling a private constructor of class 'kvmpp::OnCpu'}}
	// expected-error@+1 {{temporary of type 'kvmpp::OnCpu' has private destructor}}
	return OnCpu().cpu().value;
}
