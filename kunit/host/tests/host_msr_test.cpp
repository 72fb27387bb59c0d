// SPDX-License-Identifier: GPL-2.0
/* MSRs for the guest and for its VMM, which may do more. */
#include "guest.hpp"

#include "arch/x86/host_msr.hpp"

#include <algorithm>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class HostMsr : public GuestTest
{
protected:
	u64 read(u32 index, By by = By::host)
	{
		u64 value = 0xdead;

		EXPECT_TRUE(by == By::host ? read_host_msr(s, index, value)
					   : read_msr(s, index, by, value))
			<< std::hex << index;
		return value;
	}
	bool has(u32 index, By by = By::guest)
	{
		u64 value;

		return by == By::host ? read_host_msr(s, index, value)
				      : read_msr(s, index, by, value);
	}
	bool write(u32 index, u64 value, By by = By::host)
	{
		return by == By::host ? write_host_msr(s, index, value)
				      : write_msr(s, index, by, value);
	}
};

constexpr u32 first_bank = 0x400, first_control2 = 0x280;

} // namespace

TEST_F(HostMsr, all_in_the_list_can_be_read_and_written_back)
{
	ASSERT_TRUE(machine_check.set_up(MachineCheck::supported | 10));
	for (u32 index : msrs_to_save()) {
		u64 value = read(index);
		/* KVM's, too, cannot even be 0 without an APIC in the kernel. */
		if (index == paravirtual::async_pf_interrupt)
			continue;
		EXPECT_TRUE(write(index, value)) << std::hex << index;
		EXPECT_TRUE(write(index, 0)) << std::hex << index;
	}
	auto listed = [](u32 index) { return std::ranges::count(msrs_to_save(), index); };
	EXPECT_EQ(listed(msr::star), 1);
	EXPECT_EQ(listed(msr::tsc_aux), 1);
	EXPECT_EQ(listed(0x9e /* SMBASE */), 0);
	init_guest_features(7, false, true);
	EXPECT_EQ(listed(msr::tsc_aux), 0);
}

/* QEMU ends where one of them fails. */
TEST_F(HostMsr, what_qemu_puts)
{
	ASSERT_TRUE(machine_check.set_up(MachineCheck::supported | 10));
	for (u32 index : {0x174u, 0x175u, 0x176u, 0x277u, 0xc0000083u, 0xc0000102u, 0xc0000084u,
			  0xc0000082u, 0x10u, 0x17au, 0xc0000081u, 0x3bu, 0x34u, 0x3au}) {
		EXPECT_TRUE(write(index, 0)) << std::hex << index;
		EXPECT_TRUE(index == msr::tsc || read(index) == 0) << std::hex << index;
	}
	EXPECT_TRUE(write(msr::misc_enable, 1));
	EXPECT_TRUE(write(msr::mcg_ctl, ~u64{0}));
	for (u32 i = 0; i < 40; i++)
		EXPECT_TRUE(write(first_bank + i, i % 4 ? 0 : ~u64{0}));
	EXPECT_TRUE(write(0x2ff, 0));
	for (u32 index : {0x250u, 0x258u, 0x259u, 0x268u, 0x26fu, 0x200u, 0x20fu})
		EXPECT_TRUE(write(index, 0));
	EXPECT_TRUE(write(msr::bios_sign_id, u64{1} << 32));
}

TEST_F(HostMsr, those_of_the_vmcs)
{
	EXPECT_TRUE(host_msr_groups(msr::fs_base).has(Group::segments));
	EXPECT_TRUE(host_msr_groups(msr::gs_base).has(Group::segments));
	for (u32 index : {msr::sysenter_cs, msr::sysenter_esp, msr::sysenter_eip})
		EXPECT_TRUE(host_msr_groups(index).has(Group::sysenter));
	EXPECT_TRUE(host_msr_groups(msr::star).empty());

	EXPECT_TRUE(write(msr::fs_base, 0x1000));
	EXPECT_TRUE(write(msr::gs_base, 0x2000));
	EXPECT_TRUE(s.dirty.has(Group::segments));
	EXPECT_EQ(s.seg(Seg::fs).base, 0x1000u);
	EXPECT_EQ(s.seg(Seg::gs).base, 0x2000u);
	EXPECT_EQ(read(msr::fs_base), 0x1000u);
	EXPECT_EQ(read(msr::gs_base), 0x2000u);
	for (u32 index : {msr::fs_base, msr::gs_base, msr::kernel_gs_base, msr::lstar, msr::cstar})
		EXPECT_FALSE(write(index, u64{1} << 47));
	EXPECT_TRUE(write(msr::sysenter_cs, 0x1'0000'0008));
	EXPECT_EQ(read(msr::sysenter_cs), 8u);
	EXPECT_TRUE(write(msr::sysenter_eip, u64{1} << 47));
	EXPECT_EQ(read(msr::sysenter_eip), 0xffff800000000000u) << "made canonical";
	EXPECT_TRUE(s.dirty.has(Group::sysenter));
}

TEST_F(HostMsr, efer_for_the_vmm)
{
	s.model = {};
	EXPECT_FALSE(write(msr::efer, efer::lme, By::guest));
	EXPECT_FALSE(write(msr::efer, efer::nx, By::guest));
	EXPECT_TRUE(write(msr::efer, efer::lme | efer::nx));
	EXPECT_EQ(s.efer, efer::lme | efer::nx);
	EXPECT_FALSE(write(msr::efer, 1 << 12));
}

TEST_F(HostMsr, tsc_adjust)
{
	set_tsc(1000);
	EXPECT_TRUE(write(msr::tsc, 5000, By::guest));
	u64 offset = s.tsc_offset;
	EXPECT_EQ(read(msr::tsc_adjust, By::guest), offset) << "what the write has moved it by";
	EXPECT_TRUE(write(msr::tsc_adjust, offset + 100, By::guest));
	EXPECT_EQ(s.tsc_offset, offset + 100);
	/* The VMM says what it was, and moves nothing. */
	EXPECT_TRUE(write(msr::tsc_adjust, 7));
	EXPECT_EQ(s.tsc_offset, offset + 100);
	EXPECT_EQ(read(msr::tsc_adjust), 7u);
	set_tsc(1000);
	EXPECT_TRUE(write(msr::tsc, 9000));
	EXPECT_EQ(read(msr::tsc_adjust), 7u);
	s.model.tsc_adjust = false;
	EXPECT_TRUE(write(msr::tsc_adjust, 99, By::guest));
	EXPECT_EQ(read(msr::tsc_adjust), 7u) << "which is not there";
}

TEST_F(HostMsr, misc_enable)
{
	EXPECT_EQ(read(msr::misc_enable), 0x1800u);
	EXPECT_FALSE(write(msr::misc_enable, 0x801, By::guest)) << "read-only";
	EXPECT_TRUE(write(msr::misc_enable, 0x1881, By::guest));
	EXPECT_EQ(read(msr::misc_enable), 0x1801u) << "nothing comes of bit 7";
	EXPECT_TRUE(write(msr::misc_enable, 1));
	EXPECT_EQ(read(msr::misc_enable), 1u);
}

TEST_F(HostMsr, what_the_guest_may_not)
{
	EXPECT_TRUE(write(msr::bios_sign_id, 0, By::guest));
	EXPECT_EQ(read(msr::bios_sign_id), u64{1} << 32);
	EXPECT_TRUE(write(msr::bios_sign_id, 5));
	EXPECT_EQ(read(msr::bios_sign_id, By::guest), 5u);
	EXPECT_FALSE(write(msr::smi_count, 1, By::guest));
	EXPECT_TRUE(write(msr::smi_count, 1));
	EXPECT_FALSE(has(msr::xss, By::guest));
	EXPECT_TRUE(has(msr::xss, By::host));
	EXPECT_FALSE(write(msr::xss, 1));
	EXPECT_TRUE(write(msr::feature_control, 1, By::guest));
	EXPECT_FALSE(write(msr::feature_control, 1, By::guest)) << "locked";
	EXPECT_TRUE(write(msr::feature_control, 0));
	EXPECT_FALSE(write(msr::feature_control, 4)) << "no VMX";
	EXPECT_TRUE(write(msr::debugctl, 3, By::guest));
	EXPECT_EQ(read(msr::debugctl, By::guest), 0u);
	EXPECT_FALSE(write(msr::debugctl, 4, By::guest));
	EXPECT_TRUE(write(msr::tsc_deadline, 5, By::guest));
	EXPECT_EQ(read(msr::tsc_deadline, By::guest), 0u) << "no APIC in the kernel";
	s.model.x2apic = true;
	s.apic_base = 0xfee00c00;
	EXPECT_FALSE(write(msr::apic_base, 0xfee00800, By::guest));
	EXPECT_TRUE(write(msr::apic_base, 0xfee00800));
	EXPECT_FALSE(write(msr::apic_base, 0xfee00400));
	s.model = {};
	EXPECT_FALSE(has(msr::tsc_aux, By::guest));
	EXPECT_TRUE(write(msr::tsc_aux, u64{1} << 32 | 5)) << "not Intel's rule";
	EXPECT_EQ(read(msr::tsc_aux), 5u);
	s.model.intel = true;
	EXPECT_FALSE(write(msr::tsc_aux, u64{1} << 32));
	for (u32 index : {0x9eu, 0x48u, 0x480u, 0x800u, 0xc0010015u, 0x40000000u}) {
		EXPECT_FALSE(has(index, By::host)) << std::hex << index;
		EXPECT_FALSE(write(index, 0)) << std::hex << index;
	}
}

TEST_F(HostMsr, mtrrs)
{
	EXPECT_EQ(read(msr::mtrr_cap, By::guest), 0x508u);
	EXPECT_FALSE(write(msr::mtrr_cap, 0));
	for (u64 type : {0, 1, 4, 5, 6}) {
		EXPECT_TRUE(write(0x2ff, 0xc00 | type, By::guest));
		EXPECT_EQ(read(0x2ff), 0xc00 | type);
		EXPECT_TRUE(write(0x250, type * 0x0101010101010101, By::guest));
		EXPECT_EQ(read(0x250), type * 0x0101010101010101);
		EXPECT_TRUE(write(0x20e, 0x1000 | type, By::guest));
		EXPECT_EQ(read(0x20e), 0x1000 | type);
	}
	for (u64 type : {2, 3, 7, 8, 0xff}) {
		EXPECT_FALSE(write(0x2ff, type, By::guest));
		EXPECT_FALSE(write(0x259, type << 56, By::guest));
		EXPECT_FALSE(write(0x200, type, By::guest));
	}
	EXPECT_FALSE(write(0x2ff, 1 << 9));
	EXPECT_FALSE(write(0x200, 1 << 8));
	EXPECT_FALSE(write(0x200, u64{1} << 39));
	EXPECT_FALSE(write(0x201, 1 << 10));
	EXPECT_FALSE(write(0x201, u64{1} << 39));
	EXPECT_TRUE(write(0x201, 0x7f80000800));
	EXPECT_EQ(read(0x201), 0x7f80000800u);
	s.model.physical_address_bits = 36;
	EXPECT_EQ(read(0x201), 0xf80000800u) << "what there is of it";
	/* Each is its own: another pattern of two types. */
	const u32 fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
			     0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
	auto pattern = [](u32 index) {
		u64 value = 0;
		for (int i = 0; i < 8; i++)
			value |= u64{index >> i & 1 ? 6u : 0u} << (8 * i);
		return value;
	};
	for (u32 index : fixed)
		EXPECT_TRUE(write(index, pattern(index)));
	for (u32 index : fixed)
		EXPECT_EQ(read(index), pattern(index)) << std::hex << index;
	for (u32 index : {0x1ffu, 0x210u, 0x251u, 0x257u, 0x25au, 0x267u, 0x270u, 0x2feu, 0x300u}) {
		EXPECT_FALSE(has(index)) << std::hex << index;
		EXPECT_FALSE(write(index, 0)) << std::hex << index;
	}
}

TEST_F(HostMsr, machine_check_banks)
{
	for (u64 capabilities :
	     {u64{0}, u64{33}, u64{1} << 27 | 1, u64{1} << 10 | 1, u64{1} << 40 | 1})
		EXPECT_EQ(machine_check.set_up(capabilities).error(), Errno::inval);
	EXPECT_EQ(read(msr::mcg_cap), 32u);
	EXPECT_FALSE(has(msr::mcg_ctl));
	EXPECT_TRUE(has(msr::mcg_ctl, By::host));
	EXPECT_FALSE(write(msr::mcg_ctl, ~u64{0}));
	EXPECT_TRUE(write(msr::mcg_ctl, 0));

	ASSERT_TRUE(machine_check.set_up(MachineCheck::supported | 2));
	EXPECT_EQ(read(msr::mcg_ctl, By::guest), ~u64{0});
	EXPECT_FALSE(write(msr::mcg_ctl, 1));
	EXPECT_EQ(read(first_bank + 4), ~u64{0});
	EXPECT_TRUE(write(first_bank, 0, By::guest));
	EXPECT_TRUE(write(first_bank, ~u64{0} & ~u64{0x401}, By::guest));
	EXPECT_FALSE(write(first_bank, 5, By::guest));
	EXPECT_FALSE(write(first_bank + 1, 1, By::guest)) << "STATUS";
	EXPECT_TRUE(write(first_bank + 1, 1));
	EXPECT_TRUE(write(first_bank + 1, 0, By::guest));
	EXPECT_TRUE(write(first_bank + 7, 9, By::guest));
	EXPECT_EQ(read(first_bank + 7), 9u);
	EXPECT_FALSE(has(first_bank + 8) || write(first_bank + 8, 0));
	EXPECT_FALSE(has(first_control2));
	EXPECT_TRUE(has(first_control2, By::host));
	EXPECT_FALSE(write(first_control2, 1));
	EXPECT_FALSE(has(first_control2 + 2, By::host));
	EXPECT_FALSE(write(msr::mcg_cap, 0));
}

TEST_F(HostMsr, machine_checks_of_the_vmm)
{
	constexpr u64 valid = u64{1} << 63, overflow = u64{1} << 62, uncorrected = u64{1} << 61,
		      signaled = u64{1} << 56;
	kvm_x86_mce error{};

	ASSERT_TRUE(machine_check.set_up(MachineCheck::supported | 2));
	protected_mode();
	s.cr4 |= cr4::mce;
	EXPECT_EQ(machine_check.report(s, error).error(), Errno::inval) << "nothing in it";
	error.status = valid;
	error.bank = 2;
	EXPECT_EQ(machine_check.report(s, error).error(), Errno::inval) << "no such bank";
	error.bank = 1;
	error.addr = 0x1000;
	error.misc = 3;
	EXPECT_TRUE(machine_check.report(s, error));
	EXPECT_FALSE(s.has_event) << "corrected";
	EXPECT_EQ(read(first_bank + 5), valid);
	EXPECT_EQ(read(first_bank + 6), 0x1000u);
	EXPECT_EQ(read(first_bank + 7), 3u);

	error.status = valid | uncorrected | signaled;
	error.mcg_status = 5;
	EXPECT_TRUE(write(first_bank + 4, 0));
	EXPECT_TRUE(machine_check.report(s, error));
	EXPECT_FALSE(s.has_event) << "the bank is off";
	EXPECT_TRUE(write(first_bank + 4, ~u64{0}));
	EXPECT_TRUE(machine_check.report(s, error));
	expect_event(Vector::machine_check);
	EXPECT_EQ(read(first_bank + 5), valid | uncorrected | signaled | overflow);
	EXPECT_EQ(read(msr::mcg_status), 5u);
	EXPECT_FALSE(s.shutdown_pending);
	EXPECT_TRUE(machine_check.report(s, error)) << "one in the other's handler";
	EXPECT_TRUE(s.shutdown_pending);

	s.shutdown_pending = false;
	EXPECT_TRUE(write(msr::mcg_status, 0));
	s.cr4 &= ~cr4::mce;
	EXPECT_TRUE(machine_check.report(s, error));
	EXPECT_TRUE(s.shutdown_pending) << "nobody to tell";

	s.shutdown_pending = s.has_event = false;
	error.status = valid | uncorrected;
	error.mcg_status = 0;
	EXPECT_TRUE(machine_check.report(s, error));
	EXPECT_FALSE(s.has_event || s.shutdown_pending) << "no action";
}

TEST_F(HostMsr, the_device_says_the_microcode_of_the_host)
{
	u64 value;

	EXPECT_EQ(msrs_of_features().size(), 1u);
	processor(0).msrs[msr::bios_sign_id] = 0x1234;
	EXPECT_TRUE(read_feature_msr(msr::bios_sign_id, value));
	EXPECT_EQ(value, 0x1234u);
	EXPECT_FALSE(read_feature_msr(msr::tsc, value));
}
