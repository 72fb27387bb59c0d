/* SPDX-License-Identifier: GPL-2.0 */
/* What the ioctls of the device and those of a vCPU have in common of KVM's structures. */
#pragma once

#include "arch/x86/cpuid_table.hpp"
#include "include/kvmpp/types.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

/* In one call, by KVM's count: that many are too many. */
inline constexpr u32 too_many_msrs = 256;

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
