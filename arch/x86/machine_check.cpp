// SPDX-License-Identifier: GPL-2.0
#include "machine_check.hpp"

#include "vcpu_state.hpp"

#include <linux/kvm.h>

namespace kvmpp
{

namespace
{

constexpr u32 first_bank_msr = 0x400, first_control2 = 0x280;
constexpr u64 all_ones = ~u64{0};
enum BankMsr { ctl, status, addr, misc };

/* "IA32_MCi_STATUS MSRs" */
constexpr u64 valid = u64{1} << 63, overflow = u64{1} << 62, uncorrected = u64{1} << 61,
	      context_corrupt = u64{1} << 57, signaled = u64{1} << 56, action = u64{1} << 55;
/* IA32_MCG_STATUS */
constexpr u64 in_progress = 1 << 2;
/* IA32_MCi_CTL2: threshold and enable. */
constexpr u64 control2_bits = 0x7fff | 1 << 30;

} // namespace

bool MachineCheck::is_msr(u32 index)
{
	return index == msr::mcg_cap || index == msr::mcg_status || index == msr::mcg_ctl ||
	       index - first_bank_msr < 4 * max_banks || index - first_control2 < max_banks;
}

bool MachineCheck::read(u32 index, By by, u64 &value) const
{
	if (index == msr::mcg_cap) {
		value = capabilities_;
	} else if (index == msr::mcg_status) {
		value = status_;
	} else if (index == msr::mcg_ctl) {
		if (!(capabilities_ & control_present) && by == By::guest)
			return false;
		value = control_;
	} else if (u32 n = index - first_bank_msr; n < 4 * max_banks) {
		if (n >= 4 * banks())
			return false;
		value = bank_[n % (4 * max_banks)];
	} else {
		n = index - first_control2;
		if (n >= banks() || (!(capabilities_ & cmci_present) && by == By::guest))
			return false;
		value = control2_[n % max_banks];
	}
	return true;
}

bool MachineCheck::write(u32 index, By by, u64 value)
{
	bool more_than_nothing = value || by == By::guest;

	if (index == msr::mcg_cap)
		return false;
	if (index == msr::mcg_status) {
		status_ = value;
	} else if (index == msr::mcg_ctl) {
		if (!(capabilities_ & control_present) && more_than_nothing)
			return false;
		if (value != 0 && value != all_ones)
			return false;
		control_ = value;
	} else if (u32 n = index - first_bank_msr; n < 4 * max_banks) {
		if (n >= 4 * banks())
			return false;
		/* Bits 0 and 10 may be clear: some systems do that for errors of some CPUs. */
		if (n % 4 == ctl && value != 0 && (value | 1 << 10 | 1) != all_ones)
			return false;
		if (n % 4 == status && value != 0 && by == By::guest)
			return false;
		bank_[n % (4 * max_banks)] = value;
	} else {
		n = index - first_control2;
		if (n >= banks() || (!(capabilities_ & cmci_present) && more_than_nothing) ||
		    (value & ~control2_bits))
			return false;
		control2_[n % max_banks] = value;
	}
	return true;
}

Result<> MachineCheck::set_up(u64 capabilities)
{
	/* Beside what is supported: how many banks, and how many extended registers. */
	constexpr u64 counts = 0xff | 0xff << 16;
	unsigned count = capabilities & 0xff;

	if (count == 0 || count > max_banks || (capabilities & ~(supported | counts)))
		return Errno::inval;
	capabilities_ = capabilities;
	if (capabilities & control_present)
		control_ = all_ones;
	for (unsigned i = 0; i < count; i++)
		bank_[4 * i + ctl] = all_ones;
	return {};
}

Result<> MachineCheck::report(VcpuState &s, const kvm_x86_mce &error)
{
	if (error.bank >= banks() || !(error.status & valid))
		return Errno::inval;

	u64 *bank = &bank_[4 * (error.bank % max_banks)];
	auto fill = [&] {
		u64 lost = (bank[status] & valid) ? overflow : 0;

		bank[status] = error.status | lost;
		bank[addr] = error.addr;
		bank[misc] = error.misc;
	};
	if (!(error.status & uncorrected)) {
		if ((bank[status] & valid) && (bank[status] & uncorrected))
			bank[status] |= overflow;
		else
			fill();
		return {};
	}
	/* "No action": nobody is told, but by CMCI, which there is not. */
	if (!error.mcg_status && !(error.status & (context_corrupt | signaled | action))) {
		bank[status] = error.status;
		bank[addr] = error.addr;
		bank[misc] = error.misc;
		status_ = error.mcg_status;
		return {};
	}
	/* The guest has switched off its being told. */
	if (((capabilities_ & control_present) && control_ != all_ones) || bank[ctl] != all_ones)
		return {};
	if ((status_ & in_progress) || !(s.cr4 & cr4::mce)) {
		s.shutdown_pending = true;
		return {};
	}
	fill();
	status_ = error.mcg_status;
	if (!s.inject(Vector::machine_check))
		s.shutdown_pending = true;
	return {};
}

} // namespace kvmpp
