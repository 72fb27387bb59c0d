// SPDX-License-Identifier: GPL-2.0
/* The ioctls of a vCPU that are about events, its debugger and its signals. */
#include "arch/x86/events.hpp"
#include "arch/x86/guest_debug.hpp"
#include "vcpu.hpp"

#include <linux/kvm.h>
#include <linux_glue/memory.h>

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
	get_vcpu_events(state_, events);
	return from_errno(glue_copy_to_user(argument, &events, sizeof(events)));
}

Result<> Vcpu::set_events(unsigned long argument)
{
	kvm_vcpu_events events;

	if (Result<> r = from_errno(glue_copy_from_user(&events, argument, sizeof(events))); !r)
		return r;
	if (Result<> r = vmx_.fetch(state_, Group::interruptibility); !r)
		return r;
	return set_vcpu_events(state_, events);
}

Result<> Vcpu::set_debug(unsigned long argument)
{
	kvm_guest_debug debug;

	if (Result<> r = from_errno(glue_copy_from_user(&debug, argument, sizeof(debug))); !r)
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
	if (Result<> r = from_errno(glue_copy_from_user(&mask, argument, sizeof(mask))); !r)
		return r;
	/* A 32-bit program's set has the same size and, on this processor, the same bits. */
	if (mask.len != sizeof(set))
		return Errno::inval;
	if (Result<> r =
		    from_errno(glue_copy_from_user(&set, argument + sizeof(mask), sizeof(set)));
	    !r)
		return r;
	has_signal_mask_ = true;
	signal_mask_ = set;
	return {};
}

Result<> Vcpu::events_ioctl(unsigned command, unsigned long argument)
{
	switch (command) {
	case KVM_INTERRUPT: {
		kvm_interrupt interrupt;

		if (Result<> r = from_errno(
			    glue_copy_from_user(&interrupt, argument, sizeof(interrupt)));
		    !r)
			return r;
		if (interrupt.irq > 255)
			return Errno::inval;
		queue_interrupt(state_, static_cast<u8>(interrupt.irq));
		return {};
	}
	case KVM_NMI:
		queue_nmi(state_);
		return {};
	case KVM_GET_VCPU_EVENTS:
		return get_events(argument);
	case KVM_SET_VCPU_EVENTS:
		return set_events(argument);
	case KVM_GET_MP_STATE: {
		/* Without an APIC in the kernel, whether it runs is user space's to know. */
		kvm_mp_state state{.mp_state = KVM_MP_STATE_RUNNABLE};

		return from_errno(glue_copy_to_user(argument, &state, sizeof(state)));
	}
	case KVM_SET_MP_STATE: {
		kvm_mp_state state;

		if (Result<> r = from_errno(glue_copy_from_user(&state, argument, sizeof(state)));
		    !r)
			return r;
		return state.mp_state == KVM_MP_STATE_RUNNABLE ? Result<>() : Errno::inval;
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
