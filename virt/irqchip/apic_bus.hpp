/* SPDX-License-Identifier: GPL-2.0 */
/* How an interrupt finds the local APICs of a VM's vCPUs that it is for. */
#pragma once

#include "apic_message.hpp"
#include "virt/vcpu_table.hpp"

namespace kvmpp
{

class ApicBus final : public ApicMessageSink
{
public:
	/* @vcpus are those of the VM, whose local APICs are in the kernel. */
	explicit ApicBus(const VcpuTable &vcpus) : vcpus_(vcpus) {}
	ApicBus(const ApicBus &) = delete;
	ApicBus &operator=(const ApicBus &) = delete;

	/*
	 * To how many it was given; 0 when all of them had it pending already; negative when there is none
	 * that it is for. Any context but NMI, inside any lock that this does not say it takes: RCU only.
	 */
	virtual int deliver(const ApicMessage &message) const;
	/* The 8259s' output has changed: whoever takes "ExtINT" is to look. The same context. */
	void external_interrupt() const;

private:
	const VcpuTable &vcpus_;
};

} // namespace kvmpp
