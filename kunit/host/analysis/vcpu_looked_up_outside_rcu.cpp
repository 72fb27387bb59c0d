// SPDX-License-Identifier: GPL-2.0
/* What is found in the table of vCPUs is there for as long as RCU is held only. */
#include "virt/directed_yield.hpp"
#include "virt/vcpu_table.hpp"

using namespace kvmpp;

VcpuEntry *find(VcpuTable &table)
{
	// expected-error@+1 {{calling function 'find' requires holding context 'rcu'}}
	return table.find(0);
}

glue_task *walk(const VcpuTable &table, VcpuEntry &entry)
{
	BoostWalk walk(table, 0);

	// expected-error@+1 {{calling function 'next' requires holding context 'rcu'}}
	(void)walk.next(entry);
	// expected-error@+1 {{calling function 'task' requires holding context 'rcu'}}
	return entry.task();
}
