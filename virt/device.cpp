// SPDX-License-Identifier: GPL-2.0
/* The ioctls of the device and of a VM, with KVM's semantics and errnos. */
#include "arch/x86/cpuid.hpp"
#include "arch/x86/vcpu_state.hpp"
#include "dedicated_cpus.hpp"
#include "device_state_ioctls.hpp"
#include "hardware.hpp"
#include "irqchip_ioctls.hpp"
#include "pit_ioctls.hpp"
#include "user_copy.hpp"
#include "vcpu.hpp"
#include "vm.hpp"

#include <linux/kvm.h>
#include <linux_glue/entries.h>
#include <linux_glue/file.h>
#include <linux_glue/memory.h>
#include <uapi/kvmpp.h>

namespace kvmpp
{

namespace
{

int online_cpus()
{
	int count = 0;

	for (int cpu = 0; cpu < glue_nr_cpus(); cpu++)
		count += !!glue_cpu_online(cpu);
	return count;
}

/* What KVM_CHECK_EXTENSION answers; 0 is "not there". */
int check_extension(unsigned long capability)
{
	switch (capability) {
	case KVM_CAP_USER_MEMORY:
	case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
	case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
	case KVM_CAP_SYNC_MMU:
	case KVM_CAP_READONLY_MEM:
	case KVM_CAP_SET_TSS_ADDR:
	case KVM_CAP_SET_IDENTITY_MAP_ADDR:
	case KVM_CAP_INTERNAL_ERROR_DATA:
	case KVM_CAP_IMMEDIATE_EXIT:
	case KVM_CAP_CHECK_EXTENSION_VM:
	case KVM_CAP_CLOCKSOURCE:
	case KVM_CAP_ENABLE_CAP_VM:
	case KVM_CAP_IRQCHIP:
	case KVM_CAP_SPLIT_IRQCHIP:
	case KVM_CAP_IRQ_INJECT_STATUS:
	case KVM_CAP_IOAPIC_POLARITY_IGNORED:
	case KVM_CAP_SIGNAL_MSI:
	case KVM_CAP_TSC_DEADLINE_TIMER:
	case KVM_CAP_IOEVENTFD:
	case KVM_CAP_IOEVENTFD_NO_LENGTH:
	case KVM_CAP_IOEVENTFD_ANY_LENGTH:
	case KVM_CAP_COALESCED_PIO:
	case KVM_CAP_KVMCLOCK_CTRL:
	case KVM_CAP_IRQFD:
	case KVM_CAP_IRQFD_RESAMPLE:
		return 1;
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		return KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET;
	case KVM_CAP_ADJUST_CLOCK:
		return KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
	case KVM_CAP_COALESCED_MMIO:
		return Vcpu::ring_page;
	case KVM_CAP_MP_STATE:
	case KVM_CAP_USER_NMI:
	case KVM_CAP_VCPU_EVENTS:
	case KVM_CAP_SET_GUEST_DEBUG:
	case KVM_CAP_X86_ROBUST_SINGLESTEP:
		return 1;
	case KVM_CAP_SET_GUEST_DEBUG2:
		return GuestDebug::all;
	case KVM_CAP_EXT_CPUID:
	case KVM_CAP_GET_MSR_FEATURES:
	case KVM_CAP_XSAVE:
	case KVM_CAP_DEBUGREGS:
	case KVM_CAP_SREGS2:
	case KVM_CAP_GET_TSC_KHZ:
	case KVM_CAP_PIT:
	case KVM_CAP_PIT2:
	case KVM_CAP_PIT_STATE2:
	case KVM_CAP_REINJECT_CONTROL:
	case KVM_CAP_NOP_IO_DELAY:
		return 1;
	case KVM_CAP_XCRS:
		return guest_features().xcr0 != 0;
	case KVM_CAP_XSAVE2:
		return sizeof(kvm_xsave::region);
	case KVM_CAP_MCE:
		return MachineCheck::max_banks;
	case KVMPP_CAP_DEDICATED_CPU:
		return dedicated_count_possible();
	case KVM_CAP_IRQ_ROUTING:
		return IrqRouting::max_gsis;
	case KVM_CAP_X2APIC_API:
		return X2apicApi::all;
	case KVM_CAP_NR_MEMSLOTS:
		return MemslotTable::max_slots;
	case KVM_CAP_NR_VCPUS:
		return online_cpus();
	case KVM_CAP_MAX_VCPUS:
	case KVM_CAP_MAX_VCPU_ID:
		return Vm::max_vcpus;
	default:
		return 0;
	}
}

Result<int> create_vm(unsigned long type)
{
	if (type != 0)
		return Errno::inval;
	Result<Vm *> vm = Vm::create();
	if (!vm)
		return vm.error();
	glue_new_fd fd;
	if (Result<> r = from_errno(glue_vm_fd_prepare(&fd, *vm)); !r) {
		(*vm)->put();
		return r.error();
	}
	glue_fd_install(&fd);
	return fd.fd;
}

Result<> set_memory_region(Vm &vm, unsigned long argument)
{
	kvm_userspace_memory_region region;

	if (Result<> r = copy_from_user(region, argument); !r)
		return r;
	Result<SlotRequest> request = check_slot_request(
		region.slot, region.flags, region.guest_phys_addr, region.memory_size,
		region.userspace_addr, guest_features().physical_address_bits);
	if (!request)
		return request.error();
	return vm.set_memory(*request);
}

/* The ioctls of the bus that take a structure. */
template <class Argument>
Result<> ask_bus(Vm &vm, unsigned long argument, Result<> (IoBus::*ask)(const Argument &))
{
	Argument request;

	if (Result<> r = copy_from_user(request, argument); !r)
		return r;
	return (vm.io_bus().*ask)(request);
}

Result<> get_clock(Vm &vm, unsigned long argument)
{
	kvm_clock_data data;

	vm.clock().get(data);
	return copy_to_user(argument, data);
}

Result<> set_clock(Vm &vm, unsigned long argument)
{
	kvm_clock_data data;

	if (Result<> r = copy_from_user(data, argument); !r)
		return r;
	return vm.clock().set(data);
}

Result<> get_dirty_log(Vm &vm, unsigned long argument)
{
	kvm_dirty_log log;

	if (Result<> r = copy_from_user(log, argument); !r)
		return r;
	return vm.get_dirty_log(log.slot, glue_user_pointer(log.padding2));
}

Result<> clear_dirty_log(Vm &vm, unsigned long argument)
{
	kvm_clear_dirty_log log;

	if (Result<> r = copy_from_user(log, argument); !r)
		return r;
	return vm.clear_dirty_log(log.slot, log.first_page, log.num_pages,
				  glue_user_pointer(log.padding2));
}

Result<> enable_cap(Vm &vm, unsigned long argument)
{
	kvm_enable_cap cap;

	if (Result<> r = copy_from_user(cap, argument); !r)
		return r;
	if (cap.flags)
		return Errno::inval;
	switch (cap.cap) {
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		return vm.set_manual_dirty_log(cap.args[0]);
	case KVM_CAP_SPLIT_IRQCHIP:
		if (cap.args[0] > IrqRouting::max_gsis)
			return Errno::inval;
		return vm.create_irqchip(Irqchip::Mode::split, static_cast<u32>(cap.args[0]));
	case KVM_CAP_X2APIC_API:
		if (cap.args[0] & ~X2apicApi::all)
			return Errno::inval;
		vm.x2apic_api().enable(cap.args[0]);
		return {};
	default:
		return Errno::inval;
	}
}

long to_long(Result<int> result)
{
	return result ? *result : -static_cast<int>(result.error());
}

} // namespace

} // namespace kvmpp

using namespace kvmpp;

int kvmpp_init(void)
{
	if (Result<> r = dedicated_init(); !r)
		return to_errno(r);
	Result<> result = hardware_init();
	if (!result)
		dedicated_exit();
	return to_errno(result);
}

void kvmpp_exit(void)
{
	/* The last vCPUs may still wait for their readers, to be freed by code that goes. */
	glue_rcu_barrier();
	hardware_exit();
	dedicated_exit();
}

long kvmpp_device_ioctl(unsigned int command, unsigned long argument)
{
	Result<long> result = 0;

	if (device_state_ioctl(command, argument, result))
		return result ? *result : -static_cast<int>(result.error());
	switch (command) {
	case KVM_GET_API_VERSION:
		return argument == 0 ? KVM_API_VERSION : -EINVAL;
	case KVM_CHECK_EXTENSION:
		return check_extension(argument);
	case KVM_GET_VCPU_MMAP_SIZE:
		return argument == 0 ? static_cast<long>(Vcpu::shared_pages * page_size) : -EINVAL;
	case KVM_CREATE_VM:
		return to_long(create_vm(argument));
	default:
		return -EINVAL;
	}
}

long kvmpp_vm_ioctl(void *vm_object, unsigned int command, unsigned long argument)
{
	Vm &vm = *static_cast<Vm *>(vm_object);

	if (!vm.belongs_to_current())
		return -EIO;
	Result<long> result = 0;
	if (irqchip_ioctl(vm, command, argument, result) ||
	    pit_ioctl(vm, command, argument, result))
		return result ? *result : -static_cast<int>(result.error());
	switch (command) {
	case KVM_CHECK_EXTENSION:
		return check_extension(argument);
	case KVM_CREATE_VCPU:
		return to_long(argument < Vm::max_vcpus ? vm.create_vcpu(static_cast<u32>(argument))
							: Errno::inval);
	case KVM_SET_USER_MEMORY_REGION:
		return to_errno(set_memory_region(vm, argument));
	case KVM_GET_CLOCK:
		return to_errno(get_clock(vm, argument));
	case KVM_SET_CLOCK:
		return to_errno(set_clock(vm, argument));
	case KVM_IOEVENTFD:
		return to_errno(ask_bus(vm, argument, &IoBus::ioeventfd));
	case KVM_REGISTER_COALESCED_MMIO:
		return to_errno(ask_bus(vm, argument, &IoBus::coalesce));
	case KVM_UNREGISTER_COALESCED_MMIO:
		return to_errno(ask_bus(vm, argument, &IoBus::uncoalesce));
	case KVM_GET_DIRTY_LOG:
		return to_errno(get_dirty_log(vm, argument));
	case KVM_CLEAR_DIRTY_LOG:
		return to_errno(clear_dirty_log(vm, argument));
	case KVM_ENABLE_CAP:
		return to_errno(enable_cap(vm, argument));
	case KVM_SET_TSS_ADDR:
		/*
		 * Real mode needs no TSS of the VMM's: guests are unrestricted. KVM's bound holds.
		 */
		return argument > 0xffffffff - 3 * page_size + 1 ? -EINVAL : 0;
	case KVM_SET_IDENTITY_MAP_ADDR: {
		u64 address;

		if (int error = glue_copy_from_user(&address, argument, sizeof(address)))
			return error;
		/*
		 * Unrestricted guests need no identity map either; KVM wants to know before vCPUs.
		 */
		return vm.vcpus().count() > 0 ? -EINVAL : 0;
	}
	default:
		return -ENOTTY;
	}
}
