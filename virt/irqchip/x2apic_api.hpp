/* SPDX-License-Identifier: GPL-2.0 */
/* What KVM_CAP_X2APIC_API has changed of a VM; none of it is taken back. */
#pragma once

#include "include/kvmpp/types.hpp"

#include <linux/kvm.h>

#include <atomic>

namespace kvmpp
{

class X2apicApi
{
public:
	static constexpr u64 all =
		KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;

	/* Some of all. Any context. */
	void enable(u64 flags) { flags_.fetch_or(flags, std::memory_order_relaxed); }
	/* Ids have 32 bits in messages of user space, and in the state of a local APIC. */
	bool has_wide_ids() const { return has(KVM_X2APIC_API_USE_32BIT_IDS); }
	/* To an APIC in x2APIC mode, 0xff in a message of user space or an I/O APIC's is no broadcast. */
	bool is_broadcast_wide() const { return has(KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK); }

private:
	bool has(u64 flag) const { return flags_.load(std::memory_order_relaxed) & flag; }

	std::atomic<u64> flags_{0};
};

} // namespace kvmpp
