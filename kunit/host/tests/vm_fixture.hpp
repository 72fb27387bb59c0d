/* SPDX-License-Identifier: GPL-2.0 */
/* The whole module, entered the way user space and Linux enter it. */
#pragma once

#include "fixture.hpp"

#include "arch/x86/controls.hpp"
#include "arch/x86/vcpu_state.hpp"
#include "arch/x86/vmcs_field.hpp"
#include "virt/kvm_structures.hpp"

#include <linux/kvm.h>
#include <linux_glue/entries.h>

#include <cstdlib>
#include <cstring>

namespace kvmpp::host
{

class ModuleTest : public MachineTest
{
protected:
	explicit ModuleTest(bool exclusive = true)
	{
		glue_parameters.exclusive = exclusive;
		EXPECT_EQ(kvmpp_init(), 0);
	}
	~ModuleTest() override { kvmpp_exit(); }

	static int create_vm()
	{
		return static_cast<int>(ended(kvmpp_device_ioctl(KVM_CREATE_VM, 0)));
	}
	static long vm_ioctl(int fd, unsigned command, unsigned long argument)
	{
		return ended(kvmpp_vm_ioctl(object_of(fd), command, argument));
	}
	static long vcpu_ioctl(int fd, unsigned command, unsigned long argument)
	{
		return ended(kvmpp_vcpu_ioctl(object_of(fd), command, argument));
	}
	/* With a structure in the VMM's memory. */
	template <class T> static long vm_ioctl(int fd, unsigned command, T &argument)
	{
		InUserMemory there(argument);
		return vm_ioctl(fd, command, reinterpret_cast<unsigned long>(&argument));
	}
	template <class T> static long vcpu_ioctl(int fd, unsigned command, T &argument)
	{
		InUserMemory there(argument);
		return vcpu_ioctl(fd, command, reinterpret_cast<unsigned long>(&argument));
	}
	static long set_memory(int vm, u32 slot, u64 guest_phys, u64 bytes, u64 user, u32 flags = 0)
	{
		kvm_userspace_memory_region region{.slot = slot,
						   .flags = flags,
						   .guest_phys_addr = guest_phys,
						   .memory_size = bytes,
						   .userspace_addr = user};
		return vm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, region);
	}
	static int create_vcpu(int vm, unsigned long id = 0)
	{
		return static_cast<int>(vm_ioctl(vm, KVM_CREATE_VCPU, id));
	}
	/* All that is supported, x2APIC included, as a VMM sets it that means to dedicate CPUs. */
	struct CpuidArgument {
		u32 count = 256, padding = 0;
		kvm_cpuid_entry2 entries[256] = {};
	};
	static CpuidArgument supported()
	{
		CpuidArgument cpuid;
		InUserMemory there(cpuid);

		EXPECT_EQ(kvmpp_device_ioctl(KVM_GET_SUPPORTED_CPUID,
					     reinterpret_cast<unsigned long>(&cpuid)),
			  0);
		return_to_user("an ioctl");
		return cpuid;
	}
	static void offer_cpuid(int vcpu)
	{
		CpuidArgument cpuid = supported();

		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_CPUID2, cpuid), 0);
	}
	static kvm_run &shared(int vcpu)
	{
		return *static_cast<kvm_run *>(kvmpp_vcpu_page(object_of(vcpu), 0));
	}
	static u8 *port_data(int vcpu)
	{
		return static_cast<u8 *>(kvmpp_vcpu_page(object_of(vcpu), 1));
	}

private:
	static long ended(long result)
	{
		return_to_user("an ioctl");
		return result;
	}
	struct InUserMemory {
		template <class T>
		explicit InUserMemory(T &argument) : address(reinterpret_cast<u64>(&argument))
		{
			add_user_memory(address, sizeof(T));
		}
		~InUserMemory() { remove_user_memory(address); }
		u64 address;
	};
};

} // namespace kvmpp::host
