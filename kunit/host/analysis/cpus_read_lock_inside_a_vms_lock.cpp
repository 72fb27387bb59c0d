// SPDX-License-Identifier: GPL-2.0
/* cpus_read_lock is taken inside no lock of a VM or vCPU: a notifier under it may need that. */
#include "virt/vcpu.hpp"
#include "virt/vm.hpp"

using namespace kvmpp;

void change(VcpuTable &table)
{
	Locked locked(table.lock);
	// expected-error@+1 {{context 'cpus_stay' must be acquired before 'lock'}}
	CpusReadLock cpus;
}

Result<> Vm::set_memory(const SlotRequest &)
{
	Locked locked(slots_lock_);
	// expected-error@+1 {{context 'cpus_stay' must be acquired before 'slots_lock_'}}
	CpusReadLock cpus;

	return {};
}

long Vcpu::ioctl(unsigned, unsigned long)
{
	Locked locked(mutex_);
	// expected-error@+1 {{context 'cpus_stay' must be acquired before 'mutex_'}}
	CpusReadLock cpus;

	return 0;
}
