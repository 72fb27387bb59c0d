// SPDX-License-Identifier: GPL-2.0
/* With KVM's semantics and errnos. */
#include "pit_ioctls.hpp"

#include "irqchip/pit.hpp"
#include "user_copy.hpp"
#include "vm.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

namespace
{

Pit *pit_of(Vm &vm)
{
	Irqchip *irqchip = vm.irqchip();

	return irqchip ? irqchip->pit() : nullptr;
}

Result<> create(Vm &vm, u32 flags)
{
	Irqchip *irqchip = vm.irqchip();

	/* As KVM since 6.8; before, it made one whose interrupts went nowhere. */
	if (!irqchip || irqchip->mode() != Irqchip::Mode::kernel)
		return Errno::noent;
	return irqchip->create_pit(flags & KVM_PIT_SPEAKER_DUMMY);
}

Result<> create_as_asked(Vm &vm, unsigned long argument)
{
	kvm_pit_config config;

	if (Result<> r = copy_from_user(config, argument); !r)
		return r;
	return create(vm, config.flags);
}

/* KVM reads it as well. */
Result<> get_channels(Vm &vm, unsigned long argument)
{
	kvm_pit_state state;

	if (Result<> r = copy_from_user(state, argument); !r)
		return r;
	Pit *pit = pit_of(vm);
	if (!pit)
		return Errno::nxio;
	kvm_pit_state2 all = pit->get();
	static_assert(sizeof(state.channels) == sizeof(all.channels));
	return copy_to_user(argument, all.channels);
}

Result<> get_state(Vm &vm, unsigned long argument)
{
	Pit *pit = pit_of(vm);

	if (!pit)
		return Errno::nxio;
	return copy_to_user(argument, pit->get());
}

template <class State> Result<> set_state(Vm &vm, unsigned long argument)
{
	State state;

	if (Result<> r = copy_from_user(state, argument); !r)
		return r;
	Pit *pit = pit_of(vm);
	if (!pit)
		return Errno::nxio;
	pit->set(state);
	return {};
}

Result<> set_reinject(Vm &vm, unsigned long argument)
{
	kvm_reinject_control control;

	if (Result<> r = copy_from_user(control, argument); !r)
		return r;
	Pit *pit = pit_of(vm);
	if (!pit)
		return Errno::nxio;
	pit->set_reinject(control.pit_reinject);
	return {};
}

} // namespace

bool pit_ioctl(Vm &vm, unsigned command, unsigned long argument, Result<long> &result)
{
	Result<> r;

	switch (command) {
	case KVM_CREATE_PIT:
		r = create(vm, KVM_PIT_SPEAKER_DUMMY);
		break;
	case KVM_CREATE_PIT2:
		r = create_as_asked(vm, argument);
		break;
	case KVM_GET_PIT:
		r = get_channels(vm, argument);
		break;
	case KVM_SET_PIT:
		r = set_state<kvm_pit_state>(vm, argument);
		break;
	case KVM_GET_PIT2:
		r = get_state(vm, argument);
		break;
	case KVM_SET_PIT2:
		r = set_state<kvm_pit_state2>(vm, argument);
		break;
	case KVM_REINJECT_CONTROL:
		r = set_reinject(vm, argument);
		break;
	default:
		return false;
	}
	result = r ? Result<long>(0) : r.error();
	return true;
}

} // namespace kvmpp
