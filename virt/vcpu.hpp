/* SPDX-License-Identifier: GPL-2.0 */
/* A vCPU: what its file is, and KVM_RUN. */
#pragma once

#include "arch/x86/handlers.hpp"
#include "arch/x86/vmx_vcpu.hpp"
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/owned.hpp"
#include "vcpu_table.hpp"

struct kvm_run;

namespace kvmpp
{

class Vm;

class Vcpu
{
public:
	/* Pages that user space maps: struct kvm_run, and the data of port accesses. */
	static constexpr unsigned shared_pages = 2;

	Vcpu(Vm &vm, u32 id);
	~Vcpu();
	/* Errno::nomem. May sleep. */
	Result<> init();

	Vm &vm() { return vm_; }
	/* What the VM's table has of it. */
	VcpuEntry &entry() { return *entry_; }
	void *shared_page(unsigned long index) const;
	/* An ioctl from user space: 0 or positive, or a negative errno. May sleep. */
	long ioctl(unsigned command, unsigned long argument);
	/* The thread in KVM_RUN is scheduled away. Interrupts off. */
	void sched_out(const IrqOff &irq) { vmx_.leave_guest(irq, state_); }

private:
	Result<> dispatch(unsigned command, unsigned long argument);
	Result<> run();
	Result<> run_guest();
	Result<Next> step();
	Result<Next> handle_ept_violation(const Exit &exit);
	Result<Next> finish_pending();
	void show_exit();
	template <class Registers>
	Result<> get_registers(unsigned long argument, void (*get)(const VcpuState &, Registers &),
			       Groups groups);

	Vm &vm_;
	VcpuIdentity identity_;
	RcuOwned<VcpuEntry> entry_;
	Mutex mutex_;
	VcpuState state_;
	VmxVcpu vmx_;
	Page run_page_;
	Page port_page_;
	glue_guest_fpu *fpu_ = nullptr;
	glue_sched_notifier notifier_{};
};

} // namespace kvmpp
