/* SPDX-License-Identifier: GPL-2.0 */
/* How an interrupt finds the local APICs of a VM's vCPUs that it is for. */
#pragma once

#include "apic_message.hpp"
#include "virt/vcpu_table.hpp"
#include "x2apic_api.hpp"

namespace kvmpp
{

class ApicBus final : public ApicMessageSink
{
public:
	/* @vcpus are those of the VM, whose local APICs are in the kernel. */
	ApicBus(const VcpuTable &vcpus, const X2apicApi &api) : vcpus_(vcpus), api_(api) {}
	ApicBus(const ApicBus &) = delete;
	ApicBus &operator=(const ApicBus &) = delete;

	/*
	 * To how many it was given, also of those that had it pending already; 0 when those that it is for do
	 * not take it, negative when there are none. Any context but NMI, inside any lock that this does not
	 * say it takes: RCU only.
	 */
	virtual int deliver(const ApicMessage &message) const;
	/* The same from a local APIC, by the thread of its vCPU. */
	int send(const Lapic &sender, const ApicMessage &message) const;
	/* The 8259s' output has changed: whoever takes "ExtINT" is to look. The same context. */
	void external_interrupt() const;

private:
	int give(const ApicMessage &message, const Lapic *sender) const;
	bool is_for(const Lapic &target, const ApicMessage &message, const Lapic *sender) const;

	const VcpuTable &vcpus_;
	const X2apicApi &api_;
};

} // namespace kvmpp
