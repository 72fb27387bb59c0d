// SPDX-License-Identifier: GPL-2.0
// The interrupt controllers of a VM, by the ioctls and as the vCPUs use them: errnos are KVM's.
#include "vm_fixture.hpp"

#include "virt/irqchip/irqchip.hpp"
#include "virt/vm.hpp"

#include <vector>

namespace kvmpp::host
{

namespace
{

constexpr u64 level = 1 << 15, remote_irr = 1 << 14;

class IrqchipTest : public ModuleTest
{
protected:
	IrqchipTest() { vm = create_vm(); }
	~IrqchipTest() override { close_fd(vm); }

	long make() { return vm_ioctl(vm, KVM_CREATE_IRQCHIP, 0ul); }
	long enable(u32 what, u64 argument, u32 flags = 0)
	{
		kvm_enable_cap cap{};

		cap.cap = what;
		cap.flags = flags;
		cap.args[0] = argument;
		return vm_ioctl(vm, KVM_ENABLE_CAP, cap);
	}
	long split(u64 pins = 24) { return enable(KVM_CAP_SPLIT_IRQCHIP, pins); }
	long line(u32 gsi, bool up)
	{
		kvm_irq_level request{};

		request.irq = gsi;
		request.level = up;
		return vm_ioctl(vm, KVM_IRQ_LINE, request);
	}
	int line_status(u32 gsi, bool up)
	{
		kvm_irq_level request{};

		request.irq = gsi;
		request.level = up;
		EXPECT_EQ(vm_ioctl(vm, KVM_IRQ_LINE_STATUS, request), 0);
		return request.status;
	}
	kvm_irqchip state(u32 chip)
	{
		kvm_irqchip request{};

		request.chip_id = chip;
		EXPECT_EQ(vm_ioctl(vm, KVM_GET_IRQCHIP, request), 0);
		return request;
	}
	u64 redirection(u32 pin)
	{
		return state(KVM_IRQCHIP_IOAPIC).chip.ioapic.redirtbl[pin].bits;
	}
	void set_redirection(u32 pin, u64 bits, u32 irr = 0)
	{
		kvm_irqchip request = state(KVM_IRQCHIP_IOAPIC);

		request.chip.ioapic.redirtbl[pin].bits = bits;
		request.chip.ioapic.irr = irr;
		EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, request), 0);
	}

	struct Routing {
		u32 count = 0, flags = 0;
		kvm_irq_routing_entry entries[IrqRouting::max_gsis] = {};

		kvm_irq_routing_entry &add(u32 gsi, u32 type)
		{
			entries[count].gsi = gsi;
			entries[count].type = type;
			return entries[count++];
		}
		Routing &pin(u32 gsi, u32 chip, u32 pin)
		{
			add(gsi, KVM_IRQ_ROUTING_IRQCHIP).u.irqchip = {chip, pin};
			return *this;
		}
		Routing &message(u32 gsi, u32 data, u32 high = 0)
		{
			auto &msi = add(gsi, KVM_IRQ_ROUTING_MSI).u.msi;

			msi.address_lo = 0xfee00000;
			msi.address_hi = high;
			msi.data = data;
			return *this;
		}
	};
	long route(Routing &routing) { return vm_ioctl(vm, KVM_SET_GSI_ROUTING, routing); }
	long signal(u32 data, u32 high = 0, u32 flags = 0)
	{
		kvm_msi msi{};

		msi.address_lo = 0xfee00000;
		msi.address_hi = high;
		msi.data = data;
		msi.flags = flags;
		return vm_ioctl(vm, KVM_SIGNAL_MSI, msi);
	}

	Irqchip &irqchip() { return *static_cast<Vm *>(object_of(vm))->irqchip(); }
	bool write(IoSpace space, u64 address, std::vector<u8> bytes)
	{
		DeviceAccess access{.space = space,
				    .is_write = true,
				    .address = address,
				    .length = static_cast<u32>(bytes.size()),
				    .data = {}};

		std::copy(bytes.begin(), bytes.end(), access.data);
		return irqchip().access(access);
	}
	u64 read(IoSpace space, u64 address, u32 length)
	{
		DeviceAccess access{.space = space,
				    .is_write = false,
				    .address = address,
				    .length = length,
				    .data = {1, 1, 1, 1, 1, 1, 1, 1}};
		u64 value = 0;

		EXPECT_TRUE(irqchip().access(access));
		for (u32 i = 0; i < length; i++)
			value |= u64{access.data[i]} << 8 * i;
		return value;
	}
	void out(u16 port, u8 value) { EXPECT_TRUE(write(IoSpace::port, port, {value})); }
	void set_up_pics()
	{
		for (u8 value : {0x08, 0x04, 0x01}) {
			if (value == 0x08)
				out(0x20, 0x11);
			out(0x21, value);
		}
		for (u8 value : {0x70, 0x02, 0x01}) {
			if (value == 0x70)
				out(0xa0, 0x11);
			out(0xa1, value);
		}
	}

	int vm;
};

struct Listener final : IrqAckListener {
	explicit Listener(u32 of) { gsi = of; }
	void acknowledged() override
	{
		count++;
		if (then)
			then();
	}
	int count = 0;
	std::function<void()> then;
};

TEST_F(IrqchipTest, IsMadeOnce)
{
	EXPECT_EQ(make(), 0);
	EXPECT_EQ(make(), -EEXIST);
	EXPECT_EQ(split(), -EEXIST);
}

TEST_F(IrqchipTest, SplitIsMadeOnce)
{
	EXPECT_EQ(split(4097), -EINVAL);
	EXPECT_EQ(split(4096), 0);
	EXPECT_EQ(split(), -EEXIST);
	EXPECT_EQ(split(4097), -EINVAL);
	EXPECT_EQ(make(), -EEXIST);
}

TEST_F(IrqchipTest, IsMadeBeforeTheVcpus)
{
	int vcpu = create_vcpu(vm);

	EXPECT_EQ(make(), -EINVAL);
	EXPECT_EQ(split(), -EEXIST);
	EXPECT_EQ(line(0, true), -ENXIO);
	close_fd(vcpu);
}

TEST_F(IrqchipTest, NothingIsThereWithoutOne)
{
	kvm_irqchip chip{};
	Routing none;

	EXPECT_EQ(vm_ioctl(vm, KVM_GET_IRQCHIP, chip), -ENXIO);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, chip), -ENXIO);
	EXPECT_EQ(line(0, true), -ENXIO);
	kvm_irq_level request{};
	EXPECT_EQ(vm_ioctl(vm, KVM_IRQ_LINE_STATUS, request), -ENXIO);
	EXPECT_EQ(route(none), -EINVAL);
	EXPECT_EQ(signal(0x31), -EINVAL);
}

TEST_F(IrqchipTest, SplitHasLinesButNoChips)
{
	EXPECT_EQ(split(), 0);
	kvm_irqchip chip{};
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_IRQCHIP, chip), -ENXIO);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, chip), -ENXIO);
	EXPECT_EQ(line_status(0, true), -1);
	EXPECT_FALSE(write(IoSpace::port, 0x20, {0x11}));
	EXPECT_FALSE(write(IoSpace::mmio, 0xfec00000, {0, 0, 0, 0}));
	Routing pin;
	EXPECT_EQ(route(pin.pin(3, KVM_IRQCHIP_IOAPIC, 3)), -EINVAL);
}

TEST_F(IrqchipTest, CapabilitiesToEnable)
{
	EXPECT_EQ(enable(KVM_CAP_SPLIT_IRQCHIP, 24, 1), -EINVAL);
	EXPECT_EQ(enable(KVM_CAP_USER_MEMORY, 0), -EINVAL);
	EXPECT_EQ(enable(~0u, 0), -EINVAL);
	EXPECT_EQ(enable(KVM_CAP_X2APIC_API, 4), -EINVAL);
	X2apicApi &api = static_cast<Vm *>(object_of(vm))->x2apic_api();
	EXPECT_EQ(enable(KVM_CAP_X2APIC_API, 0), 0);
	EXPECT_FALSE(api.has_wide_ids());
	EXPECT_EQ(enable(KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS), 0);
	EXPECT_TRUE(api.has_wide_ids());
	EXPECT_FALSE(api.is_broadcast_wide());
	EXPECT_EQ(enable(KVM_CAP_X2APIC_API, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK), 0);
	/* None is taken back. */
	EXPECT_TRUE(api.has_wide_ids());
	EXPECT_TRUE(api.is_broadcast_wide());
}

TEST_F(IrqchipTest, ArgumentsThatAreNotThere)
{
	for (bool there : {false, true}) {
		for (unsigned command :
		     {KVM_GET_IRQCHIP, KVM_SET_IRQCHIP, KVM_IRQ_LINE, KVM_IRQ_LINE_STATUS,
		      KVM_SET_GSI_ROUTING, KVM_SIGNAL_MSI, KVM_ENABLE_CAP})
			EXPECT_EQ(vm_ioctl(vm, command, 0x10ul), -EFAULT) << command;
		if (!there) {
			EXPECT_EQ(make(), 0);
		}
	}
	/* The entries, not all of which are in the VMM's memory. */
	struct {
		u32 count = 2, flags = 0;
		kvm_irq_routing_entry entry{
			.gsi = 1, .type = KVM_IRQ_ROUTING_MSI, .flags = 0, .pad = 0, .u = {}};
	} one;
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_GSI_ROUTING, one), -EFAULT);
}

TEST_F(IrqchipTest, ChipThatThereIsNot)
{
	EXPECT_EQ(make(), 0);
	kvm_irqchip chip{};
	chip.chip_id = 3;
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_IRQCHIP, chip), -EINVAL);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, chip), -EINVAL);
}

TEST_F(IrqchipTest, StatesAreKept)
{
	EXPECT_EQ(make(), 0);
	kvm_irqchip chip = state(KVM_IRQCHIP_PIC_SLAVE);
	EXPECT_EQ(chip.chip.pic.elcr_mask, 0xde);
	chip.chip.pic.irq_base = 0x70;
	chip.chip.pic.imr = 0xef;
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, chip), 0);
	EXPECT_EQ(std::memcmp(&chip, &(const kvm_irqchip &)state(KVM_IRQCHIP_PIC_SLAVE),
			      sizeof(chip)),
		  0);
	EXPECT_EQ(state(KVM_IRQCHIP_PIC_MASTER).chip.pic.irq_base, 0);
	set_redirection(7, level | 0x47);
	EXPECT_EQ(redirection(7), level | 0x47);
}

TEST_F(IrqchipTest, DefaultRouting)
{
	EXPECT_EQ(make(), 0);
	for (u32 gsi = 0; gsi < 24; gsi++)
		line(gsi, true);
	EXPECT_EQ(state(KVM_IRQCHIP_PIC_MASTER).chip.pic.last_irr, 0xfb); /* the cascade falls */
	EXPECT_EQ(state(KVM_IRQCHIP_PIC_SLAVE).chip.pic.last_irr, 0xff);
	EXPECT_EQ(state(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr, 0xffffffu);
	EXPECT_EQ(line_status(24, true), -1);
	EXPECT_EQ(line_status(~0u, true), -1);
	EXPECT_EQ(line(4096, true), 0);
}

TEST_F(IrqchipTest, StatusIsTheSumOverTheChips)
{
	EXPECT_EQ(make(), 0);
	/* The I/O APIC's pin is masked, the 8259's is new, then pending. */
	EXPECT_EQ(line_status(3, true), 1);
	EXPECT_EQ(line_status(3, false), 2);
	EXPECT_EQ(line_status(3, true), 0);
	/* Masked at both. */
	kvm_irqchip chip = state(KVM_IRQCHIP_PIC_MASTER);
	chip.chip.pic.imr = 0xff;
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, chip), 0);
	EXPECT_EQ(line_status(5, true), -1);
	EXPECT_EQ(line_status(17, true), -1);
	EXPECT_EQ(line_status(17, false), 1);
}

TEST_F(IrqchipTest, RoutingIsRefused)
{
	EXPECT_EQ(make(), 0);
	auto refused = [&](Routing routing) { EXPECT_EQ(route(routing), -EINVAL); };
	auto taken = [&](Routing routing) { EXPECT_EQ(route(routing), 0); };
	refused(Routing().message(4096, 0));
	taken(Routing().message(4095, 0));
	refused(Routing().pin(1, 3, 0));
	refused(Routing().pin(1, ~0u, 0));
	refused(Routing().pin(1, KVM_IRQCHIP_PIC_MASTER, 8));
	refused(Routing().pin(1, KVM_IRQCHIP_PIC_SLAVE, 8));
	refused(Routing().pin(1, KVM_IRQCHIP_IOAPIC, 24));
	taken(Routing().pin(1, KVM_IRQCHIP_IOAPIC, 23).pin(1, KVM_IRQCHIP_PIC_SLAVE, 7));
	/* Twice to one chip, or to a message and more. */
	refused(Routing().pin(1, KVM_IRQCHIP_IOAPIC, 1).pin(1, KVM_IRQCHIP_IOAPIC, 2));
	refused(Routing().message(1, 0).message(1, 1));
	refused(Routing().message(1, 0).pin(1, KVM_IRQCHIP_IOAPIC, 1));
	refused(Routing().pin(1, KVM_IRQCHIP_IOAPIC, 1).message(1, 0));
	for (u32 type : {0u, 3u, 4u, 5u, ~0u}) {
		Routing routing;

		routing.add(1, type);
		refused(routing);
	}
	Routing flags;
	flags.flags = 1;
	refused(flags);
	Routing of_pin;
	of_pin.pin(1, KVM_IRQCHIP_IOAPIC, 1).entries[0].flags = KVM_MSI_VALID_DEVID;
	refused(of_pin);
	Routing of_message;
	of_message.message(1, 0).entries[0].flags = KVM_MSI_VALID_DEVID << 1;
	refused(of_message);
	of_message.entries[0].flags = KVM_MSI_VALID_DEVID;
	taken(of_message);
	auto most = std::make_unique<Routing>();
	for (u32 gsi = 0; gsi < 4096; gsi++)
		most->message(gsi, gsi % 256);
	EXPECT_EQ(route(*most), 0);
	most->count = 4097;
	EXPECT_EQ(route(*most), -EINVAL);
}

TEST_F(IrqchipTest, RefusedRoutingChangesNothing)
{
	EXPECT_EQ(make(), 0);
	Routing bad;
	EXPECT_EQ(route(bad.pin(3, KVM_IRQCHIP_IOAPIC, 9).pin(3, 7, 7)), -EINVAL);
	line(3, true);
	EXPECT_EQ(state(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr, 1u << 3);
}

TEST_F(IrqchipTest, RoutingIsReplacedWhole)
{
	EXPECT_EQ(make(), 0);
	Routing routing;
	EXPECT_EQ(route(routing.pin(100, KVM_IRQCHIP_IOAPIC, 9)), 0);
	EXPECT_EQ(line_status(3, true), -1);
	line(100, true);
	EXPECT_EQ(state(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr, 1u << 9);
	Routing none;
	EXPECT_EQ(route(none), 0);
	EXPECT_EQ(line_status(100, false), -1);
	EXPECT_EQ(state(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr, 1u << 9);
}

TEST_F(IrqchipTest, WithoutMemory)
{
	for (unsigned n = 0; n < 4; n++) {
		fail_allocation_after(n);
		EXPECT_EQ(make(), -ENOMEM) << n;
		EXPECT_EQ(line(0, true), -ENXIO);
	}
	fail_allocation_after(~0u);
	EXPECT_EQ(make(), 0);
	for (unsigned n = 0; n < 3; n++) {
		Routing routing;

		fail_allocation_after(n);
		EXPECT_EQ(route(routing.pin(3, KVM_IRQCHIP_IOAPIC, 9)), -ENOMEM) << n;
	}
	fail_allocation_after(~0u);
	line(3, true);
	EXPECT_EQ(state(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr, 1u << 3);
}

TEST_F(IrqchipTest, MessagesOfUserSpace)
{
	EXPECT_EQ(split(), 0);
	/* Nobody is there: -1 of KVM's is EPERM. */
	EXPECT_EQ(signal(0x31), -EPERM);
	EXPECT_EQ(signal(0x31, 0, KVM_MSI_VALID_DEVID), -EPERM);
	EXPECT_EQ(signal(0x31, 0, 2), -EINVAL);
	EXPECT_EQ(signal(0x31, 0x1ff), -EPERM);
	Routing low;
	EXPECT_EQ(route(low.message(5, 0x31, 0x101)), 0);
	EXPECT_EQ(enable(KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS), 0);
	EXPECT_EQ(signal(0x31, 0x1ff), -EINVAL);
	EXPECT_EQ(signal(0x31, 0x100), -EPERM);
	EXPECT_EQ(line_status(5, true), -1);
	EXPECT_EQ(route(low), -EINVAL);
	Routing high;
	EXPECT_EQ(route(high.message(5, 0x31, 0x100)), 0);
}

TEST(MsiTest, Decoding)
{
	Msi msi{.address_low = 0xfee12000, .address_high = 0x00abcd00, .data = 0x31};
	ApicMessage m = msi.decode(false);
	EXPECT_EQ(m.destination, 0x12u);
	EXPECT_EQ(m.vector, 0x31);
	EXPECT_EQ(m.delivery, ApicMessage::Delivery::fixed);
	EXPECT_FALSE(m.logical);
	EXPECT_FALSE(m.level);
	EXPECT_TRUE(m.asserted);
	EXPECT_EQ(m.shorthand, ApicMessage::Shorthand::none);
	EXPECT_EQ(msi.decode(true).destination, 0x00abcd12u);
	msi.address_low |= 1 << 2;
	EXPECT_TRUE(msi.decode(true).logical);
	msi.data = 0xc000 | 4 << 8;
	EXPECT_TRUE(msi.decode(false).level);
	EXPECT_EQ(msi.decode(false).delivery, ApicMessage::Delivery::nmi);
	/* The redirection hint is lowest priority, but of what is to be an NMI. */
	msi.address_low |= 1 << 3;
	EXPECT_EQ(msi.decode(false).delivery, ApicMessage::Delivery::nmi);
	msi.data = 0x31;
	EXPECT_EQ(msi.decode(false).delivery, ApicMessage::Delivery::lowest_priority);
	EXPECT_TRUE(msi.is_valid(true));
	msi.address_high = 1;
	EXPECT_FALSE(msi.is_valid(true));
	EXPECT_TRUE(msi.is_valid(false));
}

TEST_F(IrqchipTest, UserSpaceIsToldOfItsPinsEnds)
{
	EXPECT_EQ(split(24), 0);
	EXPECT_FALSE(irqchip().user_wants_end_of(0x31));
	Routing routing;
	routing.message(23, 0x8031).message(24, 0x8032).message(2, 0x33);
	EXPECT_EQ(route(routing), 0);
	EXPECT_TRUE(irqchip().user_wants_end_of(0x31));
	EXPECT_FALSE(irqchip().user_wants_end_of(0x32)); /* of no pin */
	EXPECT_FALSE(irqchip().user_wants_end_of(0x33)); /* an edge */
	Routing none;
	EXPECT_EQ(route(none), 0);
	EXPECT_FALSE(irqchip().user_wants_end_of(0x31));
	irqchip().end_of_interrupt(0x31, true);
}

TEST_F(IrqchipTest, ExternalInterrupt)
{
	EXPECT_EQ(make(), 0);
	set_up_pics();
	EXPECT_FALSE(irqchip().has_external_interrupt());
	line(10, true);
	EXPECT_TRUE(irqchip().has_external_interrupt());
	EXPECT_EQ(irqchip().acknowledge_external_interrupt(), 0x72);
	EXPECT_FALSE(irqchip().has_external_interrupt());
	EXPECT_EQ(state(KVM_IRQCHIP_PIC_SLAVE).chip.pic.isr, 0x04);
	line(1, true);
	EXPECT_TRUE(irqchip().has_external_interrupt());
	out(0x21, 0x02);
	EXPECT_FALSE(irqchip().has_external_interrupt());
	EXPECT_EQ(irqchip().acknowledge_external_interrupt(), 0x0f);
	/* KVM_SET_IRQCHIP of it. */
	kvm_irqchip chip = state(KVM_IRQCHIP_PIC_MASTER);
	chip.chip.pic.imr = 0;
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, chip), 0);
	EXPECT_TRUE(irqchip().has_external_interrupt());
}

TEST_F(IrqchipTest, PortsAreBytes)
{
	EXPECT_EQ(make(), 0);
	set_up_pics();
	out(0x21, 0x5a);
	EXPECT_EQ(read(IoSpace::port, 0x21, 1), 0x5au);
	EXPECT_EQ(read(IoSpace::port, 0x20, 2), 0u);
	EXPECT_TRUE(write(IoSpace::port, 0x20, {0, 0xff}));
	EXPECT_EQ(read(IoSpace::port, 0x21, 1), 0x5au);
	EXPECT_FALSE(write(IoSpace::port, 0x21, {0, 0}));
	EXPECT_FALSE(write(IoSpace::port, 0x22, {0}));
	EXPECT_FALSE(write(IoSpace::mmio, 0x20, {0}));
	EXPECT_FALSE(write(IoSpace::port, 0xfec00000, {0}));
	out(0x4d1, 0xff);
	EXPECT_EQ(read(IoSpace::port, 0x4d1, 1), 0xdeu);
}

TEST_F(IrqchipTest, IoapicTakesAnyLength)
{
	EXPECT_EQ(make(), 0);
	EXPECT_TRUE(write(IoSpace::mmio, 0xfec00000, {1}));
	EXPECT_EQ(read(IoSpace::mmio, 0xfec00010, 4), 0x00170011u);
	EXPECT_EQ(read(IoSpace::mmio, 0xfec00010, 1), 0x11u);
	EXPECT_EQ(read(IoSpace::mmio, 0xfec00010, 2), 0x0011u);
	EXPECT_EQ(read(IoSpace::mmio, 0xfec00010, 8), 0x00170011u);
	EXPECT_TRUE(write(IoSpace::mmio, 0xfec00000, {0x12, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}));
	EXPECT_TRUE(write(IoSpace::mmio, 0xfec00010, {0x31, 0x80, 0, 0}));
	EXPECT_EQ(redirection(1), level | 0x31u);
	EXPECT_FALSE(write(IoSpace::mmio, 0xfec000fe, {0, 0, 0, 0}));
	EXPECT_FALSE(write(IoSpace::mmio, 0xfec00100, {0}));
}

TEST_F(IrqchipTest, EndOfInterrupt)
{
	EXPECT_EQ(make(), 0);
	set_redirection(9, level | remote_irr | 0x49);
	irqchip().end_of_interrupt(0x48, true);
	irqchip().end_of_interrupt(0x49, false);
	EXPECT_EQ(redirection(9), level | remote_irr | 0x49);
	irqchip().end_of_interrupt(0x49, true);
	EXPECT_EQ(redirection(9), level | 0x49);
}

TEST_F(IrqchipTest, ListenersHearOfTheirGsi)
{
	Listener of_9(9), of_10(10), also_9(9);

	EXPECT_EQ(make(), 0);
	set_up_pics();
	for (Listener *listener : {&of_9, &of_10, &also_9})
		irqchip().add(*listener);
	set_redirection(9, level | remote_irr | 0x49);
	irqchip().end_of_interrupt(0x49, true);
	EXPECT_EQ(of_9.count, 1);
	EXPECT_EQ(also_9.count, 1);
	EXPECT_EQ(of_10.count, 0);
	/* The middle one goes, and the ends of edges are told as well. */
	irqchip().remove(of_10);
	irqchip().end_of_interrupt(0x49, false);
	EXPECT_EQ(of_9.count, 2);
	irqchip().remove(also_9);
	irqchip().end_of_interrupt(0x49, true);
	EXPECT_EQ(of_9.count, 3);
	EXPECT_EQ(also_9.count, 2);
	/* By the 8259s. */
	line(9, true);
	irqchip().acknowledge_external_interrupt();
	EXPECT_EQ(of_9.count, 3);
	out(0xa0, 0x20);
	EXPECT_EQ(of_9.count, 4);
	out(0x20, 0x20);
	EXPECT_EQ(of_9.count, 4);
	/* A pin that nothing is routed to. */
	Routing none;
	EXPECT_EQ(route(none), 0);
	irqchip().end_of_interrupt(0x49, true);
	EXPECT_EQ(of_9.count, 4);
	irqchip().remove(of_9);
}

TEST_F(IrqchipTest, ListenerHearsOfTheGsiThatThePinHas)
{
	Listener listener(40);

	EXPECT_EQ(make(), 0);
	Routing routing;
	EXPECT_EQ(route(routing.pin(40, KVM_IRQCHIP_IOAPIC, 9)), 0);
	irqchip().add(listener);
	set_redirection(9, level | 0x49);
	irqchip().end_of_interrupt(0x49, true);
	EXPECT_EQ(listener.count, 1);
	irqchip().remove(listener);
}

TEST_F(IrqchipTest, ListenerMayLowerTheLineBeforeItIsLookedAtAgain)
{
	Listener listener(9);

	EXPECT_EQ(make(), 0);
	set_up_pics();
	irqchip().add(listener);
	listener.then = [&] {
		kvm_ioapic_state now;

		irqchip().get_ioapic(now);
		EXPECT_EQ(now.redirtbl[9].bits & remote_irr, remote_irr);
		irqchip().set_irq(IrqSource::resample, 9, false);
	};
	set_redirection(9, level | remote_irr | 0x49);
	out(0x4d1, 0x02);
	irqchip().set_irq(IrqSource::resample, 9, true);
	irqchip().end_of_interrupt(0x49, true);
	EXPECT_EQ(state(KVM_IRQCHIP_IOAPIC).chip.ioapic.irr, 0u);
	EXPECT_EQ(redirection(9), level | 0x49);
	/* The same by the 8259s: it does not come again. */
	EXPECT_TRUE(irqchip().has_external_interrupt());
	irqchip().set_irq(IrqSource::resample, 9, true);
	EXPECT_EQ(irqchip().acknowledge_external_interrupt(), 0x71);
	listener.then = [&] { irqchip().set_irq(IrqSource::resample, 9, false); };
	out(0xa0, 0x20);
	out(0x20, 0x20);
	EXPECT_FALSE(irqchip().has_external_interrupt());
	irqchip().remove(listener);
}

TEST_F(IrqchipTest, LinesAreSetInInterruptsToo)
{
	EXPECT_EQ(make(), 0);
	set_up_pics();
	{
		IrqOff off;

		EXPECT_EQ(irqchip().set_irq(IrqSource::pit, 0, true), 1);
		irqchip().end_of_interrupt(0x49, true);
		EXPECT_TRUE(irqchip().has_external_interrupt());
		EXPECT_EQ(irqchip().acknowledge_external_interrupt(), 0x08);
	}
	/* Two hold it. */
	line(0, true);
	irqchip().set_irq(IrqSource::pit, 0, false);
	EXPECT_EQ(state(KVM_IRQCHIP_PIC_MASTER).chip.pic.last_irr, 1);
	line(0, false);
	EXPECT_EQ(state(KVM_IRQCHIP_PIC_MASTER).chip.pic.last_irr, 0);
}

TEST_F(IrqchipTest, StormWaitsForTheTimer)
{
	EXPECT_EQ(make(), 0);
	set_redirection(9, level | remote_irr | 0x49);
	line(9, true);
	for (int i = 0; i < 9999; i++)
		irqchip().end_of_interrupt(0x49, true);
	EXPECT_EQ(timers_set(), 0);
	irqchip().end_of_interrupt(0x49, true);
	EXPECT_EQ(timers_set(), 1);
	advance_timers(10'000'000);
	EXPECT_EQ(timers_set(), 0);
	for (int i = 0; i < 10000; i++)
		irqchip().end_of_interrupt(0x49, true);
	EXPECT_EQ(timers_set(), 1);
	/* The VM's end takes it back: see the destructor of the test. */
	close_fd(vm);
	EXPECT_EQ(timers_set(), 0);
	vm = create_vm();
}

} // namespace

} // namespace kvmpp::host
