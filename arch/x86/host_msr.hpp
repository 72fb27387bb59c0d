/* SPDX-License-Identifier: GPL-2.0 */
/* MSRs of a guest for its VMM: KVM_GET_MSRS and KVM_SET_MSRS, and the lists of what there is to save. */
#pragma once

#include "handlers.hpp"

#include <span>

namespace kvmpp
{

/* What read_host_msr() and write_host_msr() need to be valid. */
Groups host_msr_groups(u32 index);

/* False: there is no such MSR, or @value is not for it. May sleep. */
bool read_host_msr(const VcpuState &state, u32 index, u64 &value);
bool write_host_msr(VcpuState &state, u32 index, u64 value);

/* KVM_GET_MSR_INDEX_LIST */
std::span<const u32> msrs_to_save();
/* KVM_GET_MSR_FEATURE_INDEX_LIST, and what the device's KVM_GET_MSRS says of one. */
std::span<const u32> msrs_of_features();
bool read_feature_msr(u32 index, u64 &value);

} // namespace kvmpp
