// SPDX-License-Identifier: GPL-2.0
/* The ioctls of a vCPU, with KVM's semantics and errnos. */
#include "arch/x86/sregs.hpp"
#include "user_copy.hpp"
#include "vcpu.hpp"
#include "vm.hpp"

#include <linux/kvm.h>
#include <linux_glue/entries.h>
#include <uapi/kvmpp.h>

namespace kvmpp
{

template <class Registers>
Result<> Vcpu::get_registers(unsigned long argument, void (*get)(const VcpuState &, Registers &),
			     Groups groups)
{
	Registers registers;

	if (Result<> r = vmx_.fetch(state_, groups); !r)
		return r;
	get(state_, registers);
	return copy_to_user(argument, registers);
}

Result<> Vcpu::dispatch(unsigned command, unsigned long argument)
{
	switch (command) {
	case KVM_GET_REGS:
		return get_registers<kvm_regs>(argument, get_regs, regs_groups);
	case KVM_SET_REGS: {
		kvm_regs regs;

		if (Result<> r = copy_from_user(regs, argument); !r)
			return r;
		/* Whether it is where the debugger's step begins. */
		if (state_.is_debugged(GuestDebug::single_step))
			if (Result<> r = vmx_.fetch(state_, Group::segments); !r)
				return r;
		set_regs(state_, regs);
		return {};
	}
	case KVM_GET_SREGS:
		return get_registers<kvm_sregs>(argument, get_sregs, sregs_groups);
	case KVM_SET_SREGS: {
		kvm_sregs sregs;

		if (Result<> r = copy_from_user(sregs, argument); !r)
			return r;
		SrcuRead read(vm_.srcu());
		return set_sregs(state_, sregs, GuestMemory(vm_.slots(read)));
	}
	case KVM_KVMCLOCK_CTRL:
		if (!state_.clock.enabled())
			return Errno::inval;
		state_.clock.stopped = state_.clock.changed = true;
		return {};
	default:
		return events_ioctl(command, argument);
	}
}

long Vcpu::set_dedicated_cpu(long cpu)
{
	if (!glue_may_dedicate())
		return -static_cast<int>(Errno::perm);
	if (cpu == -1)
		return to_errno(dedicated_.give_back());
	if (cpu < 0 || cpu >= glue_nr_cpus() || !glue_cpu_present(static_cast<int>(cpu)))
		return -static_cast<int>(Errno::inval);
	const SeenMemory seen[] = {
		{this, sizeof(*this)},           {&*entry_, sizeof(VcpuEntry)},
		{&vm_.apics(), sizeof(ApicMap)}, {fpu_image_.as<void>(), page_size},
		{seen_vmcs_, sizeof(VcpuVmcs)},  {&vm_.tsc(), sizeof(TscRecord)},
		{&*cpuid_, sizeof(GuestCpuid)},  {&*machine_check_, sizeof(MachineCheck)},
	};
	return to_errno(dedicated_.take({static_cast<int>(cpu)},
					{vm_.process(), vm_.id(), identity_.id}, entry_->kick,
					dedicated_run_, sizeof(seen) / sizeof(*seen), seen));
}

long Vcpu::get_dedicated_cpu(unsigned long argument)
{
	int cpu = dedicated_.cpu().value;

	if (!glue_may_dedicate())
		return -static_cast<int>(Errno::perm);
	return glue_copy_to_user(argument, &cpu, sizeof(cpu));
}

long Vcpu::ioctl(unsigned command, unsigned long argument)
{
	/* From any process, and while the vCPU runs. */
	if (command == KVMPP_SET_DEDICATED_CPU)
		return set_dedicated_cpu(static_cast<int>(argument));
	if (command == KVMPP_GET_DEDICATED_CPU)
		return get_dedicated_cpu(argument);
	/* The guest's memory is that of the process that made the VM. */
	if (!vm_.belongs_to_current())
		return -static_cast<int>(Errno::io);
	if (!mutex_.lock_killable())
		return -static_cast<int>(Errno::intr);
	if (!is_lost())
		follow_sleep();
	Result<long> result = 0;
	switch (command) {
	/* Ahead of the others: it is what is called all the time. */
	case KVM_RUN:
		if (Result<> r = argument == 0 ? run() : Errno::inval; !r)
			result = r.error();
		break;
	default:
		if (is_lost())
			result = Errno::io;
		else if (!state_ioctl(command, argument, result))
			if (Result<> r = dispatch(command, argument); !r)
				result = r.error();
	}
	if (lapic_ && !is_lost())
		follow_apic();
	/* Here, for a vCPU whose TSC user space sets may be one that does not run for long. */
	vm_.clock().follow_tsc(clock_, state_.tsc_offset);
	mutex_.unlock();
	return result ? *result : -static_cast<int>(result.error());
}

} // namespace kvmpp

using namespace kvmpp;

long kvmpp_vcpu_ioctl(void *vcpu, unsigned int command, unsigned long argument)
{
	return static_cast<Vcpu *>(vcpu)->ioctl(command, argument);
}
