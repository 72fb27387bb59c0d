// SPDX-License-Identifier: GPL-2.0
/* The ioctls of the device, of a VM and of a vCPU, and their lives. */
#include "vm_fixture.hpp"

#include <asm/errno.h>
#include <sys/mman.h>

#include <sys/mman.h>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

constexpr u64 user = 0x7f0000000000;

class VmTest : public ModuleTest
{
protected:
	VmTest() { vm = create_vm(); }
	~VmTest() override
	{
		if (vm >= 0)
			close_fd(vm);
	}

	int vm;
};

using Device = ModuleTest;

} // namespace

TEST_F(Device, ioctls)
{
	EXPECT_EQ(kvmpp_device_ioctl(KVM_GET_API_VERSION, 0), 12);
	EXPECT_EQ(kvmpp_device_ioctl(KVM_GET_API_VERSION, 1), -EINVAL);
	EXPECT_EQ(kvmpp_device_ioctl(KVM_GET_VCPU_MMAP_SIZE, 0), 0x3000);
	EXPECT_EQ(kvmpp_device_ioctl(KVM_GET_VCPU_MMAP_SIZE, 1), -EINVAL);
	EXPECT_EQ(kvmpp_device_ioctl(KVM_CREATE_VM, 1), -EINVAL);
	EXPECT_EQ(kvmpp_device_ioctl(KVM_RUN, 0), -EINVAL);
	EXPECT_EQ(kvmpp_device_ioctl(0xae7f, 0), -EINVAL);
}

TEST_F(Device, extensions)
{
	auto check = [](long capability) {
		return kvmpp_device_ioctl(KVM_CHECK_EXTENSION,
					  static_cast<unsigned long>(capability));
	};

	EXPECT_EQ(check(KVM_CAP_USER_MEMORY), 1);
	EXPECT_EQ(check(KVM_CAP_IMMEDIATE_EXIT), 1);
	EXPECT_EQ(check(KVM_CAP_NR_MEMSLOTS), 32764);
	EXPECT_EQ(check(KVM_CAP_MAX_VCPUS), 1024);
	EXPECT_EQ(check(KVM_CAP_NR_VCPUS), cpu_count);
	EXPECT_EQ(check(KVM_CAP_IRQCHIP), 1);
	EXPECT_EQ(check(KVM_CAP_X2APIC_API), 3);
	EXPECT_EQ(check(KVM_CAP_SYNC_REGS), 0);
	EXPECT_EQ(check(99999), 0);
	EXPECT_EQ(check(-1), 0);
	take_offline(3);
	EXPECT_EQ(check(KVM_CAP_NR_VCPUS), cpu_count - 1);
}

TEST_F(VmTest, ioctls)
{
	struct {
		u64 value;
	} address{};

	EXPECT_EQ(vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), 1);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_TSS_ADDR, 0xffffd000), 0);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_TSS_ADDR, 0xffffd001), -EINVAL);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, address), 0);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, user), -EFAULT);
	EXPECT_EQ(vm_ioctl(vm, KVM_RUN, 0ul), -ENOTTY);
}

TEST_F(VmTest, belongs_to_the_process_that_made_it)
{
	int vcpu = create_vcpu(vm);

	switch_process(1);
	EXPECT_EQ(vm_ioctl(vm, KVM_CREATE_VCPU, 1ul), -EIO);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 0ul), -EIO);
	switch_process(0);
	EXPECT_EQ(vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), 1);
	close_fd(vcpu);
}

TEST_F(VmTest, memory)
{
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, user), -EFAULT);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user), 0);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user), 0) << "no change";
	EXPECT_EQ(set_memory(vm, 1, 0x3000, 0x1000, user), -EEXIST);
	EXPECT_EQ(set_memory(vm, 1, 0x4000, 0x1000, user), 0);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x5000, user), -EINVAL);
	EXPECT_EQ(set_memory(vm, 0, 0x8000, 0x4000, user), 0) << "moved";
	EXPECT_EQ(set_memory(vm, 0, 0x2000, 0x4000, user), -EEXIST);
	EXPECT_EQ(set_memory(vm, 0, 0, 0, 0), 0) << "removed";
	EXPECT_EQ(set_memory(vm, 0, 0, 0, 0), -EINVAL);
	EXPECT_EQ(set_memory(vm, 32764, 0, 0x1000, user), -EINVAL);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x1001, user), -EINVAL);
}

TEST_F(VmTest, memory_change_without_memory_changes_nothing)
{
	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user), 0);
	for (unsigned n = 0; n < 4; n++) {
		fail_allocation_after(n);
		EXPECT_EQ(set_memory(vm, 0, 0x8000, 0x4000, user), -ENOMEM) << n;
		EXPECT_EQ(set_memory(vm, 1, 0, 0x1000, user), -EEXIST) << "slot 0 is where it was";
	}
	fail_allocation_after(4);
	EXPECT_EQ(set_memory(vm, 0, 0x8000, 0x4000, user), 0);
	fail_allocation_after(~0u);
}

TEST_F(VmTest, flags_of_memory)
{
	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user, KVM_MEM_READONLY), 0);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user), -EINVAL) << "it stays read-only";
	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user, KVM_MEM_READONLY | KVM_MEM_LOG_DIRTY_PAGES),
		  0);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user, 4), -EINVAL);
	EXPECT_EQ(set_memory(vm, 0, 0, 0, 0, KVM_MEM_READONLY), 0) << "removed";
}

TEST_F(VmTest, dirty_log)
{
	u64 bitmap[2] = {~u64{0}, ~u64{0}};
	add_user_memory(reinterpret_cast<u64>(bitmap), sizeof(bitmap));
	kvm_dirty_log log{};
	log.dirty_bitmap = bitmap;
	auto get = [&](u32 slot) {
		log.slot = slot;
		return vm_ioctl(vm, KVM_GET_DIRTY_LOG, log);
	};
	EXPECT_EQ(get(0), -ENOENT) << "no slot";
	EXPECT_EQ(get(32764), -EINVAL);
	EXPECT_EQ(get(0x10000), -EINVAL);
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_DIRTY_LOG, user), -EFAULT);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x41000, user), 0);
	int without = live_allocations();
	EXPECT_EQ(get(0), -ENOENT) << "no log";
	EXPECT_EQ(set_memory(vm, 0, 0, 0x41000, user, KVM_MEM_LOG_DIRTY_PAGES), 0);
	EXPECT_EQ(live_allocations(), without + 2);
	EXPECT_EQ(get(0), 0);
	EXPECT_EQ(bitmap[0], 0u);
	EXPECT_EQ(bitmap[1], 0u) << "65 pages are two words";
	EXPECT_EQ(set_memory(vm, 0, 0x100000, 0x41000, user, KVM_MEM_LOG_DIRTY_PAGES), 0)
		<< "moved";
	EXPECT_EQ(live_allocations(), without + 2);
	remove_user_memory(reinterpret_cast<u64>(bitmap));
	EXPECT_EQ(get(0), -EFAULT);
	EXPECT_EQ(set_memory(vm, 0, 0x100000, 0x41000, user), 0) << "off";
	EXPECT_EQ(live_allocations(), without);
	EXPECT_EQ(get(0), -ENOENT);
	EXPECT_EQ(set_memory(vm, 0, 0x100000, 0x41000, user, KVM_MEM_LOG_DIRTY_PAGES), 0);
	EXPECT_EQ(set_memory(vm, 0, 0, 0, 0), 0) << "removed";
	EXPECT_EQ(live_allocations(), without) << "the table of none is one";
	/* And what is there when the VM ends. */
	EXPECT_EQ(set_memory(vm, 0, 0, 0x41000, user, KVM_MEM_LOG_DIRTY_PAGES), 0);
}

TEST_F(VmTest, dirty_log_cleared_by_hand)
{
	u64 bitmap[2] = {};
	add_user_memory(reinterpret_cast<u64>(bitmap), sizeof(bitmap));
	auto enable = [&](u64 flags, u32 cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, u32 of_cap = 0) {
		kvm_enable_cap argument{.cap = cap, .flags = of_cap, .args = {flags}, .pad = {}};
		return vm_ioctl(vm, KVM_ENABLE_CAP, argument);
	};
	auto get = [&] {
		kvm_dirty_log log{};
		log.dirty_bitmap = bitmap;
		return vm_ioctl(vm, KVM_GET_DIRTY_LOG, log);
	};
	auto clear = [&](u64 first, u32 pages, void *from, u32 slot = 0) {
		kvm_clear_dirty_log log{};
		log.slot = slot;
		log.num_pages = pages;
		log.first_page = first;
		log.dirty_bitmap = from;
		return vm_ioctl(vm, KVM_CLEAR_DIRTY_LOG, log);
	};
	EXPECT_EQ(vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), 3);
	EXPECT_EQ(vm_ioctl(vm, KVM_ENABLE_CAP, user), -EFAULT);
	EXPECT_EQ(enable(1, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1), -EINVAL);
	EXPECT_EQ(enable(1, KVM_CAP_NR_MEMSLOTS), -EINVAL) << "not to be enabled";
	EXPECT_EQ(enable(2), -EINVAL);
	EXPECT_EQ(enable(5), -EINVAL);
	EXPECT_EQ(enable(3), 0);
	EXPECT_EQ(vm_ioctl(vm, KVM_CLEAR_DIRTY_LOG, user), -EFAULT);
	EXPECT_EQ(clear(0, 0, bitmap), -ENOENT) << "no slot";
	EXPECT_EQ(clear(0, 0, bitmap, 32764), -EINVAL);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x41000, user, KVM_MEM_LOG_DIRTY_PAGES), 0);
	EXPECT_EQ(get(), 0);
	EXPECT_EQ(bitmap[0], ~u64{0}) << "all of it is dirty";
	EXPECT_EQ(bitmap[1], 1u) << "and nothing beyond";
	EXPECT_EQ(clear(1, 64, bitmap), -EINVAL);
	EXPECT_EQ(clear(0, 63, bitmap), -EINVAL);
	EXPECT_EQ(clear(64, 2, bitmap), -EINVAL);
	EXPECT_EQ(clear(128, 0, bitmap), -EINVAL);
	EXPECT_EQ(clear(0, 65, nullptr), -EFAULT);
	bitmap[0] = 0xff;
	EXPECT_EQ(clear(0, 64, bitmap), 0);
	bitmap[0] = ~u64{0};
	EXPECT_EQ(clear(64, 1, bitmap), 0);
	EXPECT_EQ(get(), 0);
	EXPECT_EQ(bitmap[0], ~u64{0xff});
	EXPECT_EQ(bitmap[1], 0u);
	EXPECT_EQ(get(), 0);
	EXPECT_EQ(bitmap[0], ~u64{0xff}) << "it stays";
	EXPECT_EQ(enable(0), 0);
	EXPECT_EQ(get(), 0);
	EXPECT_EQ(bitmap[0], ~u64{0xff});
	EXPECT_EQ(get(), 0);
	EXPECT_EQ(bitmap[0], 0u) << "taken";
	remove_user_memory(reinterpret_cast<u64>(bitmap));
}

TEST_F(VmTest, slots_change_when_no_invalidation_is_under_way)
{
	bool waited = false;

	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user), 0);
	kvmpp_mmu_invalidate_begin(object_of(vm), user, user + page_size);
	kvmpp_mmu_invalidate_begin(object_of(vm), 0, page_size);
	on_wait_for_zero([&] {
		AnotherThread notifier;
		waited = true;
		kvmpp_mmu_invalidate_end(object_of(vm), user, user + page_size);
		kvmpp_mmu_invalidate_end(object_of(vm), 0, page_size);
	});
	EXPECT_EQ(set_memory(vm, 1, 0x10000, 0x4000, user), 0);
	EXPECT_TRUE(waited);
}

TEST_F(VmTest, dirty_log_of_a_32_bit_program)
{
	void *low = mmap(nullptr, page_size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	u64 address = reinterpret_cast<u64>(low);
	add_user_memory(address, page_size);
	ASSERT_EQ(set_memory(vm, 0, 0, 0x1000, user, KVM_MEM_LOG_DIRTY_PAGES), 0);
	kvm_dirty_log log{};
	log.padding2 = address | u64{0xdead} << 32;
	kvm_clear_dirty_log clear{};
	clear.num_pages = 1;
	clear.padding2 = log.padding2;
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_DIRTY_LOG, log), -EFAULT);
	EXPECT_EQ(vm_ioctl(vm, KVM_CLEAR_DIRTY_LOG, clear), -EFAULT);
	set_caller_is_32_bits(true);
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_DIRTY_LOG, log), 0);
	EXPECT_EQ(vm_ioctl(vm, KVM_CLEAR_DIRTY_LOG, clear), 0);
	set_caller_is_32_bits(false);
	remove_user_memory(address);
	munmap(low, page_size);
}

TEST_F(VmTest, log_without_memory_changes_nothing)
{
	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user), 0);
	int live = live_allocations();
	for (unsigned n = 0; n < 4; n++) {
		fail_allocation_after(n);
		EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user, KVM_MEM_LOG_DIRTY_PAGES), -ENOMEM)
			<< n;
		EXPECT_EQ(live_allocations(), live) << n;
	}
	fail_allocation_after(~0u);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x4000, user, KVM_MEM_LOG_DIRTY_PAGES), 0);
}

TEST_F(VmTest, vcpu_ids)
{
	int first = create_vcpu(vm, 0), last = create_vcpu(vm, 1023);

	EXPECT_GE(first, 0);
	EXPECT_GE(last, 0);
	EXPECT_EQ(create_vcpu(vm, 0), -EEXIST);
	EXPECT_EQ(create_vcpu(vm, 1024), -EINVAL);
	EXPECT_EQ(create_vcpu(vm, ~0ul), -EINVAL);
	EXPECT_EQ(create_vcpu(vm, u64{1} << 32), -EINVAL);
	close_fd(first);
	first = create_vcpu(vm, 0);
	EXPECT_GE(first, 0) << "the id can be had again";
	struct {
		u64 value;
	} address{};
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, address), -EINVAL)
		<< "after the first vCPU";
	close_fd(first);
	close_fd(last);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, address), 0);
}

TEST_F(VmTest, closing_a_vcpu_waits_for_no_grace_period)
{
	int live = live_allocations();

	hold_grace_periods();
	for (int round = 0; round < 10; round++) {
		int vcpu = create_vcpu(vm, 5);
		EXPECT_GE(vcpu, 0) << "the id is free at once";
		close_fd(vcpu);
	}
	EXPECT_EQ(live_allocations(), live + 10) << "of each, what readers may look at";
	/* The module goes, and with it the code that frees them: nothing may be left then. */
}

TEST_F(VmTest, lives_as_long_as_its_last_vcpu)
{
	int vcpu = create_vcpu(vm);

	close_fd(vm);
	vm = -1;
	EXPECT_TRUE(processor(0).vmx) << "the VM is still there";
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 1ul), -EINVAL);
	close_fd(vcpu);
	EXPECT_FALSE(processor(0).vmx);
}

TEST_F(VmTest, signal_during_creation)
{
	interrupt_next_notifier_registration();
	EXPECT_EQ(create_vm(), -EINTR);
}

TEST_F(VmTest, out_of_memory_at_each_allocation_of_a_vm)
{
	unsigned before = allocations_made();
	close_fd(create_vm());
	unsigned wanted = allocations_made() - before;

	EXPECT_GT(wanted, 5u);
	for (unsigned n = 0; n < wanted; n++) {
		int live = live_allocations();
		fail_allocation_after(n);
		int error = create_vm();
		EXPECT_TRUE(allocation_failed()) << n;
		EXPECT_TRUE(error == -ENOMEM || error == -ENFILE) << n << ": " << error;
		EXPECT_EQ(live_allocations(), live) << n;
	}
}

TEST_F(VmTest, out_of_memory_at_each_allocation_of_a_vcpu)
{
	unsigned before = allocations_made();
	close_fd(create_vcpu(vm));
	unsigned wanted = allocations_made() - before;

	EXPECT_GT(wanted, 4u);
	for (unsigned n = 0; n < wanted; n++) {
		int live = live_allocations();
		fail_allocation_after(n);
		int error = create_vcpu(vm);
		EXPECT_TRUE(allocation_failed()) << n;
		EXPECT_TRUE(error == -ENOMEM || error == -ENFILE) << n << ": " << error;
		EXPECT_EQ(live_allocations(), live) << n;
	}
	int vcpu = create_vcpu(vm);
	EXPECT_GE(vcpu, 0) << "no id was lost";
	close_fd(vcpu);
}

TEST_F(VmTest, shared_pages)
{
	int vcpu = create_vcpu(vm);

	EXPECT_NE(kvmpp_vcpu_page(object_of(vcpu), 0), nullptr);
	EXPECT_NE(kvmpp_vcpu_page(object_of(vcpu), 1), nullptr);
	EXPECT_NE(kvmpp_vcpu_page(object_of(vcpu), 2), nullptr);
	EXPECT_EQ(kvmpp_vcpu_page(object_of(vcpu), 3), nullptr);
	EXPECT_EQ(kvmpp_vcpu_page(object_of(vcpu), ~0ul), nullptr);
	close_fd(vcpu);
}

TEST_F(VmTest, vcpu_ioctls)
{
	int vcpu = create_vcpu(vm);
	kvm_regs regs{}, back{};
	kvm_sregs sregs{};

	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_REGS, regs), 0);
	EXPECT_EQ(regs.rip, 0xfff0u);
	regs.rax = 0x1234;
	regs.rip = 0x1000;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, regs), 0);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_REGS, back), 0);
	EXPECT_EQ(back.rax, 0x1234u);
	EXPECT_EQ(back.rip, 0x1000u);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
	EXPECT_EQ(sregs.cs.base, 0xffff0000u);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SREGS, sregs), 0);
	sregs.cr0 = cr0::pg;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SREGS, sregs), -EINVAL);
	for (unsigned command : {KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS})
		EXPECT_EQ(vcpu_ioctl(vcpu, command, user), -EFAULT) << command;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 1ul), -EINVAL);
	EXPECT_EQ(vcpu_ioctl(vcpu, 0xae7f, 0ul), -EINVAL);
	kill_next_lock();
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 0ul), -EINTR);
	close_fd(vcpu);
}
