// SPDX-License-Identifier: GPL-2.0
/* With KVM's semantics and errnos. */
#include "device_state_ioctls.hpp"

#include "arch/x86/cpuid.hpp"
#include "arch/x86/host_msr.hpp"
#include "include/kvmpp/owned.hpp"
#include "kvm_structures.hpp"
#include "user_copy.hpp"

#include <linux_glue/memory.h>

namespace kvmpp
{

namespace
{

Result<> get_supported_cpuid(unsigned long argument)
{
	kvm_cpuid2 header;

	if (Result<> r = copy_from_user(header, argument); !r)
		return r;
	if (header.nent < 1)
		return Errno::toobig;
	Owned<GuestCpuid> table = Owned<GuestCpuid>::create();
	if (!table)
		return Errno::nomem;
	if (!supported_cpuid(*table, header.nent))
		return Errno::toobig;
	header.nent = table->count();
	for (u32 i = 0; i < header.nent; i++) {
		kvm_cpuid_entry2 entry = to_kvm(table->entry(i));

		if (Result<> r = copy_to_user(argument + sizeof(header) + i * sizeof(entry), entry);
		    !r)
			return r;
	}
	return copy_to_user(argument, header);
}

/* How many there are is said also where there is no room for them. */
Result<> get_msr_list(unsigned long argument, std::span<const u32> list)
{
	u32 room, count = static_cast<u32>(list.size());

	if (Result<> r = copy_from_user(room, argument); !r)
		return r;
	if (Result<> r = copy_to_user(argument, count); !r)
		return r;
	if (room < count)
		return Errno::toobig;
	return from_errno(
		glue_copy_to_user(argument + sizeof(count), list.data(), list.size_bytes()));
}

Result<long> get_feature_msrs(unsigned long argument)
{
	kvm_msrs header;

	if (Result<> r = copy_from_user(header, argument); !r)
		return r.error();
	if (header.nmsrs >= too_many_msrs)
		return Errno::toobig;
	for (u32 i = 0; i < header.nmsrs; i++) {
		unsigned long at = argument + sizeof(header) + i * sizeof(kvm_msr_entry);
		kvm_msr_entry entry;
		u64 value;

		if (Result<> r = copy_from_user(entry, at); !r)
			return r.error();
		if (!read_feature_msr(entry.index, value))
			return static_cast<long>(i);
		entry.data = value;
		if (Result<> r = copy_to_user(at, entry); !r)
			return r.error();
	}
	return static_cast<long>(header.nmsrs);
}

} // namespace

bool device_state_ioctl(unsigned command, unsigned long argument, Result<long> &result)
{
	Result<> r;

	switch (command) {
	case KVM_GET_MSRS:
		result = get_feature_msrs(argument);
		return true;
	case KVM_GET_SUPPORTED_CPUID:
		r = get_supported_cpuid(argument);
		break;
	case KVM_GET_MSR_INDEX_LIST:
		r = get_msr_list(argument, msrs_to_save());
		break;
	case KVM_GET_MSR_FEATURE_INDEX_LIST:
		r = get_msr_list(argument, msrs_of_features());
		break;
	case KVM_X86_GET_MCE_CAP_SUPPORTED: {
		u64 supported = MachineCheck::supported;

		r = copy_to_user(argument, supported);
		break;
	}
	default:
		return false;
	}
	result = r ? Result<long>(0) : r.error();
	return true;
}

} // namespace kvmpp
