/* SPDX-License-Identifier: GPL-2.0 */
/* A vCPU: what its file is, and KVM_RUN. */
#pragma once

#include "arch/x86/cpuid.hpp"
#include "arch/x86/cpuid_table.hpp"
#include "arch/x86/handlers.hpp"
#include "arch/x86/vmx_vcpu.hpp"
#include "clock.hpp"
#include "dedicated_cpus.hpp"
#include "include/kvmpp/guards.hpp"
#include "include/kvmpp/owned.hpp"
#include "io_table.hpp"
#include "steal_time.hpp"
#include "vcpu_table.hpp"

struct kvm_run;
struct kvm_msr_entry;

namespace kvmpp
{

class Vm;

class Vcpu
{
public:
	/*
	 * Pages that user space maps: struct kvm_run, the data of port accesses, and the VM's ring of
	 * coalesced writes.
	 */
	static constexpr unsigned shared_pages = 3, ring_page = 2;

	[[gnu::cold]] Vcpu(Vm &vm, u32 id);
	[[gnu::cold]] ~Vcpu() MAY_SLEEP;
	/* Errno::nomem. May sleep. */
	[[gnu::cold]] Result<> init() MAY_SLEEP;

	Vm &vm() { return vm_; }
	/* What the VM's table has of it. */
	VcpuEntry &entry() { return *entry_; }
	void *shared_page(unsigned long index) const;
	/* An ioctl from user space: 0 or positive, or a negative errno. May sleep. */
	long ioctl(unsigned command, unsigned long argument) EXCLUDES(mutex_) MAY_SLEEP;
	/* Its file is closed. False when it must not be freed: a CPU that is lost has it. May sleep. */
	bool end() MAY_SLEEP;
	/* The thread in KVM_RUN is scheduled away, or leaves it. */
	void sched_out(const IrqOff &irq, bool preempted) REQUIRES(irqs_off, mutex_);
	/* It comes back. */
	void sched_in() REQUIRES(mutex_);

private:
	[[gnu::cold]] Result<> dispatch(unsigned command, unsigned long argument) REQUIRES(mutex_);
	Result<> run() REQUIRES(mutex_);
	Result<> run_guest() REQUIRES(mutex_);
	Result<Next> run_shared() REQUIRES(mutex_);
	Result<Next> run_dedicated() REQUIRES(mutex_);
	Result<Next> step() REQUIRES(mutex_);
	Result<Next> before_next() REQUIRES(mutex_);
	Result<Next> handle(const Exit &exit) REQUIRES(mutex_);
	/* A CPU that does not answer any more has its state, and may go on with it: nobody else touches it. */
	bool is_lost() const { return dedicated_.place() == Dedicated::Place::lost; }
	Result<> lend() REQUIRES(mutex_);
	Result<Next> take_back() REQUIRES(mutex_);
	Result<> events_ioctl(unsigned command, unsigned long argument) REQUIRES(mutex_);
	Result<> get_events(unsigned long argument) REQUIRES(mutex_);
	Result<> set_events(unsigned long argument) REQUIRES(mutex_);
	Result<> set_debug(unsigned long argument) REQUIRES(mutex_);
	Result<> set_signal_mask(unsigned long argument) REQUIRES(mutex_);
	[[gnu::cold]] long set_dedicated_cpu(long cpu) MAY_SLEEP;
	[[gnu::cold]] long get_dedicated_cpu(unsigned long argument) MAY_SLEEP;
	Result<Next> handle_ept_violation(const Exit &exit) REQUIRES(mutex_);
	bool give_up_accessed_bits() REQUIRES(mutex_);
	Result<Next> finish_pending() REQUIRES(mutex_);
	Result<Next> complete_pending(const u8 (&data)[8]) REQUIRES(mutex_);
	Result<Next> complete_in_guests_memory(const u8 (&data)[8]) REQUIRES(mutex_);
	Result<Next> complete_by_user() REQUIRES(mutex_);
	Result<Next> past_bus(Result<Next> next) REQUIRES(mutex_);
	Result<Next> offer_to_bus() REQUIRES(mutex_);
	bool take_on_bus() REQUIRES(mutex_);
	bool take_string() REQUIRES(mutex_);
	bool user_wants_window() const REQUIRES(mutex_);
	bool read_immediate_exit() const;
	/* Its local APIC in the kernel, in vcpu_apic.cpp: all but takes_from_user() and the ioctls need one. */
	Result<> create_apic() MAY_SLEEP;
	void follow_apic() REQUIRES(mutex_);
	void follow_timer() REQUIRES(mutex_) MAY_SLEEP;
	bool take_in_kernel(u8 (&data)[8]) REQUIRES(mutex_) MAY_SLEEP;
	bool access_device(IoSpace space, u64 address, u32 length, bool is_write, u8 (&data)[8])
		REQUIRES(mutex_) MAY_SLEEP;
	void access_apic_msr(u32 index, bool is_write, u64 &value, bool &done)
		REQUIRES(mutex_) MAY_SLEEP;
	void after_apic_access() REQUIRES(mutex_);
	bool has_external_interrupt() const REQUIRES(mutex_);
	bool takes_from_user() const REQUIRES(mutex_);
	bool is_ready_for_user() const REQUIRES(mutex_);
	void collect_nmis() REQUIRES(mutex_);
	Result<> accept_signals() REQUIRES(mutex_) MAY_SLEEP;
	Result<> take_interrupts() REQUIRES(mutex_) MAY_SLEEP;
	bool is_woken() const REQUIRES(mutex_);
	Result<> sleep() REQUIRES(mutex_) MAY_SLEEP;
	Result<Next> settle_apic() REQUIRES(mutex_) MAY_SLEEP;
	Result<> wait_for_init() REQUIRES(mutex_) MAY_SLEEP;
	Result<> set_mp_state(u32 state) REQUIRES(mutex_);
	Result<> interrupt(unsigned long argument) REQUIRES(mutex_);
	Result<> get_lapic(unsigned long argument) REQUIRES(mutex_) MAY_SLEEP;
	Result<> set_lapic(unsigned long argument) REQUIRES(mutex_) MAY_SLEEP;
	void follow_sleep() REQUIRES(mutex_);
	void follow_clock() REQUIRES(mutex_) MAY_SLEEP;
	[[gnu::noinline]] void tell_time() REQUIRES(mutex_) MAY_SLEEP;
	void follow_steal_time() REQUIRES(mutex_) MAY_SLEEP;
	void show_exit() REQUIRES(mutex_);
	/* The state that moves with a guest, in vcpu_state_ioctls.cpp. False: @command is none of it. */
	bool state_ioctl(unsigned command, unsigned long argument, Result<long> &result)
		REQUIRES(mutex_);
	Result<> set_cpuid(unsigned long argument,
			   Result<> (*read)(unsigned long from, GuestCpuid &to)) REQUIRES(mutex_);
	Result<> get_cpuid(unsigned long argument) REQUIRES(mutex_);
	Result<> access_msr(kvm_msr_entry &entry, bool write, bool &done) REQUIRES(mutex_);
	Result<long> access_msrs(unsigned long argument, bool write) REQUIRES(mutex_);
	Result<> fpu_image(u64 features, Page &image) REQUIRES(mutex_);
	Result<> set_fpu_image(const Page &image) REQUIRES(mutex_);
	Result<> get_fpu(unsigned long argument) REQUIRES(mutex_);
	Result<> set_fpu(unsigned long argument) REQUIRES(mutex_);
	Result<> get_xsave(unsigned long argument) REQUIRES(mutex_);
	Result<> set_xsave(unsigned long argument) REQUIRES(mutex_);
	Result<> get_xcrs(unsigned long argument) REQUIRES(mutex_);
	Result<> set_xcrs(unsigned long argument) REQUIRES(mutex_);
	Result<> set_tsc_khz(unsigned long argument) REQUIRES(mutex_);
	/* What is saved of its FPU: x87 and SSE are there also without XSAVE. */
	static u64 fpu_features() { return guest_features().xcr0 | 3; }
	template <class Registers>
	Result<> get_registers(unsigned long argument, void (*get)(const VcpuState &, Registers &),
			       Groups groups) REQUIRES(mutex_);

	Vm &vm_;
	VcpuIdentity identity_;
	RcuOwned<VcpuEntry> entry_;
	/* Of the entry; null without one in the kernel. */
	Lapic *lapic_ = nullptr;
	Mutex mutex_ ACQUIRED_AFTER(cpus_stay);
	VcpuState state_ GUARDED_BY(mutex_);
	/* Where they are stays the same from init() on: a CPU of its own sees them. */
	Owned<GuestCpuid> cpuid_;
	Owned<MachineCheck> machine_check_;
	VmxVcpu vmx_ GUARDED_BY(mutex_);
	/* The last one on a CPU of Linux's. */
	Exit exit_ GUARDED_BY(mutex_);
	/* Left by the last fault for the next. */
	Ept::TablePages table_pages_ GUARDED_BY(mutex_);
	VcpuClock clock_ GUARDED_BY(mutex_);
	StealTime steal_time_ GUARDED_BY(mutex_);
	Page run_page_;
	Page port_page_;
	/* Its CPU, if it has one of its own; and what that one knows of it. */
	Dedicated dedicated_;
	DedicatedRun dedicated_run_;
	Page fpu_image_;
	/* The record of its VMCS, which that CPU sees; as is `this`, from init() on. */
	const VcpuVmcs *seen_vmcs_ = nullptr;
	/* Its state is with that CPU, or was left by it. */
	bool lent_ GUARDED_BY(mutex_) = false;
	/* Its CPUID is what it is then. */
	bool has_run_ GUARDED_BY(mutex_) = false;
	u32 tsc_khz_ GUARDED_BY(mutex_) = 0;
	/* To which of the CPUs that it has had, by Dedicated::times_taken(). */
	u32 lent_for_ GUARDED_BY(mutex_) = 0;
	/* KVM_MP_STATE_*. */
	u32 mp_state_ GUARDED_BY(mutex_) = 0;
	/* With 8259s in user space, the vector that they have for it by way of its APIC; or -1. */
	int external_vector_ GUARDED_BY(mutex_) = -1;
	/* Whose end user space is to be told of; or -1. */
	int ended_for_user_ GUARDED_BY(mutex_) = -1;
	/* Of the thread in KVM_RUN. */
	bool has_signal_mask_ GUARDED_BY(mutex_) = false;
	u64 signal_mask_ GUARDED_BY(mutex_) = 0;
	glue_guest_fpu *fpu_ GUARDED_BY(mutex_) = nullptr;
	glue_sched_notifier notifier_ GUARDED_BY(mutex_){};
};

} // namespace kvmpp
