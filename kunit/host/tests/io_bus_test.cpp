// SPDX-License-Identifier: GPL-2.0
/* Writes of guests that user space does not see: ioeventfds, and the ring of coalesced writes. */
#include "device_fixture.hpp"
#include "virt/coalesced_ring.hpp"

#include <asm/errno.h>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class IoBusTest : public DeviceTest
{
protected:
	static constexpr u32 pio = KVM_IOEVENTFD_FLAG_PIO, match = KVM_IOEVENTFD_FLAG_DATAMATCH,
			     deassign = KVM_IOEVENTFD_FLAG_DEASSIGN;

	long ioeventfd(int fd, u64 address, u32 length, u32 flags = 0, u64 data = 0)
	{
		kvm_ioeventfd request{};

		request.datamatch = data;
		request.addr = address;
		request.len = length;
		request.fd = fd;
		request.flags = flags;
		return vm_ioctl(vm, KVM_IOEVENTFD, request);
	}
	long zone(unsigned command, u64 address, u32 size, u32 is_pio = 0)
	{
		kvm_coalesced_mmio_zone zone{};

		zone.addr = address;
		zone.size = size;
		zone.pio = is_pio;
		return vm_ioctl(vm, command, zone);
	}
	long coalesce(u64 address, u32 size, u32 is_pio = 0)
	{
		return zone(KVM_REGISTER_COALESCED_MMIO, address, size, is_pio);
	}
	long uncoalesce(u64 address, u32 size, u32 is_pio = 0)
	{
		return zone(KVM_UNREGISTER_COALESCED_MMIO, address, size, is_pio);
	}

	struct Ring {
		u32 first, last;
		kvm_coalesced_mmio entry[CoalescedRing::entries];
	};
	Ring &ring() { return *static_cast<Ring *>(kvmpp_vcpu_page(object_of(vcpu), 2)); }
	/* The guest stores a word; whether user space had to see it. */
	bool store_is_seen(u64 address, u16 value)
	{
		kvm_regs regs{};

		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_REGS, regs), 0);
		regs.rip = 0x1000;
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, regs), 0);
		guest({stores(address, value), halts()});
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 0ul), 0);
		if (shared(vcpu).exit_reason == KVM_EXIT_HLT)
			return false;
		EXPECT_EQ(shared(vcpu).exit_reason, u32{KVM_EXIT_MMIO});
		EXPECT_EQ(shared(vcpu).mmio.phys_addr, address);
		expect_exit(KVM_EXIT_HLT);
		return true;
	}
	bool out_is_seen(u16 port, u32 size, u64 value)
	{
		guest({outs(port, size, value), halts()});
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 0ul), 0);
		if (shared(vcpu).exit_reason == KVM_EXIT_HLT)
			return false;
		EXPECT_EQ(shared(vcpu).exit_reason, u32{KVM_EXIT_IO});
		expect_exit(KVM_EXIT_HLT);
		return true;
	}

	int fd = create_eventfd(), other = create_eventfd();
};

} // namespace

TEST_F(IoBusTest, capabilities)
{
	for (long capability : {KVM_CAP_IOEVENTFD, KVM_CAP_IOEVENTFD_NO_LENGTH,
				KVM_CAP_IOEVENTFD_ANY_LENGTH, KVM_CAP_COALESCED_PIO})
		EXPECT_EQ(kvmpp_device_ioctl(KVM_CHECK_EXTENSION,
					     static_cast<unsigned long>(capability)),
			  1);
	EXPECT_EQ(kvmpp_device_ioctl(KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO), 2)
		<< "where the ring is in the vCPU's mapping";
	EXPECT_EQ(kvmpp_device_ioctl(KVM_GET_VCPU_MMAP_SIZE, 0), 0x3000);
}

TEST_F(IoBusTest, ioeventfd_arguments)
{
	EXPECT_EQ(vm_ioctl(vm, KVM_IOEVENTFD, 0x7f0000000000ul), -EFAULT);
	for (u32 length : {3u, 5u, 6u, 7u, 9u, 16u, ~0u, 1u << 31})
		EXPECT_EQ(ioeventfd(fd, device, length), -EINVAL) << length;
	EXPECT_EQ(ioeventfd(fd, ~u64{0} - 2, 4), -EINVAL) << "beyond the last address";
	EXPECT_EQ(ioeventfd(fd, ~u64{0} - 4, 4), 0);
	EXPECT_EQ(ioeventfd(fd, ~u64{0} - 4, 4, deassign), 0);
	EXPECT_EQ(ioeventfd(fd, device, 0, match), -EINVAL) << "data of any length";
	EXPECT_EQ(ioeventfd(fd, device, 4, 1 << 5), -EINVAL);
	EXPECT_EQ(ioeventfd(fd, device, 4, KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY), -EINVAL);
	EXPECT_EQ(ioeventfd(-1, device, 4), -EBADF);
	EXPECT_EQ(ioeventfd(fd + 100, device, 4), -EBADF);
	EXPECT_EQ(ioeventfd(3, device, 4), -EINVAL) << "no eventfd";
	EXPECT_EQ(ioeventfd(-1, device, 3), -EINVAL) << "the length is looked at first";
	EXPECT_EQ(ioeventfd(-1, device, 4, deassign), -EBADF);
	EXPECT_EQ(ioeventfd(3, device, 4, deassign), -EINVAL);
	EXPECT_EQ(ioeventfd(fd, device, 4, deassign), -ENOENT);
	EXPECT_EQ(ioeventfd(fd, device, 3, deassign), -ENOENT) << "as KVM has it";
	EXPECT_EQ(eventfds_held(), 0);
}

TEST_F(IoBusTest, emulation_has_the_l1_data_cache_flushed)
{
	EXPECT_EQ(ioeventfd(fd, device, 2), 0);
	EXPECT_FALSE(store_is_seen(device, 1));
	EXPECT_EQ(l1d_flushes(), 2u) << "user space, and what the emulation has read";
	EXPECT_EQ(ioeventfd(fd, 0x70, 1, pio), 0);
	guest({strings(0x70, false, 0x1800, 2), halts()});
	expect_exit(KVM_EXIT_HLT);
	EXPECT_EQ(l1d_flushes(), 4u) << "likewise, of a string";
	EXPECT_FALSE(out_is_seen(0x70, 1, 1));
	EXPECT_EQ(l1d_flushes(), 5u) << "user space only";
}

TEST_F(IoBusTest, strings)
{
	std::memcpy(ram + 0x1800, "\1\1\2\1", 4);
	EXPECT_EQ(ioeventfd(fd, 0x70, 1, pio | match, 1), 0);
	guest({strings(0x70, false, 0x1800, 2), strings(0x70, false, 0x1800, 4), halts()});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(take_signals(fd), 4u) << "two, and two before what is user space's";
	EXPECT_EQ(shared(vcpu).io.count, 2u);
	EXPECT_EQ(std::memcmp(kvmpp_vcpu_page(object_of(vcpu), 1), "\2\1", 2), 0);
	expect_exit(KVM_EXIT_HLT);
	/* Nobody reads there. */
	guest({strings(0x70, true, 0x1800, 2), halts()});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(shared(vcpu).io.count, 2u);
	expect_exit(KVM_EXIT_HLT);
}

TEST_F(IoBusTest, ioeventfd_collisions)
{
	EXPECT_EQ(ioeventfd(fd, device, 4, match, 1), 0);
	EXPECT_EQ(ioeventfd(other, device, 4, match, 1), -EEXIST);
	EXPECT_EQ(ioeventfd(other, device, 4), -EEXIST) << "any data is also 1";
	EXPECT_EQ(ioeventfd(other, device, 0), -EEXIST) << "any length is also 4";
	EXPECT_EQ(ioeventfd(other, device, 4, match, 2), 0);
	EXPECT_EQ(ioeventfd(other, device, 2), 0);
	EXPECT_EQ(ioeventfd(other, device, 4, pio | match, 1), 0) << "a port";
	EXPECT_EQ(ioeventfd(fd, device + 1, 0), 0);
	EXPECT_EQ(ioeventfd(other, device + 1, 8), -EEXIST);
	EXPECT_EQ(eventfds_held(), 5);
	/* Only what was put in is taken out. */
	EXPECT_EQ(ioeventfd(fd, device, 4, deassign | match, 2), -ENOENT);
	EXPECT_EQ(ioeventfd(fd, device, 4, deassign), -ENOENT);
	EXPECT_EQ(ioeventfd(fd, device, 2, deassign | match, 1), -ENOENT);
	EXPECT_EQ(ioeventfd(fd, device, 4, deassign | match | pio, 1), -ENOENT);
	EXPECT_EQ(ioeventfd(fd, device, 4, deassign | match, 1), 0);
	EXPECT_EQ(ioeventfd(fd, device, 4, deassign | match, 1), -ENOENT);
	EXPECT_EQ(ioeventfd(other, device, 4, match, 1), 0);
	EXPECT_EQ(eventfds_held(), 5);
}

TEST_F(IoBusTest, ioeventfd_of_memory)
{
	EXPECT_EQ(ioeventfd(fd, device, 2, match, 0x1234), 0);
	EXPECT_EQ(ioeventfd(other, device, 2, match, 0x5678), 0);
	EXPECT_FALSE(store_is_seen(device, 0x1234));
	EXPECT_EQ(rip(), 0x1003u) << "the store and HLT are done";
	EXPECT_EQ(take_signals(fd), 1u);
	EXPECT_EQ(take_signals(other), 0u);
	EXPECT_FALSE(store_is_seen(device, 0x5678));
	EXPECT_EQ(take_signals(fd), 0u);
	EXPECT_EQ(take_signals(other), 1u);
	EXPECT_TRUE(store_is_seen(device, 0x9999)) << "other data";
	EXPECT_TRUE(store_is_seen(device + 1, 0x1234)) << "another address";
	EXPECT_EQ(take_signals(fd), 0u);

	EXPECT_EQ(ioeventfd(fd, device, 2, deassign | match, 0x1234), 0);
	EXPECT_TRUE(store_is_seen(device, 0x1234));
	EXPECT_EQ(take_signals(fd), 0u);
}

TEST_F(IoBusTest, ioeventfd_of_a_port)
{
	EXPECT_EQ(ioeventfd(fd, 0x510, 1, pio), 0);
	EXPECT_EQ(ioeventfd(other, 0x511, 0, pio), 0);
	EXPECT_FALSE(out_is_seen(0x510, 1, 0x12));
	EXPECT_FALSE(out_is_seen(0x510, 1, 0x34)) << "any data";
	EXPECT_EQ(take_signals(fd), 2u);
	EXPECT_TRUE(out_is_seen(0x510, 2, 0x12)) << "another length";
	EXPECT_TRUE(out_is_seen(0x512, 1, 0x12));
	EXPECT_EQ(take_signals(fd), 0u);
	for (u32 size : {1u, 2u, 4u})
		EXPECT_FALSE(out_is_seen(0x511, size, 0x12)) << "any length";
	EXPECT_EQ(take_signals(other), 3u);
	EXPECT_TRUE(store_is_seen(0xd510, 0x12));
}

/* The data of a write of all lengths, and nothing beyond it. */
TEST_F(IoBusTest, data_is_as_long_as_the_write)
{
	for (u32 size : {1u, 2u, 4u}) {
		u64 data = 0x11223344 & low_bits(8 * size);

		EXPECT_EQ(ioeventfd(fd, 0x80, size, pio | match, data), 0);
		EXPECT_FALSE(out_is_seen(0x80, size, 0xffffffff11223344)) << size;
		EXPECT_TRUE(out_is_seen(0x80, size, 0x11223345)) << size;
		EXPECT_EQ(ioeventfd(fd, 0x80, size, pio | match | deassign, data), 0);
	}
	EXPECT_EQ(take_signals(fd), 3u);
}

TEST_F(IoBusTest, ioeventfd_outlives_the_descriptor)
{
	EXPECT_EQ(ioeventfd(fd, device, 2), 0);
	close_eventfd(fd);
	EXPECT_FALSE(store_is_seen(device, 1));
	EXPECT_EQ(take_signals(fd), 1u);
	EXPECT_EQ(ioeventfd(fd, device, 2, deassign), -EBADF);
	EXPECT_EQ(ioeventfd(other, device, 2, deassign), -ENOENT);
	close_fd(vcpu);
	vcpu = -1;
	EXPECT_EQ(eventfds_held(), 1);
	close_fd(vm);
	vm = -1;
	EXPECT_EQ(eventfds_held(), 0) << "the VM's end gives it back";
}

TEST_F(IoBusTest, zone_of_memory)
{
	EXPECT_EQ(coalesce(device, 0x100), 0);
	EXPECT_FALSE(store_is_seen(device, 0x1234));
	EXPECT_FALSE(store_is_seen(device + 0xfe, 0x5678));
	EXPECT_TRUE(store_is_seen(device + 0xff, 1)) << "not all of it lies inside";
	EXPECT_TRUE(store_is_seen(device - 2, 1));
	EXPECT_TRUE(out_is_seen(0xd0, 2, 1));
	EXPECT_EQ(ring().first, 0u);
	ASSERT_EQ(ring().last, 2u);
	EXPECT_EQ(ring().entry[0].phys_addr, device);
	EXPECT_EQ(ring().entry[0].len, 2u);
	EXPECT_EQ(ring().entry[0].pio, 0u);
	EXPECT_EQ(ring().entry[0].data[0], 0x34);
	EXPECT_EQ(ring().entry[0].data[1], 0x12);
	EXPECT_EQ(ring().entry[1].phys_addr, device + 0xfe);
}

TEST_F(IoBusTest, zone_of_ports)
{
	EXPECT_EQ(coalesce(0x70, 1, 1), 0);
	EXPECT_FALSE(out_is_seen(0x70, 1, 0xab));
	EXPECT_TRUE(out_is_seen(0x70, 2, 0xab));
	ASSERT_EQ(ring().last, 1u);
	EXPECT_EQ(ring().entry[0].phys_addr, 0x70u);
	EXPECT_EQ(ring().entry[0].len, 1u);
	EXPECT_EQ(ring().entry[0].pio, 1u);
	EXPECT_EQ(ring().entry[0].data[0], 0xab);
}

TEST_F(IoBusTest, zones_come_and_go)
{
	EXPECT_EQ(vm_ioctl(vm, KVM_REGISTER_COALESCED_MMIO, 0x7f0000000000ul), -EFAULT);
	EXPECT_EQ(vm_ioctl(vm, KVM_UNREGISTER_COALESCED_MMIO, 0x7f0000000000ul), -EFAULT);
	EXPECT_EQ(coalesce(device, 0x100, 2), -EINVAL);
	EXPECT_EQ(uncoalesce(device, 0x100, 2), -EINVAL);
	EXPECT_EQ(uncoalesce(device, 0x100), 0) << "there is none, as KVM has it";
	EXPECT_EQ(coalesce(device, 0x100), 0);
	EXPECT_EQ(coalesce(device, 0x100), 0) << "once more";
	EXPECT_EQ(coalesce(device + 0x100, 0x100), 0);
	EXPECT_EQ(uncoalesce(device, 0x101), 0) << "no zone holds that";
	EXPECT_EQ(uncoalesce(device + 0x10, 0x10, 1), 0) << "ports";
	EXPECT_FALSE(store_is_seen(device, 1));
	EXPECT_EQ(uncoalesce(device + 0x10, 0x10), 0) << "all zones that hold that";
	EXPECT_TRUE(store_is_seen(device, 1));
	EXPECT_FALSE(store_is_seen(device + 0x100, 1));
	EXPECT_EQ(coalesce(device, 0), 0);
	EXPECT_TRUE(store_is_seen(device, 1)) << "an empty zone";
}

TEST_F(IoBusTest, zones_one_in_another)
{
	EXPECT_EQ(coalesce(device, 0x1000), 0);
	EXPECT_EQ(coalesce(device + 0x100, 0x100), 0);
	EXPECT_EQ(coalesce(device + 0x400, 1), 0);
	EXPECT_FALSE(store_is_seen(device + 0x300, 1));
	EXPECT_FALSE(store_is_seen(device + 0x400, 1));
	EXPECT_FALSE(store_is_seen(device + 0xffe, 1));
	EXPECT_EQ(ring().last, 3u) << "each once";
}

TEST_F(IoBusTest, ring_is_full)
{
	EXPECT_EQ(CoalescedRing::entries, 170u);
	EXPECT_EQ(coalesce(device, 0x100), 0);
	ring().first = 1;
	ring().last = 0;
	EXPECT_TRUE(store_is_seen(device, 1));
	EXPECT_EQ(ring().last, 0u);
	ring().first = 0;
	ring().last = 169;
	EXPECT_TRUE(store_is_seen(device, 1)) << "round the end";
	ring().first = 1;
	EXPECT_FALSE(store_is_seen(device, 1));
	EXPECT_EQ(ring().last, 0u);
	EXPECT_EQ(ring().entry[169].phys_addr, device);
}

TEST_F(IoBusTest, ring_that_user_space_spoils)
{
	EXPECT_EQ(coalesce(device, 0x100), 0);
	for (u32 last : {170u, 171u, 0x10000u, ~0u}) {
		ring().last = last;
		EXPECT_TRUE(store_is_seen(device, 1)) << last;
		EXPECT_EQ(ring().last, last);
	}
	ring().last = 5;
	for (u32 first : {170u, ~0u}) {
		ring().first = first;
		EXPECT_FALSE(store_is_seen(device, 1)) << first;
	}
	EXPECT_EQ(ring().last, 7u);
}

/* Both at one address: who ends first, then who came first. */
TEST_F(IoBusTest, eventfd_in_a_zone)
{
	EXPECT_EQ(coalesce(device, 0x100), 0);
	EXPECT_EQ(ioeventfd(fd, device, 2), 0);
	EXPECT_FALSE(store_is_seen(device, 1));
	EXPECT_EQ(take_signals(fd), 1u);
	EXPECT_EQ(ring().last, 0u);
	EXPECT_EQ(ioeventfd(other, device + 8, 2), 0);
	EXPECT_FALSE(store_is_seen(device + 8, 1));
	EXPECT_EQ(take_signals(other), 0u) << "the zone begins before it";
	EXPECT_EQ(ring().last, 1u);
	ring().first = 2;
	EXPECT_FALSE(store_is_seen(device + 8, 1));
	EXPECT_EQ(take_signals(other), 1u) << "the ring is full";
}

/* A store over the end of a page is two writes, each by itself. */
TEST_F(IoBusTest, fragments)
{
	EXPECT_EQ(coalesce(device + 0x1000, 1), 0);
	EXPECT_TRUE(store_is_seen(device + 0xfff, 0x1234));
	ASSERT_EQ(ring().last, 1u);
	EXPECT_EQ(ring().entry[0].len, 1u);
	EXPECT_EQ(ring().entry[0].data[0], 0x12);
	EXPECT_EQ(coalesce(device + 0xfff, 1), 0);
	EXPECT_FALSE(store_is_seen(device + 0xfff, 0x1234));
	EXPECT_EQ(ring().last, 3u);
	EXPECT_EQ(uncoalesce(device + 0x1000, 1), 0);
	guest({stores(device + 0xfff, 0x5678), halts()});
	expect_exit(KVM_EXIT_MMIO);
	EXPECT_EQ(shared(vcpu).mmio.phys_addr, device + 0x1000);
	EXPECT_EQ(shared(vcpu).mmio.len, 1u);
	EXPECT_EQ(shared(vcpu).mmio.data[0], 0x56);
	expect_exit(KVM_EXIT_HLT);
}

TEST_F(IoBusTest, as_many_zones_as_kvm_has)
{
	for (u32 i = 0; i < 1000; i++)
		ASSERT_EQ(coalesce(device + 16 * i, 16), 0) << i;
	EXPECT_EQ(coalesce(0, 16), -ENOSPC);
	EXPECT_EQ(ioeventfd(fd, device, 2), -ENOSPC) << "as KVM has it";
	EXPECT_EQ(coalesce(0, 16, 1), 0) << "ports are counted apart";
	EXPECT_FALSE(store_is_seen(device + 16 * 100, 1));
	EXPECT_EQ(uncoalesce(device, 16), 0);
	EXPECT_EQ(coalesce(0x10000000, 16), 0);
}

TEST_F(IoBusTest, more_eventfds_than_zones)
{
	for (u32 i = 0; i < 1100; i++)
		ASSERT_EQ(ioeventfd(fd, 0x200, 2, pio | match, i), 0) << i;
	EXPECT_EQ(coalesce(0x70, 1, 1), 0);
	EXPECT_FALSE(out_is_seen(0x200, 2, 1099));
	EXPECT_TRUE(out_is_seen(0x200, 2, 1100));
	EXPECT_EQ(take_signals(fd), 1u);
}

TEST_F(IoBusTest, out_of_memory_changes_nothing)
{
	EXPECT_EQ(ioeventfd(fd, device, 2), 0);
	EXPECT_EQ(coalesce(device + 0x10, 0x10), 0);
	for (unsigned n = 0; n < 2; n++) {
		fail_allocation_after(n);
		EXPECT_EQ(ioeventfd(other, device + 4, 2), -ENOMEM) << n;
		fail_allocation_after(n);
		EXPECT_EQ(ioeventfd(fd, device, 2, deassign), -ENOMEM) << n;
		fail_allocation_after(n);
		EXPECT_EQ(coalesce(device + 0x20, 0x10), -ENOMEM) << n;
		fail_allocation_after(n);
		EXPECT_EQ(uncoalesce(device + 0x10, 0x10), -ENOMEM) << n;
	}
	fail_allocation_after(~0u);
	EXPECT_EQ(eventfds_held(), 1);
	EXPECT_FALSE(store_is_seen(device, 1));
	EXPECT_FALSE(store_is_seen(device + 0x10, 1));
	EXPECT_TRUE(store_is_seen(device + 0x20, 1));
}
