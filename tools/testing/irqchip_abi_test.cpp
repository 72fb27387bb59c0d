// SPDX-License-Identifier: GPL-2.0
//
// What the ioctls for the interrupt controllers in the kernel refuse and with which errno, what they keep,
// and what a line that is set says, without a vCPU: as stock KVM of Linux 6.1 has it.

#include "expect.hpp"
#include "ktap.hpp"
#include "vm.hpp"

#include <cerrno>
#include <cstring>
#include <vector>

namespace
{

using expect::equal;
using expect::that;

constexpr uint64_t level = 1 << 15, masked = 1 << 16, remote_irr = 1 << 14;

struct Chips {
	explicit Chips(Irqchip irqchip = Irqchip::none) : vm(device, irqchip) {}

	long call(unsigned long command, unsigned long argument = 0) const
	{
		return vm.fd().call(command, argument);
	}
	template <typename T> long call(unsigned long command, T &argument) const
	{
		return vm.fd().call(command, reinterpret_cast<unsigned long>(&argument));
	}
	long enable(uint32_t what, uint64_t argument, uint32_t flags = 0) const
	{
		kvm_enable_cap cap{};
		cap.cap = what;
		cap.flags = flags;
		cap.args[0] = argument;
		return call(KVM_ENABLE_CAP, cap);
	}
	kvm_irqchip state(uint32_t chip) const
	{
		kvm_irqchip got{};
		got.chip_id = chip;
		equal("KVM_GET_IRQCHIP", call(KVM_GET_IRQCHIP, got), 0);
		return got;
	}
	void set(kvm_irqchip state) const
	{
		equal("KVM_SET_IRQCHIP", call(KVM_SET_IRQCHIP, state), 0);
	}
	uint64_t redirection(unsigned pin) const
	{
		return state(KVM_IRQCHIP_IOAPIC).chip.ioapic.redirtbl[pin].bits;
	}
	int line(uint32_t gsi, bool up) const
	{
		kvm_irq_level line{};
		line.irq = gsi;
		line.level = up;
		equal("KVM_IRQ_LINE_STATUS", call(KVM_IRQ_LINE_STATUS, line), 0);
		return line.status;
	}

	Device device;
	Vm vm;
};

// kvm_irq_routing and its entries.
class Routing
{
public:
	Routing &pin(uint32_t gsi, uint32_t chip, uint32_t pin)
	{
		kvm_irq_routing_entry &entry = add(gsi, KVM_IRQ_ROUTING_IRQCHIP);
		entry.u.irqchip.irqchip = chip;
		entry.u.irqchip.pin = pin;
		return *this;
	}
	Routing &message(uint32_t gsi, uint32_t data, uint32_t high = 0)
	{
		kvm_irq_routing_entry &entry = add(gsi, KVM_IRQ_ROUTING_MSI);
		entry.u.msi.address_lo = 0xfee00000;
		entry.u.msi.address_hi = high;
		entry.u.msi.data = data;
		return *this;
	}
	kvm_irq_routing_entry &add(uint32_t gsi, uint32_t type)
	{
		kvm_irq_routing_entry entry{};
		entry.gsi = gsi;
		entry.type = type;
		entries_.push_back(entry);
		return entries_.back();
	}
	kvm_irq_routing_entry &last() { return entries_.back(); }
	long set(const Chips &chips, uint32_t flags = 0) const
	{
		const uint32_t header[] = {static_cast<uint32_t>(entries_.size()), flags};
		std::vector<char> argument(sizeof(header) + entries_.size() * sizeof(entries_[0]));
		memcpy(argument.data(), header, sizeof(header));
		if (!entries_.empty())
			memcpy(argument.data() + sizeof(header), entries_.data(),
			       argument.size() - sizeof(header));
		return chips.call(KVM_SET_GSI_ROUTING, *argument.data());
	}

private:
	std::vector<kvm_irq_routing_entry> entries_;
};

long signal(const Chips &chips, uint32_t high = 0, uint32_t flags = 0)
{
	kvm_msi msi{};
	msi.address_lo = 0xfee00000;
	msi.address_hi = high;
	msi.data = 0x31;
	msi.flags = flags;
	return chips.call(KVM_SIGNAL_MSI, msi);
}

void made_once_and_first()
{
	const Chips kernel;
	equal("KVM_CREATE_IRQCHIP", kernel.call(KVM_CREATE_IRQCHIP), 0);
	equal("again", kernel.call(KVM_CREATE_IRQCHIP), -EEXIST);
	equal("split as well", kernel.enable(KVM_CAP_SPLIT_IRQCHIP, 24), -EEXIST);
	const Chips split;
	equal("too many pins", split.enable(KVM_CAP_SPLIT_IRQCHIP, 4097), -EINVAL);
	equal("split", split.enable(KVM_CAP_SPLIT_IRQCHIP, 4096), 0);
	equal("split again", split.enable(KVM_CAP_SPLIT_IRQCHIP, 24), -EEXIST);
	equal("KVM_CREATE_IRQCHIP as well", split.call(KVM_CREATE_IRQCHIP), -EEXIST);
	const Chips late;
	const Vcpu vcpu(late.vm);
	equal("KVM_CREATE_IRQCHIP after a vCPU", late.call(KVM_CREATE_IRQCHIP), -EINVAL);
	equal("split after a vCPU", late.enable(KVM_CAP_SPLIT_IRQCHIP, 24), -EEXIST);
}

void capabilities_enabled()
{
	const Chips chips;
	equal("with flags", chips.enable(KVM_CAP_SPLIT_IRQCHIP, 24, 1), -EINVAL);
	equal("nothing to be enabled", chips.enable(KVM_CAP_USER_MEMORY, 0), -EINVAL);
	equal("unknown", chips.enable(9999, 0), -EINVAL);
	equal("unknown flag of x2APIC", chips.enable(KVM_CAP_X2APIC_API, 4), -EINVAL);
	equal("no flag of x2APIC", chips.enable(KVM_CAP_X2APIC_API, 0), 0);
	equal("both flags of x2APIC", chips.enable(KVM_CAP_X2APIC_API, 3), 0);
}

void without_controllers()
{
	const Chips chips;
	kvm_irqchip state{};
	kvm_irq_level line{};
	equal("KVM_GET_IRQCHIP", chips.call(KVM_GET_IRQCHIP, state), -ENXIO);
	equal("KVM_SET_IRQCHIP", chips.call(KVM_SET_IRQCHIP, state), -ENXIO);
	equal("KVM_IRQ_LINE", chips.call(KVM_IRQ_LINE, line), -ENXIO);
	equal("KVM_IRQ_LINE_STATUS", chips.call(KVM_IRQ_LINE_STATUS, line), -ENXIO);
	equal("KVM_SET_GSI_ROUTING", Routing().set(chips), -EINVAL);
	equal("KVM_SIGNAL_MSI", signal(chips), -EINVAL);
}

void split_has_no_chips()
{
	const Chips chips;
	equal("split", chips.enable(KVM_CAP_SPLIT_IRQCHIP, 24), 0);
	kvm_irqchip state{};
	equal("KVM_GET_IRQCHIP", chips.call(KVM_GET_IRQCHIP, state), -ENXIO);
	equal("KVM_SET_IRQCHIP", chips.call(KVM_SET_IRQCHIP, state), -ENXIO);
	equal("nothing is routed", chips.line(0, true), -1);
	equal("a pin", Routing().pin(1, KVM_IRQCHIP_IOAPIC, 1).set(chips), -EINVAL);
	equal("a message", Routing().message(1, 0x31).set(chips), 0);
	equal("to nobody", chips.line(1, true), -1);
}

void bad_pointers()
{
	const Chips chips(Irqchip::kernel);
	for (const unsigned long command :
	     {KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS,
	      KVM_SET_GSI_ROUTING, KVM_SIGNAL_MSI, KVM_ENABLE_CAP})
		equal("a bad pointer", chips.call(command, 0x10), -EFAULT);
}

void states_kept()
{
	const Chips chips(Irqchip::kernel);
	kvm_irqchip pic = chips.state(KVM_IRQCHIP_PIC_SLAVE);
	equal("elcr_mask", pic.chip.pic.elcr_mask, 0xde);
	equal("the master's", chips.state(KVM_IRQCHIP_PIC_MASTER).chip.pic.elcr_mask, 0xf8);
	pic.chip.pic.irq_base = 0x70;
	pic.chip.pic.imr = 0xef;
	pic.chip.pic.elcr = 0x0c;
	chips.set(pic);
	const kvm_irqchip after = chips.state(KVM_IRQCHIP_PIC_SLAVE);
	that("the slave is as it was set", !memcmp(&pic, &after, sizeof(pic)));
	kvm_irqchip ioapic = chips.state(KVM_IRQCHIP_IOAPIC);
	equal("base", ioapic.chip.ioapic.base_address, 0xfec00000u);
	equal("masked", ioapic.chip.ioapic.redirtbl[23].bits, masked);
	ioapic.chip.ioapic.id = 2;
	ioapic.chip.ioapic.ioregsel = 0x12;
	ioapic.chip.ioapic.irr = 1 << 5;
	ioapic.chip.ioapic.redirtbl[5].bits = masked | 0x45;
	ioapic.chip.ioapic.redirtbl[9].bits = level | remote_irr | 0x49;
	chips.set(ioapic);
	const kvm_irqchip got = chips.state(KVM_IRQCHIP_IOAPIC);
	that("the I/O APIC is as it was set", !memcmp(&ioapic, &got, sizeof(got)));
	ioapic.chip_id = 3;
	equal("KVM_GET_IRQCHIP of none", chips.call(KVM_GET_IRQCHIP, ioapic), -EINVAL);
	equal("KVM_SET_IRQCHIP of none", chips.call(KVM_SET_IRQCHIP, ioapic), -EINVAL);
}

void what_a_line_says()
{
	const Chips chips(Irqchip::kernel);
	equal("new at the 8259, masked at the I/O APIC", chips.line(3, true), 1);
	equal("up already", chips.line(3, true), 1);
	equal("down", chips.line(3, false), 2);
	equal("pending", chips.line(3, true), 0);
	kvm_irqchip pic = chips.state(KVM_IRQCHIP_PIC_MASTER);
	equal("irr", pic.chip.pic.irr, 1 << 3);
	pic.chip.pic.imr = 0xff;
	chips.set(pic);
	equal("masked", chips.line(5, true), -1);
	equal("masked at the I/O APIC alone", chips.line(17, true), -1);
	equal("pending there", chips.line(17, true), 0);
	equal("down there", chips.line(17, false), 1);
	equal("no such GSI", chips.line(24, true), -1);
	equal("no GSI at all", chips.line(~0u, true), -1);
	kvm_irq_level line{};
	line.irq = 4096;
	equal("KVM_IRQ_LINE does not say", chips.call(KVM_IRQ_LINE, line), 0);
}

void default_routing()
{
	const Chips chips(Irqchip::kernel);
	for (uint32_t gsi = 0; gsi < 24; gsi++)
		chips.line(gsi, true);
	equal("the I/O APIC's", chips.state(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr, 0xffffffu);
	equal("the slave's", chips.state(KVM_IRQCHIP_PIC_SLAVE).chip.pic.irr, 0xff);
	equal("the master's", chips.state(KVM_IRQCHIP_PIC_MASTER).chip.pic.irr, 0xff);
}

void routing_refused()
{
	const Chips chips(Irqchip::kernel);
	const auto refused = [&](const char *what, const Routing &routing, uint32_t flags = 0) {
		equal(what, routing.set(chips, flags), -EINVAL);
	};
	refused("flags", Routing().message(1, 0), 1);
	refused("GSI 4096", Routing().message(4096, 0));
	equal("GSI 4095", Routing().message(4095, 0).set(chips), 0);
	refused("no chip", Routing().pin(1, 3, 0));
	refused("no pin of the master", Routing().pin(1, KVM_IRQCHIP_PIC_MASTER, 8));
	refused("no pin of the slave", Routing().pin(1, KVM_IRQCHIP_PIC_SLAVE, 8));
	refused("no pin of the I/O APIC", Routing().pin(1, KVM_IRQCHIP_IOAPIC, 24));
	refused("twice to a chip",
		Routing().pin(1, KVM_IRQCHIP_IOAPIC, 1).pin(1, KVM_IRQCHIP_IOAPIC, 2));
	refused("two messages", Routing().message(1, 0).message(1, 1));
	refused("a message and a pin", Routing().message(1, 0).pin(1, KVM_IRQCHIP_IOAPIC, 1));
	refused("a pin and a message", Routing().pin(1, KVM_IRQCHIP_IOAPIC, 1).message(1, 0));
	Routing routing = Routing().pin(1, KVM_IRQCHIP_IOAPIC, 1);
	routing.last().flags = KVM_MSI_VALID_DEVID;
	refused("flags of a pin", routing);
	routing = Routing().message(1, 0);
	routing.last().flags = KVM_MSI_VALID_DEVID << 1;
	refused("flags of a message", routing);
	routing.last().flags = KVM_MSI_VALID_DEVID;
	equal("a message with the device's id", routing.set(chips), 0);
	for (const uint32_t type : {0u, 3u, 99u}) {
		routing = Routing();
		routing.add(1, type);
		refused("another type", routing);
	}
	routing = Routing();
	for (uint32_t gsi = 0; gsi < 4096; gsi++)
		routing.message(gsi, gsi % 256);
	equal("all GSIs", routing.set(chips), 0);
	refused("one more", routing.message(0, 0));
}

void routing_replaced()
{
	const Chips chips(Irqchip::kernel);
	equal("another", Routing().pin(100, KVM_IRQCHIP_IOAPIC, 9).set(chips), 0);
	equal("what was", chips.line(9, true), -1);
	chips.line(100, true);
	equal("what is", chips.state(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr, 1u << 9);
	equal("refused", Routing().pin(100, KVM_IRQCHIP_IOAPIC, 10).pin(1, 3, 0).set(chips),
	      -EINVAL);
	equal("what still is", chips.line(100, false), 1);
	equal("none", Routing().set(chips), 0);
	equal("nothing is", chips.line(100, false), -1);
}

void messages()
{
	const Chips chips;
	equal("split", chips.enable(KVM_CAP_SPLIT_IRQCHIP, 24), 0);
	// Nobody is there: KVM's -1 is EPERM to user space.
	equal("KVM_SIGNAL_MSI", signal(chips), -EPERM);
	equal("with the device's id", signal(chips, 0, KVM_MSI_VALID_DEVID), -EPERM);
	equal("with other flags", signal(chips, 0, 2), -EINVAL);
	equal("with low bits in the high half", signal(chips, 0x1ff), -EPERM);
	equal("such a route", Routing().message(5, 0x31, 0x101).set(chips), 0);
	equal("wide ids", chips.enable(KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS), 0);
	equal("low bits then", signal(chips, 0x1ff), -EINVAL);
	equal("without them", signal(chips, 0x100), -EPERM);
	equal("the route of before", chips.line(5, true), -1);
	equal("such a route then", Routing().message(5, 0x31, 0x101).set(chips), -EINVAL);
}

constexpr ktap::Case cases[] = {
	{"made_once_and_first", made_once_and_first},
	{"capabilities_enabled", capabilities_enabled},
	{"without_controllers", without_controllers},
	{"split_has_no_chips", split_has_no_chips},
	{"bad_pointers", bad_pointers},
	{"states_kept", states_kept},
	{"what_a_line_says", what_a_line_says},
	{"default_routing", default_routing},
	{"routing_refused", routing_refused},
	{"routing_replaced", routing_replaced},
	{"messages", messages},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
