// SPDX-License-Identifier: GPL-2.0
/* The ioctls of a vCPU that are about events, its debugger and its signals. */
#include "arch/x86/events.hpp"
#include "arch/x86/guest_debug.hpp"
#include "irqchip/lapic.hpp"
#include "user_copy.hpp"
#include "vcpu.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

/* See include/linux/stddef.h. */
static_assert(sizeof(kvm_signal_mask) == 4 && sizeof(kvm_msrs) == 8 && sizeof(kvm_cpuid2) == 8 &&
	      sizeof(kvm_msr_list) == 4);

Result<> Vcpu::get_events(unsigned long argument)
{
	kvm_vcpu_events events;

	if (Result<> r = vmx_.fetch(state_, Group::interruptibility); !r)
		return r;
	if (lapic_)
		collect_nmis();
	get_vcpu_events(state_, events);
	return copy_to_user(argument, events);
}

Result<> Vcpu::set_events(unsigned long argument)
{
	kvm_vcpu_events events;

	if (Result<> r = copy_from_user(events, argument); !r)
		return r;
	if (Result<> r = vmx_.fetch(state_, Group::interruptibility); !r)
		return r;
	if (Result<> r = set_vcpu_events(state_, events); !r)
		return r;
	if (lapic_ && (events.flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR))
		lapic_->set_startup_vector(static_cast<u8>(events.sipi_vector));
	return {};
}

Result<> Vcpu::set_debug(unsigned long argument)
{
	kvm_guest_debug debug;

	if (Result<> r = copy_from_user(debug, argument); !r)
		return r;
	if (Result<> r = vmx_.fetch(state_, debug_state); !r)
		return r;
	return set_guest_debug(state_, debug);
}

Result<> Vcpu::set_signal_mask(unsigned long argument)
{
	kvm_signal_mask mask;
	u64 set;

	if (!argument) {
		has_signal_mask_ = false;
		return {};
	}
	if (Result<> r = copy_from_user(mask, argument); !r)
		return r;
	/* A 32-bit program's set has the same size and, on this processor, the same bits. */
	if (mask.len != sizeof(set))
		return Errno::inval;
	if (Result<> r = copy_from_user(set, argument + sizeof(mask)); !r)
		return r;
	has_signal_mask_ = true;
	signal_mask_ = set;
	return {};
}

Result<> Vcpu::events_ioctl(unsigned command, unsigned long argument)
{
	switch (command) {
	case KVM_INTERRUPT:
		return interrupt(argument);
	case KVM_NMI:
		queue_nmi(state_);
		return {};
	case KVM_GET_VCPU_EVENTS:
		return get_events(argument);
	case KVM_SET_VCPU_EVENTS:
		return set_events(argument);
	case KVM_GET_MP_STATE: {
		if (lapic_)
			if (Result<> r = accept_signals(); !r)
				return r;
		/* Without an APIC in the kernel, whether it runs is user space's to know. */
		kvm_mp_state state{.mp_state = mp_state_};

		return copy_to_user(argument, state);
	}
	case KVM_SET_MP_STATE: {
		kvm_mp_state state;

		if (Result<> r = copy_from_user(state, argument); !r)
			return r;
		return set_mp_state(state.mp_state);
	}
	case KVM_GET_LAPIC:
		return get_lapic(argument);
	case KVM_SET_LAPIC:
		return set_lapic(argument);
	case KVM_SET_VAPIC_ADDR: {
		kvm_vapic_addr address;

		if (!lapic_)
			return Errno::inval;
		if (Result<> r = copy_from_user(address, argument); !r)
			return r;
		/* There is nothing to be switched on, but QEMU switches it off. */
		return address.vapic_addr ? Errno::inval : Result<>();
	}
	case KVM_SET_GUEST_DEBUG:
		return set_debug(argument);
	case KVM_SET_SIGNAL_MASK:
		return set_signal_mask(argument);
	default:
		return Errno::inval;
	}
}

} // namespace kvmpp
