/* SPDX-License-Identifier: GPL-2.0 */
/*
 * "Machine-Check Architecture" of a guest: banks that user space fills. What the host's CPU has to say
 * goes to Linux. Dedicated CPUs see it.
 */
#pragma once

#include "include/kvmpp/result.hpp"
#include "include/kvmpp/types.hpp"

struct kvm_x86_mce;

namespace kvmpp
{

struct VcpuState;

/* Who asks for an access to an MSR: user space may do more than the guest. */
enum class By { guest, host };

class MachineCheck
{
public:
	static constexpr unsigned max_banks = 32;
	/* KVM_X86_GET_MCE_CAP_SUPPORTED: IA32_MCG_CTL, recovery by software. */
	static constexpr u64 supported = 1 << 8 | 1 << 24;

	static bool is_msr(u32 index);
	/* False: there is no such MSR for @by, or @value is not for it. is_msr(index). */
	bool read(u32 index, By by, u64 &value) const;
	bool write(u32 index, By by, u64 value);

	/* KVM_X86_SETUP_MCE. Errno::inval. */
	Result<> set_up(u64 capabilities);
	/* KVM_X86_SET_MCE: an error in a bank, and for the guest if it is one to be told of. Errno::inval. */
	Result<> report(VcpuState &state, const kvm_x86_mce &error);

private:
	static constexpr u64 control_present = 1 << 8, cmci_present = 1 << 10;

	unsigned banks() const { return capabilities_ & 0xff; }

	/* As KVM has it for a vCPU that user space has not set up. */
	u64 capabilities_ = max_banks;
	u64 status_ = 0, control_ = 0;
	/* Each bank's CTL, STATUS, ADDR, MISC; and its CTL2. */
	u64 bank_[4 * max_banks] = {};
	u64 control2_[max_banks] = {};
};

} // namespace kvmpp
