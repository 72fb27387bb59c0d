// SPDX-License-Identifier: GPL-2.0
/* The ioctls by which a VMM says what a vCPU is, and moves what it holds. */
#include "vm_fixture.hpp"

#include "arch/x86/machine_check.hpp"

#include <linux_glue/x86.h>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class StateIoctl : public ModuleTest
{
protected:
	struct Msrs {
		u32 count = 0, padding = 0;
		kvm_msr_entry entries[256] = {};
	};

	StateIoctl() : vm(create_vm()), vcpu(create_vcpu(vm)) {}
	~StateIoctl() override
	{
		close_fd(vcpu);
		close_fd(vm);
	}
	template <class T> static long device(unsigned command, T &argument)
	{
		u64 address = reinterpret_cast<u64>(&argument);

		add_user_memory(address, sizeof(T));
		long result = kvmpp_device_ioctl(command, address);
		return_to_user("an ioctl");
		remove_user_memory(address);
		return result;
	}
	static long extension(unsigned capability)
	{
		return kvmpp_device_ioctl(KVM_CHECK_EXTENSION, capability);
	}
	template <class T> long ioctl(unsigned command, T &argument)
	{
		return vcpu_ioctl(vcpu, command, argument);
	}

	int vm, vcpu;
};

} // namespace

TEST_F(StateIoctl, capabilities)
{
	for (unsigned cap : {KVM_CAP_EXT_CPUID, KVM_CAP_XSAVE, KVM_CAP_XCRS, KVM_CAP_DEBUGREGS,
			     KVM_CAP_SREGS2, KVM_CAP_GET_TSC_KHZ, KVM_CAP_GET_MSR_FEATURES})
		EXPECT_EQ(extension(cap), 1) << cap;
	EXPECT_EQ(extension(KVM_CAP_MCE), 32);
	EXPECT_EQ(extension(KVM_CAP_XSAVE2), 4096);
	EXPECT_EQ(extension(KVM_CAP_TSC_CONTROL), 0);
	EXPECT_EQ(extension(KVM_CAP_EXT_EMUL_CPUID), 0);
}

TEST_F(StateIoctl, supported_cpuid_wants_room)
{
	CpuidArgument cpuid;

	for (u32 room : {0u, 1u, 8u}) {
		cpuid.count = room;
		EXPECT_EQ(device(KVM_GET_SUPPORTED_CPUID, cpuid), -E2BIG);
		EXPECT_EQ(cpuid.count, room);
	}
	cpuid.count = 1000;
	EXPECT_EQ(device(KVM_GET_SUPPORTED_CPUID, cpuid), 0);
	EXPECT_LT(cpuid.count, 40u);
	EXPECT_EQ(kvmpp_device_ioctl(KVM_GET_SUPPORTED_CPUID, 0x1000), -EFAULT);
}

TEST_F(StateIoctl, cpuid_round_trip)
{
	CpuidArgument cpuid, back;

	cpuid.count = 257;
	EXPECT_EQ(ioctl(KVM_SET_CPUID2, cpuid), -E2BIG);
	cpuid = supported();
	EXPECT_EQ(ioctl(KVM_SET_CPUID2, cpuid), 0);
	back.count = cpuid.count - 1;
	EXPECT_EQ(ioctl(KVM_GET_CPUID2, back), -E2BIG);
	back.count = 256;
	EXPECT_EQ(ioctl(KVM_GET_CPUID2, back), 0);
	EXPECT_EQ(back.count, cpuid.count);
	for (u32 i = 0; i < cpuid.count; i++) {
		EXPECT_EQ(back.entries[i].function, cpuid.entries[i].function);
		EXPECT_EQ(back.entries[i].eax, cpuid.entries[i].eax);
	}
	cpuid.entries[0].function = 0x80000008;
	cpuid.entries[0].eax = 12 << 8;
	EXPECT_EQ(ioctl(KVM_SET_CPUID2, cpuid), -EINVAL);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_CPUID2, 0x1000ul), -EFAULT);
	back = {};
	EXPECT_EQ(ioctl(KVM_GET_CPUID2, back), 0);
	EXPECT_EQ(back.entries[0].function, 0u) << "an error changes nothing";

	struct {
		u32 count = 2, padding = 0;
		kvm_cpuid_entry entries[2] = {};
	} old;
	old.entries[1].function = 1;
	old.entries[1].ebx = 7;
	EXPECT_EQ(ioctl(KVM_SET_CPUID, old), 0);
	back = {};
	EXPECT_EQ(ioctl(KVM_GET_CPUID2, back), 0);
	EXPECT_EQ(back.count, 2u);
	EXPECT_EQ(back.entries[1].ebx, 7u);
}

TEST_F(StateIoctl, cpuid_stays_once_the_vcpu_has_run)
{
	CpuidArgument cpuid = supported();

	EXPECT_EQ(ioctl(KVM_SET_CPUID2, cpuid), 0);
	shared(vcpu).immediate_exit = 1;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 0ul), -EINTR);
	cpuid.entries[3].eax ^= 1;
	EXPECT_EQ(ioctl(KVM_SET_CPUID2, cpuid), 0) << "it has not entered";
	shared(vcpu).immediate_exit = 0;
	set_guest([](Vmcs &vmcs, u64 *) {
		vmcs.fields[field::exit_reason.encoding] = static_cast<u64>(ExitReason::hlt);
		return true;
	});
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 0ul), 0);
	EXPECT_EQ(ioctl(KVM_SET_CPUID2, cpuid), 0) << "the same";
	cpuid.entries[3].eax ^= 1;
	EXPECT_EQ(ioctl(KVM_SET_CPUID2, cpuid), -EINVAL);
}

TEST_F(StateIoctl, msr_lists)
{
	struct {
		u32 count = 0;
		u32 indices[64] = {};
	} list;

	EXPECT_EQ(device(KVM_GET_MSR_INDEX_LIST, list), -E2BIG);
	u32 count = list.count;
	EXPECT_GT(count, 10u);
	EXPECT_EQ(list.indices[0], 0u);
	EXPECT_EQ(device(KVM_GET_MSR_INDEX_LIST, list), 0);
	EXPECT_EQ(list.count, count);
	EXPECT_EQ(list.indices[0], msr::sysenter_cs);
	EXPECT_EQ(list.indices[count], 0u);
	list.count = 0;
	EXPECT_EQ(device(KVM_GET_MSR_FEATURE_INDEX_LIST, list), -E2BIG);
	EXPECT_EQ(device(KVM_GET_MSR_FEATURE_INDEX_LIST, list), 0);
	EXPECT_EQ(list.indices[0], msr::bios_sign_id);
	Msrs msrs;
	msrs.count = 2;
	msrs.entries[0].index = msr::bios_sign_id;
	msrs.entries[1].index = msr::tsc;
	EXPECT_EQ(device(KVM_GET_MSRS, msrs), 1);
}

TEST_F(StateIoctl, msrs_up_to_the_first_bad_one)
{
	Msrs msrs;

	EXPECT_EQ(ioctl(KVM_GET_MSRS, msrs), 0);
	EXPECT_EQ(ioctl(KVM_SET_MSRS, msrs), 0);
	msrs.count = 256;
	EXPECT_EQ(ioctl(KVM_SET_MSRS, msrs), -E2BIG);
	msrs.count = 4;
	msrs.entries[0] = {msr::star, 0, 0x1234};
	msrs.entries[1] = {msr::fs_base, 0, 0x5000};
	msrs.entries[2] = {0x40000000, 0, 0};
	msrs.entries[3] = {msr::lstar, 0, 0x6000};
	EXPECT_EQ(ioctl(KVM_SET_MSRS, msrs), 2);
	for (kvm_msr_entry &e : msrs.entries)
		e.data = 9;
	EXPECT_EQ(ioctl(KVM_GET_MSRS, msrs), 2);
	EXPECT_EQ(msrs.entries[0].data, 0x1234u);
	EXPECT_EQ(msrs.entries[1].data, 0x5000u);
	EXPECT_EQ(msrs.entries[2].data, 9u);
	kvm_sregs sregs;
	EXPECT_EQ(ioctl(KVM_GET_SREGS, sregs), 0);
	EXPECT_EQ(sregs.fs.base, 0x5000u);
}

TEST_F(StateIoctl, fpu_and_xsave_are_the_same_state)
{
	kvm_fpu fpu{}, back{};
	struct {
		u8 bytes[4096];
	} image;

	fpu.fcw = 0x27f;
	fpu.fsw = 0x3800;
	fpu.ftwx = 0x81;
	fpu.last_opcode = 0x123;
	fpu.last_ip = 0x1122334455;
	fpu.last_dp = 0x66778899;
	fpu.fpr[7][9] = 0x77;
	fpu.xmm[15][15] = 0x99;
	EXPECT_EQ(ioctl(KVM_SET_FPU, fpu), 0);
	EXPECT_EQ(ioctl(KVM_GET_FPU, back), 0);
	EXPECT_EQ(std::memcmp(&fpu, &back, sizeof(fpu)), 0);
	EXPECT_EQ(ioctl(KVM_GET_XSAVE, image), 0);
	EXPECT_EQ(image.bytes[0], 0x7f);
	EXPECT_EQ(image.bytes[32 + 7 * 16 + 9], 0x77);
	EXPECT_EQ(image.bytes[160 + 15 * 16 + 15], 0x99);
	EXPECT_EQ(image.bytes[512], 3) << "x87 and SSE are in it";
	image.bytes[160] = 0x55;
	EXPECT_EQ(ioctl(KVM_SET_XSAVE, image), 0);
	EXPECT_EQ(ioctl(KVM_GET_FPU, back), 0);
	EXPECT_EQ(back.xmm[0][0], 0x55);
	image.bytes[512] = 8;
	EXPECT_EQ(ioctl(KVM_SET_XSAVE, image), -EINVAL);
	image.bytes[512] = 3;
	image.bytes[27] = 1;
	EXPECT_EQ(ioctl(KVM_SET_XSAVE, image), -EINVAL) << "MXCSR";
}

TEST_F(StateIoctl, xcrs)
{
	kvm_xcrs xcrs{};

	EXPECT_EQ(ioctl(KVM_GET_XCRS, xcrs), 0);
	EXPECT_EQ(xcrs.nr_xcrs, 1u);
	EXPECT_EQ(xcrs.xcrs[0].value, 1u);
	xcrs.xcrs[0].value = 7;
	EXPECT_EQ(ioctl(KVM_SET_XCRS, xcrs), -EINVAL) << "without CPUID";
	offer_cpuid(vcpu);
	EXPECT_EQ(ioctl(KVM_SET_XCRS, xcrs), 0);
	xcrs.xcrs[0].value = 4;
	EXPECT_EQ(ioctl(KVM_SET_XCRS, xcrs), -EINVAL);
	xcrs.xcrs[0].xcr = 1;
	EXPECT_EQ(ioctl(KVM_SET_XCRS, xcrs), 0) << "others are ignored";
	xcrs.flags = 1;
	EXPECT_EQ(ioctl(KVM_SET_XCRS, xcrs), -EINVAL);
	xcrs.flags = 0;
	xcrs.nr_xcrs = 17;
	EXPECT_EQ(ioctl(KVM_SET_XCRS, xcrs), -EINVAL);
	EXPECT_EQ(ioctl(KVM_GET_XCRS, xcrs), 0);
	EXPECT_EQ(xcrs.xcrs[0].value, 7u);
}

TEST_F(StateIoctl, debug_registers)
{
	kvm_debugregs regs{}, back;

	EXPECT_EQ(ioctl(KVM_GET_DEBUGREGS, regs), 0);
	EXPECT_EQ(regs.dr6, 0xffff0ff0u);
	EXPECT_EQ(regs.dr7, 0x400u);
	regs.db[3] = 0x123456789;
	regs.dr7 = 0x4aa;
	EXPECT_EQ(ioctl(KVM_SET_DEBUGREGS, regs), 0);
	for (auto bad : {&kvm_debugregs::flags, &kvm_debugregs::dr6, &kvm_debugregs::dr7}) {
		kvm_debugregs wrong = regs;
		wrong.db[0] = 1;
		wrong.*bad |= u64{1} << 32;
		EXPECT_EQ(ioctl(KVM_SET_DEBUGREGS, wrong), -EINVAL);
	}
	EXPECT_EQ(ioctl(KVM_GET_DEBUGREGS, back), 0);
	EXPECT_EQ(std::memcmp(&regs, &back, sizeof(regs)), 0);
}

TEST_F(StateIoctl, sregs2_has_the_pdptes)
{
	kvm_sregs2 sregs;

	EXPECT_EQ(ioctl(KVM_GET_SREGS2, sregs), 0);
	EXPECT_EQ(sregs.flags, 0u);
	EXPECT_EQ(sregs.apic_base, 0xfee00900u);
	sregs.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	EXPECT_EQ(ioctl(KVM_SET_SREGS2, sregs), -EINVAL) << "which a CPU in real mode has not";
	sregs.flags = 2;
	EXPECT_EQ(ioctl(KVM_SET_SREGS2, sregs), -EINVAL);
	sregs.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
	sregs.cr0 = cr0::pe | cr0::pg | cr0::et;
	sregs.cr4 = cr4::pae;
	for (u64 i = 0; i < 4; i++)
		sregs.pdptrs[i] = (i + 1) << 12 | 1;
	EXPECT_EQ(ioctl(KVM_SET_SREGS2, sregs), 0);
	kvm_sregs2 back{};
	EXPECT_EQ(ioctl(KVM_GET_SREGS2, back), 0);
	EXPECT_EQ(back.flags, u64{KVM_SREGS2_FLAGS_PDPTRS_VALID});
	EXPECT_EQ(back.pdptrs[3], 0x4001u);
	EXPECT_EQ(back.cr4, cr4::pae);
}

TEST_F(StateIoctl, sregs_follow_cpuid)
{
	kvm_sregs sregs;

	EXPECT_EQ(ioctl(KVM_GET_SREGS, sregs), 0);
	sregs.cr4 = cr4::smep;
	EXPECT_EQ(ioctl(KVM_SET_SREGS, sregs), -EINVAL);
	sregs.cr4 = 0;
	sregs.apic_base |= 1 << 10;
	EXPECT_EQ(ioctl(KVM_SET_SREGS, sregs), -EINVAL);
	offer_cpuid(vcpu);
	sregs.cr4 = cr4::smep;
	EXPECT_EQ(ioctl(KVM_SET_SREGS, sregs), 0);
}

TEST_F(StateIoctl, tsc_frequency_is_the_hosts)
{
	long khz = vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, 0ul);

	EXPECT_EQ(khz, static_cast<long>(glue_tsc_khz()));
	for (long same : {khz, khz - 1, 0l})
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, static_cast<unsigned long>(same)), 0);
	for (long other : {khz * 2, khz / 2, khz + 1, khz - 2, 1l})
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, static_cast<unsigned long>(other)),
			  -EINVAL);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, 0ul), khz);
}

TEST_F(StateIoctl, machine_checks)
{
	struct {
		u64 value;
	} capabilities{};
	kvm_x86_mce error{};

	error.status = 1ull << 63 | 1ull << 61 | 1ull << 56;

	EXPECT_EQ(device(KVM_X86_GET_MCE_CAP_SUPPORTED, capabilities), 0);
	EXPECT_EQ(capabilities.value, MachineCheck::supported);
	EXPECT_EQ(ioctl(KVM_X86_SETUP_MCE, capabilities), -EINVAL) << "no bank";
	capabilities.value |= 10;
	EXPECT_EQ(ioctl(KVM_X86_SETUP_MCE, capabilities), 0);
	error.bank = 10;
	EXPECT_EQ(ioctl(KVM_X86_SET_MCE, error), -EINVAL);
	error.bank = 0;
	EXPECT_EQ(ioctl(KVM_X86_SET_MCE, error), 0);
	/* CR4.MCE is clear: it shuts down, once. */
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 0ul), 0);
	EXPECT_EQ(shared(vcpu).exit_reason, u32{KVM_EXIT_SHUTDOWN});
	shared(vcpu).immediate_exit = 1;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 0ul), -EINTR);
}

TEST_F(StateIoctl, what_wants_an_apic_in_the_kernel)
{
	kvm_lapic_state lapic{};

	EXPECT_EQ(ioctl(KVM_GET_LAPIC, lapic), -EINVAL);
	EXPECT_EQ(ioctl(KVM_SET_LAPIC, lapic), -EINVAL);
}
