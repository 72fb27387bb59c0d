/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Numbers and heads of KVM's structures that end in an array of any length. C++ gives the header's own a
 * size that they do not have in C, and the numbers with it.
 */
#pragma once

#include "arch/x86/cpuid_table.hpp"
#include "include/kvmpp/types.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

struct CpuidHeader {
	u32 count, padding;
};

struct MsrsHeader {
	u32 count, padding;

	/* KVM's, of one call: that many are too many. */
	static constexpr u32 max_count = 256;
};

namespace ioctl_number
{
inline constexpr unsigned get_msr_index_list = _IOWR(KVMIO, 0x02, u32),
			  get_supported_cpuid = _IOWR(KVMIO, 0x05, CpuidHeader),
			  get_msr_feature_index_list = _IOWR(KVMIO, 0x0a, u32),
			  get_msrs = _IOWR(KVMIO, 0x88, MsrsHeader),
			  set_msrs = _IOW(KVMIO, 0x89, MsrsHeader),
			  set_cpuid = _IOW(KVMIO, 0x8a, CpuidHeader),
			  set_cpuid2 = _IOW(KVMIO, 0x90, CpuidHeader),
			  get_cpuid2 = _IOWR(KVMIO, 0x91, CpuidHeader),
			  get_xsave = _IOC(_IOC_READ, KVMIO, 0xa4, 4096),
			  set_xsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, 4096),
			  get_xsave2 = _IOC(_IOC_READ, KVMIO, 0xcf, 4096);
} // namespace ioctl_number

constexpr kvm_cpuid_entry2 to_kvm(const CpuidEntry &e)
{
	return {.function = e.function,
		.index = e.index,
		.flags = e.flags,
		.eax = e.eax,
		.ebx = e.ebx,
		.ecx = e.ecx,
		.edx = e.edx,
		.padding = {}};
}

} // namespace kvmpp
