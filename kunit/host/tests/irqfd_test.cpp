// SPDX-License-Identifier: GPL-2.0
/* KVM_IRQFD: signals that become interrupts, lines that are held up, and the ends of both. */
#include "vm_fixture.hpp"

#include "virt/vm.hpp"

#include <asm/errno.h>

#include <functional>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class IrqfdTest : public ModuleTest
{
protected:
	static constexpr u32 resample = KVM_IRQFD_FLAG_RESAMPLE, deassign = KVM_IRQFD_FLAG_DEASSIGN;

	IrqfdTest() : vm(create_vm()) { EXPECT_EQ(vm_ioctl(vm, KVM_CREATE_IRQCHIP, 0ul), 0); }
	~IrqfdTest() override
	{
		if (vm >= 0)
			close_fd(vm);
	}

	static long irqfd_of(int which, int fd, u32 gsi, u32 flags = 0, int resample_fd = 0)
	{
		kvm_irqfd request{};

		request.fd = static_cast<u32>(fd);
		request.gsi = gsi;
		request.flags = flags;
		request.resamplefd = static_cast<u32>(resample_fd);
		return vm_ioctl(which, KVM_IRQFD, request);
	}
	long irqfd(int fd, u32 gsi, u32 flags = 0, int resample_fd = 0)
	{
		return irqfd_of(vm, fd, gsi, flags, resample_fd);
	}

	/* The edges that the 8259s have latched since this was asked last, a bit for each pin. */
	u32 edges()
	{
		u32 latched = 0;

		for (u32 id : {KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE}) {
			kvm_irqchip chip{};

			chip.chip_id = id;
			EXPECT_EQ(vm_ioctl(vm, KVM_GET_IRQCHIP, chip), 0);
			latched |= u32{chip.chip.pic.irr} << (id * 8);
			chip.chip.pic.irr = 0;
			EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, chip), 0);
		}
		return latched & ~4u; /* the cascade */
	}
	/* The I/O APIC's pins that are up. */
	u32 lines()
	{
		kvm_irqchip chip{};

		chip.chip_id = KVM_IRQCHIP_IOAPIC;
		EXPECT_EQ(vm_ioctl(vm, KVM_GET_IRQCHIP, chip), 0);
		return chip.chip.ioapic.irr;
	}
	/* Its pins are level-triggered, with a vector each, and masked: nobody takes what they send. */
	static constexpr u8 vector_of(u32 pin) { return static_cast<u8>(0x30 + pin); }
	void set_pins()
	{
		kvm_irqchip chip{};

		chip.chip_id = KVM_IRQCHIP_IOAPIC;
		chip.chip.ioapic.base_address = 0xfec00000;
		for (u32 pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
			chip.chip.ioapic.redirtbl[pin].bits = vector_of(pin) | 1 << 15 | 1 << 16;
		EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, chip), 0);
	}
	void end_of_interrupt(u32 pin)
	{
		static_cast<Vm *>(object_of(vm))->irqchip()->end_of_interrupt(vector_of(pin), true);
	}
	void route(u32 gsi, u32 pin)
	{
		struct {
			kvm_irq_routing header;
			kvm_irq_routing_entry entry;
		} routing{};

		routing.header.nr = 1;
		routing.entry.gsi = gsi;
		routing.entry.type = KVM_IRQ_ROUTING_IRQCHIP;
		routing.entry.u.irqchip = {.irqchip = KVM_IRQCHIP_PIC_MASTER, .pin = pin};
		EXPECT_EQ(vm_ioctl(vm, KVM_SET_GSI_ROUTING, routing), 0);
	}
	void close_vm()
	{
		close_fd(vm);
		vm = -1;
	}

	int vm;
	int fd = create_eventfd(), other = create_eventfd(), resampled = create_eventfd(),
	    also_resampled = create_eventfd();
};

} // namespace

TEST_F(IrqfdTest, capabilities)
{
	for (unsigned long capability : {KVM_CAP_IRQFD, KVM_CAP_IRQFD_RESAMPLE})
		EXPECT_EQ(kvmpp_device_ioctl(KVM_CHECK_EXTENSION, capability), 1);
}

TEST_F(IrqfdTest, arguments)
{
	EXPECT_EQ(vm_ioctl(vm, KVM_IRQFD, 0x7f0000000000ul), -EFAULT);
	EXPECT_EQ(irqfd(fd, 5, 1 << 2), -EINVAL);
	EXPECT_EQ(irqfd(fd, 5, deassign | 1u << 31), -EINVAL);
	for (u32 flags : {0u, deassign, resample}) {
		EXPECT_EQ(irqfd(-1, 5, flags, resampled), -EBADF);
		EXPECT_EQ(irqfd(fd + 100, 5, flags, resampled), -EBADF);
		EXPECT_EQ(irqfd(3, 5, flags, resampled), -EINVAL) << "no eventfd";
	}
	EXPECT_EQ(irqfd(fd, 5, resample, -1), -EBADF);
	EXPECT_EQ(irqfd(fd, 5, resample, 3), -EINVAL);
	EXPECT_EQ(irqfd(fd, 5, deassign), 0) << "not there, as KVM has it";
	EXPECT_EQ(irqfd(fd, 5, deassign | resample, -1), 0);
	EXPECT_EQ(eventfds_held(), 0);

	EXPECT_EQ(irqfd(fd, 5), 0);
	EXPECT_EQ(irqfd(fd, 5), -EBUSY);
	EXPECT_EQ(irqfd(fd, 6), -EBUSY);
	EXPECT_EQ(irqfd(fd, 6, resample, resampled), -EBUSY);
	EXPECT_EQ(irqfd(other, 5), 0) << "two of one GSI";
	EXPECT_EQ(eventfds_held(), 2);
	EXPECT_EQ(irqfd(resampled, ~0u), 0) << "a GSI that leads nowhere";
	signal_eventfd(resampled);
	EXPECT_EQ(edges(), 0u);
}

TEST_F(IrqfdTest, needs_interrupt_controllers)
{
	int none = create_vm(), split = create_vm();
	kvm_enable_cap cap{};

	cap.cap = KVM_CAP_SPLIT_IRQCHIP;
	cap.args[0] = 24;
	EXPECT_EQ(vm_ioctl(split, KVM_ENABLE_CAP, cap), 0);
	EXPECT_EQ(irqfd_of(none, fd, 5), -EINVAL);
	EXPECT_EQ(irqfd_of(none, -1, 5), -EINVAL) << "that is looked at first";
	EXPECT_EQ(irqfd_of(none, fd, 5, deassign), 0);
	EXPECT_EQ(irqfd_of(split, fd, 5, resample, resampled), -EINVAL)
		<< "user space has the I/O APIC";
	EXPECT_EQ(irqfd_of(split, fd, 5), 0);
	signal_eventfd(fd);
	close_fd(none);
	close_fd(split);
	EXPECT_EQ(eventfds_held(), 0);
}

TEST_F(IrqfdTest, signal_is_an_edge)
{
	EXPECT_EQ(irqfd(fd, 5), 0);
	EXPECT_EQ(irqfd(other, 9), 0);
	EXPECT_EQ(edges(), 0u);
	signal_eventfd(fd);
	EXPECT_EQ(lines(), 0u) << "the line is down again";
	EXPECT_EQ(edges(), 1u << 5);
	EXPECT_EQ(take_signals(fd), 0u) << "nobody else sees it";
	signal_eventfd(other);
	EXPECT_EQ(edges(), 1u << 9);
	for (int i = 0; i < 3; i++) {
		signal_eventfd(fd);
		EXPECT_EQ(edges(), 1u << 5) << i;
	}
}

TEST_F(IrqfdTest, signalled_before)
{
	set_pins();
	signal_eventfd(fd);
	signal_eventfd(other);
	EXPECT_EQ(irqfd(fd, 5), 0);
	EXPECT_EQ(edges(), 1u << 5);
	EXPECT_EQ(irqfd(other, 20, resample, resampled), 0);
	EXPECT_EQ(lines(), 1u << 20);
}

TEST_F(IrqfdTest, deassigned)
{
	EXPECT_EQ(irqfd(fd, 5), 0);
	EXPECT_EQ(irqfd(other, 5), 0);
	EXPECT_EQ(irqfd(fd, 6, deassign), 0) << "of another GSI, which is not there";
	signal_eventfd(fd);
	EXPECT_EQ(edges(), 1u << 5);
	EXPECT_EQ(irqfd(fd, 5, deassign), 0);
	EXPECT_EQ(eventfds_held(), 1) << "at once";
	signal_eventfd(fd);
	EXPECT_EQ(edges(), 0u);
	EXPECT_EQ(take_signals(fd), 1u);
	signal_eventfd(other);
	EXPECT_EQ(edges(), 1u << 5) << "the other one is there";
	EXPECT_EQ(irqfd(fd, 6), 0) << "and the first may come again";
	signal_eventfd(fd);
	EXPECT_EQ(edges(), 1u << 6);
}

TEST_F(IrqfdTest, signalled_as_it_is_deassigned)
{
	EXPECT_EQ(irqfd(fd, 5), 0);
	before_next_leave([&] { signal_eventfd(fd); });
	EXPECT_EQ(irqfd(fd, 5, deassign), 0);
	EXPECT_EQ(edges(), 1u << 5);
}

TEST_F(IrqfdTest, end_of_the_eventfd)
{
	EXPECT_EQ(irqfd(fd, 5), 0);
	EXPECT_EQ(irqfd(other, 6), 0);
	close_eventfd(fd);
	EXPECT_EQ(eventfds_held(), 2) << "who closes it does not wait";
	EXPECT_EQ(run_workqueue(), 1);
	EXPECT_EQ(eventfds_held(), 1);
	signal_eventfd(fd); /* the kernel may, of one that user space has closed */
	EXPECT_EQ(edges(), 0u);
	signal_eventfd(other);
	EXPECT_EQ(edges(), 1u << 6);
}

TEST_F(IrqfdTest, several_eventfds_end_at_once)
{
	EXPECT_EQ(irqfd(fd, 5), 0);
	EXPECT_EQ(irqfd(other, 6, resample, resampled), 0);
	close_eventfd(fd);
	close_eventfd(other);
	EXPECT_EQ(run_workqueue(), 1);
	EXPECT_EQ(eventfds_held(), 0);
}

/* Whoever comes second finds nothing to do. */
TEST_F(IrqfdTest, eventfd_ends_as_it_is_deassigned)
{
	EXPECT_EQ(irqfd(fd, 5), 0);
	before_next_leave([&] { close_eventfd(fd); });
	EXPECT_EQ(irqfd(fd, 5, deassign), 0);
	EXPECT_EQ(eventfds_held(), 0);
	EXPECT_EQ(run_workqueue(), 1);
}

TEST_F(IrqfdTest, eventfd_ends_as_it_is_assigned)
{
	for (u32 flags : {0u, resample}) {
		int leaving = create_eventfd();

		before_next_wait([&] { close_eventfd(leaving); });
		EXPECT_EQ(irqfd(leaving, 5, flags, resampled), -EBADF);
		EXPECT_EQ(eventfds_held(), 0);
	}
	EXPECT_EQ(work_queued(), 0);
	end_of_interrupt(5);
	EXPECT_EQ(take_signals(resampled), 0u);
}

TEST_F(IrqfdTest, end_of_the_vm)
{
	EXPECT_EQ(irqfd(fd, 5), 0);
	EXPECT_EQ(irqfd(other, 6, resample, resampled), 0);
	close_vm();
	EXPECT_EQ(eventfds_held(), 0);
	signal_eventfd(fd);
	EXPECT_EQ(take_signals(fd), 1u);
}

/* kill -9 closes in any order: nothing may be left queued for code that goes. */
TEST_F(IrqfdTest, eventfd_ends_as_the_vm_does)
{
	EXPECT_EQ(irqfd(fd, 5), 0);
	EXPECT_EQ(irqfd(other, 6, resample, resampled), 0);
	close_eventfd(other);
	before_next_leave([&] { close_eventfd(fd); });
	close_vm();
	EXPECT_EQ(work_queued(), 0);
	EXPECT_EQ(eventfds_held(), 0);
}

/* Nobody can ask for one any more: they go with the VM's file, though its vCPU keeps the VM. */
TEST_F(IrqfdTest, vcpu_outlives_the_vms_file)
{
	int vcpu = create_vcpu(vm);

	EXPECT_EQ(irqfd(fd, 5), 0);
	EXPECT_EQ(irqfd(other, 6, resample, resampled), 0);
	close_vm();
	EXPECT_EQ(eventfds_held(), 0);
	close_fd(vcpu);
}

TEST_F(IrqfdTest, route_that_changes)
{
	EXPECT_EQ(irqfd(fd, 100), 0);
	signal_eventfd(fd);
	EXPECT_EQ(edges(), 0u);
	route(100, 3);
	signal_eventfd(fd);
	EXPECT_EQ(edges(), 1u << 3);
	route(100, 4);
	signal_eventfd(fd);
	EXPECT_EQ(edges(), 1u << 4);
	route(99, 4);
	signal_eventfd(fd);
	EXPECT_EQ(edges(), 0u);
}

TEST_F(IrqfdTest, line_is_held_until_the_end_of_its_interrupt)
{
	set_pins();
	EXPECT_EQ(irqfd(fd, 20, resample, resampled), 0);
	EXPECT_EQ(lines(), 0u);
	signal_eventfd(fd);
	signal_eventfd(fd);
	EXPECT_EQ(lines(), 1u << 20);
	end_of_interrupt(21);
	EXPECT_EQ(lines(), 1u << 20) << "another one's";
	EXPECT_EQ(take_signals(resampled), 0u);
	end_of_interrupt(20);
	EXPECT_EQ(lines(), 0u);
	EXPECT_EQ(take_signals(resampled), 1u);
	signal_eventfd(fd);
	EXPECT_EQ(lines(), 1u << 20);
}

TEST_F(IrqfdTest, line_of_several)
{
	set_pins();
	EXPECT_EQ(irqfd(fd, 20, resample, resampled), 0);
	EXPECT_EQ(irqfd(other, 20, resample, also_resampled), 0);
	signal_eventfd(fd);
	end_of_interrupt(20);
	EXPECT_EQ(lines(), 0u);
	EXPECT_EQ(take_signals(resampled), 1u);
	EXPECT_EQ(take_signals(also_resampled), 1u) << "each is to look at its device";

	/* Out of the list's middle, then its end. */
	int third = create_eventfd();
	EXPECT_EQ(irqfd(third, 20, resample, third), 0);
	signal_eventfd(other);
	EXPECT_EQ(irqfd(other, 20, deassign), 0);
	EXPECT_EQ(lines(), 1u << 20) << "whoever holds it up";
	end_of_interrupt(20);
	EXPECT_EQ(take_signals(resampled), 1u);
	EXPECT_EQ(take_signals(also_resampled), 0u);
	EXPECT_EQ(lines(), 1u << 20) << "the third is told by its own eventfd, and raises it";
	EXPECT_EQ(irqfd(fd, 20, deassign), 0);
	EXPECT_EQ(irqfd(third, 20, deassign), 0);
	EXPECT_EQ(lines(), 0u) << "nobody is left to lower it";
	end_of_interrupt(20);
	EXPECT_EQ(take_signals(resampled), 0u);
}

/* Who is told first raises the line anew; it is not to be lowered for the second. */
TEST_F(IrqfdTest, line_raised_while_others_are_told)
{
	set_pins();
	for (bool first : {true, false}) {
		/* The end of one's interrupt signals the other. */
		EXPECT_EQ(irqfd(fd, 20, resample, first ? other : resampled), 0);
		EXPECT_EQ(irqfd(other, 20, resample, first ? resampled : fd), 0);
		signal_eventfd(fd);
		end_of_interrupt(20);
		EXPECT_EQ(lines(), 1u << 20);
		EXPECT_EQ(irqfd(fd, 20, deassign), 0);
		EXPECT_EQ(irqfd(other, 20, deassign), 0);
	}
}

TEST_F(IrqfdTest, goes_when_nobody_is_left_who_would_signal_for_it)
{
	struct : IrqAckListener {
		std::function<void()> told;
		void acknowledged() override { told(); }
	} listener;
	Irqchip &irqchip = *static_cast<Vm *>(object_of(vm))->irqchip();

	set_pins();
	EXPECT_EQ(irqfd(fd, 20, resample, resampled), 0);
	EXPECT_EQ(irqfd(other, 20, resample, also_resampled), 0);
	listener.gsi = 20;
	listener.told = [&] {
		AnotherThread thread;

		EXPECT_EQ(irqfd(fd, 20, deassign), 0);
	};
	irqchip.add(listener);
	end_of_interrupt(20);
	EXPECT_EQ(take_violations(),
		  std::vector<std::string>{"synchronize_srcu() waits for its own caller"});
	irqchip.remove(listener);
}

/* A vCPU in a fault may wait for the thread that takes it out, by userfaultfd. */
TEST_F(IrqfdTest, goes_while_a_vcpu_is_in_a_fault)
{
	EXPECT_EQ(irqfd(fd, 20, resample, resampled), 0);
	EXPECT_EQ(irqfd(other, 20, resample, also_resampled), 0);
	SrcuRead fault(static_cast<Vm *>(object_of(vm))->srcu());
	AnotherThread thread;

	EXPECT_EQ(irqfd(fd, 20, deassign), 0);
	EXPECT_EQ(irqfd(other, 20, deassign), 0);
}

TEST_F(IrqfdTest, lines_of_user_space_and_of_an_irqfd)
{
	kvm_irq_level level{};

	set_pins();
	EXPECT_EQ(irqfd(fd, 20, resample, resampled), 0);
	level.irq = 20;
	level.level = 1;
	EXPECT_EQ(vm_ioctl(vm, KVM_IRQ_LINE, level), 0);
	signal_eventfd(fd);
	end_of_interrupt(20);
	EXPECT_EQ(lines(), 1u << 20) << "user space's is its own to lower";
	level.level = 0;
	EXPECT_EQ(vm_ioctl(vm, KVM_IRQ_LINE, level), 0);
	EXPECT_EQ(lines(), 0u);
}

TEST_F(IrqfdTest, no_memory)
{
	for (u32 flags : {0u, resample}) {
		for (unsigned count = 0;; count++) {
			fail_allocation_after(count);
			long error = irqfd(fd, 5, flags, resampled);
			if (!allocation_failed())
				break;
			EXPECT_EQ(error, -ENOMEM) << count;
			EXPECT_EQ(eventfds_held(), 0);
		}
		fail_allocation_after(~0u);
		EXPECT_EQ(irqfd(fd, 5, deassign), 0);
	}
}
