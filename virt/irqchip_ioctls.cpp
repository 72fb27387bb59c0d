// SPDX-License-Identifier: GPL-2.0
/* With KVM's semantics and errnos. */
#include "irqchip_ioctls.hpp"

#include "include/kvmpp/nospec.hpp"
#include "irqchip/irqchip.hpp"
#include "user_copy.hpp"
#include "vm.hpp"

#include <linux/kvm.h>
#include <linux_glue/memory.h>

namespace kvmpp
{

namespace
{

/* Null unless the 8259s and the I/O APIC are in the kernel. */
Irqchip *chips_of(const Vm &vm)
{
	Irqchip *irqchip = vm.irqchip();

	return irqchip && irqchip->mode() == Irqchip::Mode::kernel ? irqchip : nullptr;
}

Result<> get_irqchip(Vm &vm, unsigned long argument)
{
	kvm_irqchip chip;

	if (Result<> r = copy_from_user(chip, argument); !r)
		return r;
	Irqchip *irqchip = chips_of(vm);
	if (!irqchip)
		return Errno::nxio;
	switch (chip.chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		irqchip->get_pic(array_index_nospec(chip.chip_id, 2), chip.chip.pic);
		break;
	case KVM_IRQCHIP_IOAPIC:
		irqchip->get_ioapic(chip.chip.ioapic);
		break;
	default:
		return Errno::inval;
	}
	return copy_to_user(argument, chip);
}

Result<> set_irqchip(Vm &vm, unsigned long argument)
{
	kvm_irqchip chip;

	if (Result<> r = copy_from_user(chip, argument); !r)
		return r;
	Irqchip *irqchip = chips_of(vm);
	if (!irqchip)
		return Errno::nxio;
	switch (chip.chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		irqchip->set_pic(array_index_nospec(chip.chip_id, 2), chip.chip.pic);
		return {};
	case KVM_IRQCHIP_IOAPIC:
		irqchip->set_ioapic(chip.chip.ioapic);
		return {};
	default:
		return Errno::inval;
	}
}

Result<> irq_line(Vm &vm, unsigned long argument, bool wants_status)
{
	kvm_irq_level line;

	if (Result<> r = copy_from_user(line, argument); !r)
		return r;
	Irqchip *irqchip = vm.irqchip();
	if (!irqchip)
		return Errno::nxio;
	line.status = irqchip->set_irq(IrqSource::user, line.irq, line.level != 0);
	return wants_status ? copy_to_user(argument, line) : Result<>();
}

Result<> set_routing(Vm &vm, unsigned long argument)
{
	kvm_irq_routing header;

	if (Result<> r = copy_from_user(header, argument); !r)
		return r;
	Irqchip *irqchip = vm.irqchip();
	if (!irqchip || header.nr > IrqRouting::max_gsis || header.flags)
		return Errno::inval;
	if (header.nr == 0)
		return irqchip->set_routing({});
	auto entries = OwnedArray<kvm_irq_routing_entry>::create(header.nr);
	if (!entries)
		return Errno::nomem;
	if (Result<> r = from_errno(glue_copy_from_user(entries.data(), argument + sizeof(header),
							header.nr * sizeof(kvm_irq_routing_entry)));
	    !r)
		return r;
	return irqchip->set_routing({entries.data(), entries.size()});
}

Result<> irqfd(Vm &vm, unsigned long argument)
{
	kvm_irqfd request;

	if (Result<> r = copy_from_user(request, argument); !r)
		return r;
	return vm.irqfds().irqfd(request, vm.irqchip());
}

Result<long> signal_msi(Vm &vm, unsigned long argument)
{
	kvm_msi msi;

	if (Result<> r = copy_from_user(msi, argument); !r)
		return r.error();
	Irqchip *irqchip = vm.irqchip();
	if (!irqchip || (msi.flags & ~KVM_MSI_VALID_DEVID))
		return Errno::inval;
	Result<int> sent = irqchip->signal(
		{.address_low = msi.address_lo, .address_high = msi.address_hi, .data = msi.data});
	if (!sent)
		return sent.error();
	/* Nobody is there to take it: -1 in KVM, and thereby this. */
	if (*sent < 0)
		return Errno::perm;
	return long{*sent};
}

} // namespace

bool irqchip_ioctl(Vm &vm, unsigned command, unsigned long argument, Result<long> &result)
{
	Result<> r;

	switch (command) {
	case KVM_CREATE_IRQCHIP:
		r = vm.create_irqchip(Irqchip::Mode::kernel, 0);
		break;
	case KVM_GET_IRQCHIP:
		r = get_irqchip(vm, argument);
		break;
	case KVM_SET_IRQCHIP:
		r = set_irqchip(vm, argument);
		break;
	case KVM_IRQ_LINE:
		r = irq_line(vm, argument, false);
		break;
	case KVM_IRQ_LINE_STATUS:
		r = irq_line(vm, argument, true);
		break;
	case KVM_SET_GSI_ROUTING:
		r = set_routing(vm, argument);
		break;
	case KVM_IRQFD:
		r = irqfd(vm, argument);
		break;
	case KVM_SIGNAL_MSI:
		result = signal_msi(vm, argument);
		return true;
	default:
		return false;
	}
	result = r ? Result<long>(0) : r.error();
	return true;
}

} // namespace kvmpp
