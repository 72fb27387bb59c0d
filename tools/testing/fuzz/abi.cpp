// SPDX-License-Identifier: GPL-2.0
#include "abi.hpp"

#include <algorithm>
#include <cstring>
#include <linux/kvm.h>
#include <uapi/kvmpp.h>

namespace fuzz
{
namespace
{

constexpr unsigned repeated = 24;

#define IOCTL(name) #name, name

constexpr Ioctl table[] = {
	{IOCTL(KVM_GET_API_VERSION), File::device, 1, ""},
	{IOCTL(KVM_CREATE_VM), File::device, 1, "=i"},
	{IOCTL(KVM_CHECK_EXTENSION), File::device, 2, "=e"},
	{IOCTL(KVM_GET_VCPU_MMAP_SIZE), File::device, 1, ""},
	{IOCTL(KVM_GET_MSR_INDEX_LIST), File::device, 2, "c4*04"},
	{IOCTL(KVM_GET_MSR_FEATURE_INDEX_LIST), File::device, 2, "c4*04"},
	{IOCTL(KVM_GET_SUPPORTED_CPUID), File::device, 1, "c404*08"},
	{IOCTL(KVM_GET_EMULATED_CPUID), File::device, 1, "c404*08"},
	{IOCTL(KVM_GET_SUPPORTED_HV_CPUID), File::device, 1, "c404*08"},
	{IOCTL(KVM_GET_MSRS), File::device, 2, "c404*m404a8"},
	{IOCTL(KVM_X86_GET_MCE_CAP_SUPPORTED), File::device, 1, "08"},
	{IOCTL(KVM_MEMORY_ENCRYPT_OP), File::device, 1, "u8"},

	{IOCTL(KVM_CHECK_EXTENSION), File::vm, 1, "=e"},
	{IOCTL(KVM_CREATE_VCPU), File::vm, 2, "=i"},
	{IOCTL(KVM_SET_MEMORY_REGION), File::vm, 1, "i4f4g8p8"},
	{IOCTL(KVM_SET_USER_MEMORY_REGION), File::vm, 12, "i4f4r8p8u8"},
	{IOCTL(KVM_GET_DIRTY_LOG), File::vm, 8, "i404u8"},
	{IOCTL(KVM_CLEAR_DIRTY_LOG), File::vm, 8, "i4c4i8u8"},
	{IOCTL(KVM_RESET_DIRTY_RINGS), File::vm, 1, ""},
	{IOCTL(KVM_SET_MEMORY_ALIAS), File::vm, 1, "i404g8p8g8"},
	{IOCTL(KVM_SET_NR_MMU_PAGES), File::vm, 1, "=a"},
	{IOCTL(KVM_GET_NR_MMU_PAGES), File::vm, 1, ""},
	{IOCTL(KVM_SET_TSS_ADDR), File::vm, 1, "=a"},
	{IOCTL(KVM_SET_IDENTITY_MAP_ADDR), File::vm, 1, "g8"},
	{IOCTL(KVM_CREATE_IRQCHIP), File::vm, 1, ""},
	{IOCTL(KVM_IRQ_LINE), File::vm, 8, "i4f4"},
	{IOCTL(KVM_IRQ_LINE_STATUS), File::vm, 4, "i4f4"},
	{IOCTL(KVM_GET_IRQCHIP), File::vm, 3, "i404"},
	{IOCTL(KVM_SET_IRQCHIP), File::vm, 5, "i404*a8", KVM_GET_IRQCHIP},
	{IOCTL(KVM_CREATE_PIT), File::vm, 1, ""},
	{IOCTL(KVM_CREATE_PIT2), File::vm, 1, "f404"},
	{IOCTL(KVM_GET_PIT), File::vm, 1, ""},
	{IOCTL(KVM_SET_PIT), File::vm, 2, "*a8", KVM_GET_PIT},
	{IOCTL(KVM_GET_PIT2), File::vm, 1, ""},
	{IOCTL(KVM_SET_PIT2), File::vm, 3, "*a8", KVM_GET_PIT2},
	{IOCTL(KVM_REINJECT_CONTROL), File::vm, 1, "f1"},
	{IOCTL(KVM_REGISTER_COALESCED_MMIO), File::vm, 5, "g8l4f4"},
	{IOCTL(KVM_UNREGISTER_COALESCED_MMIO), File::vm, 5, "g8l4f4"},
	{IOCTL(KVM_SET_GSI_ROUTING), File::vm, 12, "c404*i4k40404i4i4a8i808"},
	{IOCTL(KVM_IRQFD), File::vm, 8, "d4i4f4d4"},
	{IOCTL(KVM_SET_BOOT_CPU_ID), File::vm, 1, "=i"},
	{IOCTL(KVM_IOEVENTFD), File::vm, 8, "a8g8l4d4f4"},
	{IOCTL(KVM_XEN_HVM_CONFIG), File::vm, 1, "f4m4u8u8"},
	{IOCTL(KVM_XEN_HVM_GET_ATTR), File::vm, 1, "i2"},
	{IOCTL(KVM_XEN_HVM_SET_ATTR), File::vm, 1, "i2"},
	{IOCTL(KVM_XEN_HVM_EVTCHN_SEND), File::vm, 1, "i4i4i4"},
	{IOCTL(KVM_GET_CLOCK), File::vm, 3, "*08"},
	{IOCTL(KVM_SET_CLOCK), File::vm, 3, "a8f404a8a8", KVM_GET_CLOCK},
	{IOCTL(KVM_SET_TSC_KHZ), File::vm, 1, "=a"},
	{IOCTL(KVM_GET_TSC_KHZ), File::vm, 1, ""},
	{IOCTL(KVM_SIGNAL_MSI), File::vm, 6, "a4a4a4f4i4"},
	{IOCTL(KVM_ENABLE_CAP), File::vm, 4, "e4f4a8a8a8a8"},
	{IOCTL(KVM_SET_PMU_EVENT_FILTER), File::vm, 1, "f4c4a4f4"},
	{IOCTL(KVM_CREATE_DEVICE), File::vm, 1, "i4d4f4"},
	{IOCTL(KVM_SET_DEVICE_ATTR), File::vm, 1, "f4i4a8u8"},
	{IOCTL(KVM_GET_DEVICE_ATTR), File::vm, 1, "f4i4a8u8"},
	{IOCTL(KVM_HAS_DEVICE_ATTR), File::vm, 1, "f4i4a8u8"},
	{IOCTL(KVM_X86_SET_MSR_FILTER), File::vm, 1, "f4*f4c4m4u8"},
	{IOCTL(KVM_MEMORY_ENCRYPT_OP), File::vm, 1, "u8"},
	{IOCTL(KVM_MEMORY_ENCRYPT_REG_REGION), File::vm, 1, "u8p8"},
	{IOCTL(KVM_MEMORY_ENCRYPT_UNREG_REGION), File::vm, 1, "u8p8"},
	{IOCTL(KVM_HYPERV_EVENTFD), File::vm, 1, "i4d4f4"},
	{IOCTL(KVM_GET_STATS_FD), File::vm, 1, ""},

	{IOCTL(KVM_RUN), File::vcpu, 30, ""},
	{IOCTL(KVM_GET_REGS), File::vcpu, 4, ""},
	{IOCTL(KVM_SET_REGS), File::vcpu, 8, "*a8", KVM_GET_REGS},
	{IOCTL(KVM_GET_SREGS), File::vcpu, 4, ""},
	{IOCTL(KVM_SET_SREGS), File::vcpu, 12, "*a8", KVM_GET_SREGS},
	{IOCTL(KVM_GET_SREGS2), File::vcpu, 2, ""},
	{IOCTL(KVM_SET_SREGS2), File::vcpu, 6, "*a8", KVM_GET_SREGS2},
	{IOCTL(KVM_TRANSLATE), File::vcpu, 2, "g8"},
	{IOCTL(KVM_INTERRUPT), File::vcpu, 6, "i4"},
	{IOCTL(KVM_GET_MSRS), File::vcpu, 6, "c404*m404a8"},
	{IOCTL(KVM_SET_MSRS), File::vcpu, 12, "c404*m404a8", KVM_GET_MSRS},
	{IOCTL(KVM_SET_CPUID), File::vcpu, 2, "c404*a4a4a4a4a404"},
	{IOCTL(KVM_SET_CPUID2), File::vcpu, 3, "c404*a4f4f4a4a4a4a4a4a4a4", KVM_GET_CPUID2},
	{IOCTL(KVM_GET_CPUID2), File::vcpu, 2, "c404"},
	{IOCTL(KVM_SET_SIGNAL_MASK), File::vcpu, 3, "l4s8"},
	{IOCTL(KVM_GET_FPU), File::vcpu, 2, ""},
	{IOCTL(KVM_SET_FPU), File::vcpu, 3, "*a8", KVM_GET_FPU},
	{IOCTL(KVM_GET_LAPIC), File::vcpu, 3, ""},
	{IOCTL(KVM_SET_LAPIC), File::vcpu, 6, "*a8", KVM_GET_LAPIC},
	{IOCTL(KVM_TPR_ACCESS_REPORTING), File::vcpu, 1, "f4f4"},
	{IOCTL(KVM_SET_VAPIC_ADDR), File::vcpu, 1, "g8"},
	{IOCTL(KVM_GET_MP_STATE), File::vcpu, 2, ""},
	{IOCTL(KVM_SET_MP_STATE), File::vcpu, 3, "i4"},
	{IOCTL(KVM_NMI), File::vcpu, 4, ""},
	{IOCTL(KVM_SMI), File::vcpu, 1, ""},
	{IOCTL(KVM_SET_GUEST_DEBUG), File::vcpu, 6, "f4a4g8g8g8g80808a8a8"},
	{IOCTL(KVM_X86_SETUP_MCE), File::vcpu, 2, "f8"},
	{IOCTL(KVM_X86_SET_MCE), File::vcpu, 6, "a8a8a8f8i1"},
	{IOCTL(KVM_GET_VCPU_EVENTS), File::vcpu, 3, ""},
	{IOCTL(KVM_SET_VCPU_EVENTS), File::vcpu, 10, "*f1i1f1f1a4f1i1f1f1", KVM_GET_VCPU_EVENTS},
	{IOCTL(KVM_GET_DEBUGREGS), File::vcpu, 2, ""},
	{IOCTL(KVM_SET_DEBUGREGS), File::vcpu, 5, "g8g8g8g8a8a8f8", KVM_GET_DEBUGREGS},
	{IOCTL(KVM_ENABLE_CAP), File::vcpu, 1, "e4f4a8a8a8a8"},
	{IOCTL(KVM_GET_XSAVE), File::vcpu, 2, ""},
	{IOCTL(KVM_SET_XSAVE), File::vcpu, 4, "*a8", KVM_GET_XSAVE},
	{IOCTL(KVM_GET_XSAVE2), File::vcpu, 2, ""},
	{IOCTL(KVM_GET_XCRS), File::vcpu, 2, ""},
	{IOCTL(KVM_SET_XCRS), File::vcpu, 4, "i4f4*i404f8", KVM_GET_XCRS},
	{IOCTL(KVM_KVMCLOCK_CTRL), File::vcpu, 2, ""},
	{IOCTL(KVM_SET_TSC_KHZ), File::vcpu, 1, "=a"},
	{IOCTL(KVM_GET_TSC_KHZ), File::vcpu, 1, ""},
	{IOCTL(KVM_GET_NESTED_STATE), File::vcpu, 1, "f2f2c4"},
	{IOCTL(KVM_SET_NESTED_STATE), File::vcpu, 1, "f2f2c4"},
	{IOCTL(KVM_XEN_VCPU_GET_ATTR), File::vcpu, 1, "i2"},
	{IOCTL(KVM_XEN_VCPU_SET_ATTR), File::vcpu, 1, "i2"},
	{IOCTL(KVM_GET_SUPPORTED_HV_CPUID), File::vcpu, 1, "c404"},
	{IOCTL(KVM_GET_ONE_REG), File::vcpu, 1, "a8u8"},
	{IOCTL(KVM_SET_ONE_REG), File::vcpu, 1, "a8u8"},
	{IOCTL(KVM_GET_REG_LIST), File::vcpu, 1, "c8"},
	{IOCTL(KVM_DIRTY_TLB), File::vcpu, 1, "u8c4"},
	{IOCTL(KVM_GET_STATS_FD), File::vcpu, 1, ""},
	{IOCTL(KVMPP_GET_DEDICATED_CPU), File::vcpu, 2, "04"},
	{IOCTL(KVMPP_SET_DEDICATED_CPU), File::vcpu, 2, "=x"},
};

#undef IOCTL

// Where MSRs are, and beside that.
uint64_t any_msr(Random &random)
{
	constexpr uint32_t bases[] = {
		0x10,       0x1b,       0x28,       0x30,       0x38,       0x48,        0x79,
		0x8b,       0xc0,       0xcd,       0xfe,       0x110,      0x170,       0x180,
		0x190,      0x1a0,      0x1d0,      0x1fc,      0x200,      0x250,       0x268,
		0x277,      0x280,      0x2ff,      0x345,      0x400,      0x480,       0x490,
		0x4c0,      0x600,      0x610,      0x630,      0x640,      0x6e0,       0x800,
		0x810,      0x820,      0x830,      0xc80,      0xda0,      0x4b564d00,  0x4b564d07,
		0x40000000, 0x40000070, 0xc0000080, 0xc0000100, 0xc0010000, 0xc001'1020,
	};
	switch (random.below(16)) {
	case 0:
		return random.number();
	case 1:
	case 2:
		// All that are Intel's.
		return random.below(0x1000);
	default:
		return bases[random.below(std::size(bases))] + random.below(16);
	}
}

} // namespace

std::span<const Ioctl> ioctls()
{
	return table;
}

const Ioctl &any_ioctl(Random &random)
{
	static const unsigned total = [] {
		unsigned sum = 0;
		for (const Ioctl &one : table)
			sum += one.weight;
		return sum;
	}();
	unsigned at = random.below(total);
	for (const Ioctl &one : table) {
		if (at < one.weight)
			return one;
		at -= one.weight;
	}
	return table[0];
}

uint64_t number_of_kind(char kind, Random &random, const Places &places)
{
	constexpr uint64_t page = 0x1000;
	const bool wild = random.one_in(12);
	const uint64_t any = random.number();

	switch (kind) {
	case '0':
		return wild ? any : 0;
	case 'c':
		// Few, so that now and then all of them are right.
		return wild ? any : random.below(random.one_in(4) ? repeated : 4);
	case 'd':
		return wild ? any : static_cast<uint64_t>(places.descriptor(random));
	case 'e':
		return wild ? any : any % 256;
	case 'f':
		return wild ? any : any & (random.one_in(2) ? 0x3 : 0x3f);
	case 'g':
		if (wild)
			return any;
		// In memory, above it, or what real mode and ports reach.
		return (random.one_in(2) ? any % (2 * places.memory_size) : any % 0x400) &
		       (random.one_in(2) ? -page : ~uint64_t{0});
	case 'i':
		// Evenly: most numbers are multiples of four.
		return wild ? any : random.below(random.one_in(4) ? 64 : 4);
	case 'k':
		return wild ? any : 1 + random.below(2);
	case 'l':
		return wild ? any : any % 12;
	case 'm':
		return any_msr(random);
	case 'p':
		return wild ? any : any % 32 * page;
	case 'r':
		return wild ? any : any % (2 * places.memory_size) & -page;
	case 's':
		return any;
	case 'u':
		return wild ? any : places.memory + any % places.memory_size / page * page;
	case 'x':
		return wild ? any : random.below(4) - 1ull;
	default:
		return any;
	}
}

size_t fill_argument(const Ioctl &ioctl, Random &random, const Places &places, std::byte *to)
{
	const char *format = ioctl.argument, *again = nullptr;
	size_t size = 0;

	for (unsigned round = 0;;) {
		if (*format == '*')
			again = ++format;
		if (!*format) {
			if (!again || ++round == repeated)
				break;
			format = again;
		}
		const uint64_t value = number_of_kind(format[0], random, places);
		const auto bytes = static_cast<size_t>(format[1] - '0');
		std::memcpy(to + size, &value, bytes);
		size += bytes;
		format += 2;
	}
	// Sets of registers are larger than their first fields, and read to their end.
	const size_t whole = std::max<size_t>(size, _IOC_SIZE(ioctl.request));
	std::memset(to + size, 0, whole - size);
	return whole;
}

void mutate(Random &random, std::span<std::byte> argument)
{
	const unsigned times = 1 + random.below(3);
	for (unsigned i = 0; i < times; i++) {
		// Most of what is looked at is in the beginning.
		const auto most = static_cast<unsigned>(
			random.one_in(2) ? argument.size() : std::min<size_t>(argument.size(), 64));
		const auto at = argument.subspan(random.below(most));
		const uint64_t value = random.number();
		if (random.one_in(2))
			at[0] ^= std::byte{1} << value % 8;
		else
			std::memcpy(at.data(), &value, std::min<size_t>(8, at.size()));
	}
}

void tame(const Ioctl &ioctl, int needed_signal, std::byte *argument)
{
	constexpr uint64_t largest_log = uint64_t{8} << 30;

	if (ioctl.request == KVM_SET_SIGNAL_MASK) {
		const auto bit = static_cast<unsigned>(needed_signal - 1);
		argument[sizeof(kvm_signal_mask) + bit / 8] &= ~(std::byte{1} << bit % 8);
	}
	if (ioctl.request == KVM_SET_USER_MEMORY_REGION) {
		kvm_userspace_memory_region region;
		std::memcpy(&region, argument, sizeof(region));
		if (region.memory_size > largest_log)
			region.flags &= ~uint32_t{KVM_MEM_LOG_DIRTY_PAGES};
		std::memcpy(argument, &region, sizeof(region));
	}
}

} // namespace fuzz
