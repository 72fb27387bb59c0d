// SPDX-License-Identifier: GPL-2.0
/*
 * A vCPU whose local APIC is in the kernel: its interrupts on their way to the guest, the devices in the
 * kernel that it reaches, waiting in HLT and for a start-up IPI, and the ioctls.
 */
#include "arch/x86/events.hpp"
#include "arch/x86/guest_debug.hpp"
#include "irqchip/irqchip.hpp"
#include "irqchip/lapic.hpp"
#include "user_copy.hpp"
#include "vcpu.hpp"
#include "vm.hpp"

#include <linux/kvm.h>
#include <linux_glue/clock.h>
#include <linux_glue/memory.h>

#include <cstring>

namespace kvmpp
{

/* Nobody else has it yet. */
Result<> Vcpu::create_apic() NO_THREAD_SAFETY_ANALYSIS
{
	Irqchip *irqchip = vm_.irqchip();

	if (!irqchip)
		return {};
	entry_->lapic = Owned<Lapic>::create(identity_.id, entry_->kick, irqchip->bus());
	if (!entry_->lapic)
		return Errno::nomem;
	lapic_ = entry_->lapic.get();
	vmx_.use_apic(*lapic_, *irqchip);
	state_.apic.in_kernel = true;
	mp_state_ = identity_.id == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
	return {};
}

/* What handlers and ioctls have changed of registers that are the APIC's, too. */
void Vcpu::follow_apic()
{
	lapic_->set_base(state_.apic_base);
	if (state_.cr8 != lapic_->priority() >> 4)
		lapic_->set_priority(static_cast<u32>(state_.cr8 << 4));
}

/* Where its CPU can watch the APIC's timer, it does, from the next entry on. */
void Vcpu::follow_timer()
{
	LapicTimer &timer = lapic_->timer();

	if (vmx_.has_preemption_timer() && glue_tsc_stable()) [[likely]]
		timer.watch_by_cpu();
	else
		timer.watch_by_linux();
}

/* An access of the guest, if it is to a device in the kernel; what was read goes to @data. */
bool Vcpu::access_device(IoSpace space, u64 address, u32 length, bool is_write, u8 (&data)[8])
{
	if (space == IoSpace::mmio) {
		bool here = is_write ? lapic_->write_memory(address, length, data)
				     : lapic_->read_memory(address, length, data);
		if (here)
			return true;
	}
	DeviceAccess access{
		.space = space, .is_write = is_write, .address = address, .length = length};
	std::memcpy(access.data, data, sizeof(data));
	if (!vm_.irqchip()->access(access))
		return false;
	std::memcpy(data, access.data, sizeof(data));
	return true;
}

void Vcpu::access_apic_msr(u32 index, bool is_write, u64 &value, bool &done)
{
	if (index == msr::tsc_deadline) {
		if (is_write)
			lapic_->set_deadline(value, state_.tsc_offset);
		else
			value = lapic_->deadline();
		done = true;
		return;
	}
	done = is_write ? lapic_->write_msr(index, value) : lapic_->read_msr(index, value);
}

/* After an access that may have been to the APIC. */
void Vcpu::after_apic_access()
{
	bool level;
	int vector = lapic_->take_ended(level);

	state_.cr8 = lapic_->priority() >> 4;
	if (vector < 0)
		return;
	if (level && vm_.irqchip()->user_wants_end_of(static_cast<u8>(vector)))
		ended_for_user_ = vector;
	else
		vm_.irqchip()->end_of_interrupt(static_cast<u8>(vector), level);
}

bool Vcpu::take_in_kernel(u8 (&data)[8])
{
	const UserExit &user = state_.user;
	bool taken;

	switch (user.reason) {
	case KVM_EXIT_HLT:
		mp_state_ = KVM_MP_STATE_HALTED;
		return true;
	case KVM_EXIT_SET_TPR:
		return true;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR: {
		u64 value = user.msr.data;
		bool done;

		access_apic_msr(user.msr.index, user.reason == KVM_EXIT_X86_WRMSR, value, done);
		state_.pending.refused = !done;
		std::memcpy(data, &value, sizeof(data));
		taken = true;
		break;
	}
	case KVM_EXIT_MMIO:
		std::memcpy(data, user.mmio.data, sizeof(data));
		taken = access_device(IoSpace::mmio, user.mmio.phys_addr, user.mmio.len,
				      user.mmio.is_write, data);
		break;
	case KVM_EXIT_IO:
		std::memcpy(data, user.io.data, sizeof(data));
		taken = access_device(IoSpace::port, user.io.port, user.io.size,
				      user.io.direction == KVM_EXIT_IO_OUT, data);
		break;
	default:
		return false;
	}
	if (taken)
		after_apic_access();
	return taken;
}

bool Vcpu::has_external_interrupt() const
{
	if (!lapic_->takes_external())
		return false;
	return vm_.irqchip()->mode() == Irqchip::Mode::split
		       ? external_vector_ >= 0
		       : vm_.irqchip()->has_external_interrupt();
}

/* Whether user space may give it an interrupt by KVM_INTERRUPT; with 8259s in the kernel it need not ask. */
bool Vcpu::takes_from_user() const
{
	return !lapic_ || (vm_.irqchip()->mode() == Irqchip::Mode::split && external_vector_ < 0 &&
			   lapic_->takes_external());
}

bool Vcpu::is_ready_for_user() const
{
	if (lapic_ && vm_.irqchip()->mode() == Irqchip::Mode::kernel)
		return true;
	return ready_for_interrupt(state_) && takes_from_user();
}

void Vcpu::collect_nmis()
{
	for (u32 nmis = lapic_->take_nmis(), i = 0; i < nmis && i < 2; i++)
		queue_nmi(state_);
}

/* INIT and start-up IPIs: "MP Initialization Protocol". Errors as VmxVcpu::fetch(). */
Result<> Vcpu::accept_signals()
{
	if (!lapic_->has_signals())
		return {};
	/* What INIT leaves as it was is not to be lost. */
	if (Result<> r = vmx_.fetch(state_, Groups::all()); !r)
		return r;
	Lapic::Signals signals = lapic_->take_signals();
	if (signals.init) {
		lapic_->init();
		state_.init();
		set_rflags(state_, rflags::fixed);
		external_vector_ = -1;
		mp_state_ = identity_.id == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
	}
	if (signals.startup && mp_state_ == KVM_MP_STATE_INIT_RECEIVED) {
		state_.start_at(signals.vector);
		mp_state_ = KVM_MP_STATE_RUNNABLE;
		lapic_->set_due();
	}
	return {};
}

/* What has been posted goes on its way, or waits for the guest to let it. */
Result<> Vcpu::take_interrupts()
{
	entry_->kick.withdraw(Request::interrupt);
	lapic_->take_due();
	if (Result<> r = accept_signals(); !r)
		return r;
	if (mp_state_ != KVM_MP_STATE_RUNNABLE && mp_state_ != KVM_MP_STATE_HALTED)
		return {};
	collect_nmis();
	/* The 8259s' may be another vCPU's by the time that it is acknowledged: then that is spurious. */
	bool external = has_external_interrupt();
	int vector = lapic_->pending();
	if (!external && vector < 0)
		return {};
	if (Result<> r = vmx_.fetch(state_, window_state); !r)
		return r;
	/* An NMI goes first. */
	bool nmi = (state_.nmi.queued || state_.nmi.pending) &&
		   !(state_.interruptibility & blocking_by_nmi);
	if (nmi || !ready_for_interrupt(state_)) {
		state_.window_wanted = true;
		lapic_->set_due();
		return {};
	}
	if (!external)
		lapic_->acknowledge(static_cast<u8>(vector));
	else if (vm_.irqchip()->mode() == Irqchip::Mode::split)
		vector = std::exchange(external_vector_, -1);
	else
		vector = vm_.irqchip()->acknowledge_external_interrupt();
	queue_interrupt(state_, static_cast<u8>(vector));
	/* There may be more. */
	lapic_->set_due();
	return {};
}

/* Of a vCPU that does not run; window_state is valid. */
bool Vcpu::is_woken() const
{
	if (lapic_->has_signals())
		return true;
	if (mp_state_ != KVM_MP_STATE_HALTED)
		return false;
	return has_events(state_) || lapic_->has_nmis() ||
	       (ready_for_interrupt(state_) &&
		(has_external_interrupt() || lapic_->pending() >= 0));
}

Result<> Vcpu::sleep()
{
	lapic_->timer().watch_by_linux();
	return from_errno(glue_sleep_until(
		&lapic_->sleeper,
		[](void *vcpu) NO_THREAD_SAFETY_ANALYSIS -> int {
			return static_cast<Vcpu *>(vcpu)->is_woken();
		},
		this));
}

/* Before the guest goes on: its interrupts, and the wait until it may. */
Result<Next> Vcpu::settle_apic()
{
	for (;;) {
		if (ended_for_user_ >= 0) {
			state_.user = {.reason = KVM_EXIT_IOAPIC_EOI,
				       .eoi = {.vector = static_cast<u8>(
						       std::exchange(ended_for_user_, -1))}};
			return Next::user;
		}
		if (lapic_->is_due())
			if (Result<> r = take_interrupts(); !r)
				return r.error();
		if (mp_state_ == KVM_MP_STATE_HALTED && has_events(state_))
			mp_state_ = KVM_MP_STATE_RUNNABLE;
		if (mp_state_ == KVM_MP_STATE_RUNNABLE) [[likely]]
			return Next::resume;
		if (Result<> r = vmx_.fetch(state_, window_state); !r)
			return r.error();
		if (Result<> r = sleep(); r)
			lapic_->set_due();
		/* A signal has woken it; or Linux has something for a thread that has slept. */
		if (Result<> r = from_errno(glue_work_handle()); !r)
			return r.error();
	}
}

/* KVM_RUN of one that has not been started yet: Errno::again when it has been told to begin. */
Result<> Vcpu::wait_for_init()
{
	if (read_immediate_exit())
		return Errno::intr;
	if (Result<> r = sleep(); !r)
		return r;
	if (Result<> r = accept_signals(); !r)
		return r;
	return Errno::again;
}

Result<> Vcpu::set_mp_state(u32 state)
{
	if (state != KVM_MP_STATE_RUNNABLE && (!lapic_ || (state > KVM_MP_STATE_SIPI_RECEIVED &&
							   state != KVM_MP_STATE_AP_RESET_HOLD)))
		return Errno::inval;
	if (!lapic_)
		return {};
	mp_state_ = state;
	if (state == KVM_MP_STATE_SIPI_RECEIVED) {
		mp_state_ = KVM_MP_STATE_INIT_RECEIVED;
		lapic_->set_startup();
	}
	lapic_->set_due();
	return {};
}

Result<> Vcpu::interrupt(unsigned long argument)
{
	kvm_interrupt interrupt;

	if (Result<> r = copy_from_user(interrupt, argument); !r)
		return r;
	if (interrupt.irq > 255)
		return Errno::inval;
	if (!lapic_) {
		queue_interrupt(state_, static_cast<u8>(interrupt.irq));
		return {};
	}
	if (vm_.irqchip()->mode() == Irqchip::Mode::kernel)
		return Errno::nxio;
	if (external_vector_ >= 0)
		return Errno::exist;
	external_vector_ = static_cast<int>(interrupt.irq);
	lapic_->set_due();
	return {};
}

Result<> Vcpu::get_lapic(unsigned long argument)
{
	Page page = Page::create();

	if (!lapic_)
		return Errno::inval;
	if (!page)
		return Errno::nomem;
	lapic_->get_state(*page.as<kvm_lapic_state>(), vm_.x2apic_api().has_wide_ids());
	return from_errno(glue_copy_to_user(argument, page.as<void>(), sizeof(kvm_lapic_state)));
}

Result<> Vcpu::set_lapic(unsigned long argument)
{
	Page page = Page::create();

	if (!lapic_)
		return Errno::inval;
	if (!page)
		return Errno::nomem;
	if (Result<> r = from_errno(
		    glue_copy_from_user(page.as<void>(), argument, sizeof(kvm_lapic_state)));
	    !r)
		return r;
	if (!lapic_->set_state(*page.as<kvm_lapic_state>(), vm_.x2apic_api().has_wide_ids()))
		return Errno::inval;
	state_.cr8 = lapic_->priority() >> 4;
	return {};
}

} // namespace kvmpp
