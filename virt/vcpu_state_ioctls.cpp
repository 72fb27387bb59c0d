// SPDX-License-Identifier: GPL-2.0
/*
 * The ioctls of a vCPU by which a VMM says what it is, and saves and restores what it holds: CPUID, MSRs,
 * FPU, debug registers, machine checks; with KVM's semantics and errnos.
 */
#include "arch/x86/host_msr.hpp"
#include "arch/x86/sregs.hpp"
#include "irqchip/lapic.hpp"
#include "kvm_structures.hpp"
#include "user_copy.hpp"
#include "vcpu.hpp"
#include "vm.hpp"

#include <linux/kvm.h>
#include <linux_glue/dedicated.h>
#include <linux_glue/memory.h>
#include <linux_glue/x86.h>

#include <cstring>

namespace kvmpp
{

namespace
{

CpuidEntry from_kvm(const kvm_cpuid_entry2 &k)
{
	return {k.function, k.index, k.flags, k.eax, k.ebx, k.ecx, k.edx};
}

CpuidEntry from_kvm(const kvm_cpuid_entry &k)
{
	return {k.function, 0, 0, k.eax, k.ebx, k.ecx, k.edx};
}

template <class KvmEntry> Result<> read_cpuid(unsigned long from, GuestCpuid &to)
{
	kvm_cpuid2 header;

	if (Result<> r = copy_from_user(header, from); !r)
		return r;
	if (header.nent > GuestCpuid::max_entries)
		return Errno::toobig;
	for (u32 i = 0; i < header.nent; i++) {
		KvmEntry entry;

		if (Result<> r = copy_from_user(entry, from + sizeof(header) + i * sizeof(entry));
		    !r)
			return r;
		(void)to.add(from_kvm(entry));
	}
	return {};
}

/* The legacy area of XSAVE, as FXSAVE has it. */
struct LegacyArea {
	u16 control, status, tags, opcode;
	u64 instruction, operand;
	u32 mxcsr, mxcsr_mask;
	u8 st[128];
	u8 xmm[256];
};
static_assert(offsetof(LegacyArea, st) == 32 && sizeof(kvm_fpu::fpr) == 128 &&
	      sizeof(kvm_fpu::xmm) == 256);

constexpr std::size_t xstate_bv = 512; /* its place in the image */

/* KVM's tolerance for a TSC that is to be as quick as the host's. */
bool is_host_tsc_khz(u64 khz)
{
	constexpr u64 parts_per_million = 250;
	u64 host = glue_tsc_khz();

	return khz >= host * (1'000'000 - parts_per_million) / 1'000'000 &&
	       khz <= host * (1'000'000 + parts_per_million) / 1'000'000;
}

} // namespace

Result<> Vcpu::set_cpuid(unsigned long argument,
			 Result<> (*read)(unsigned long from, GuestCpuid &to))
{
	Owned<GuestCpuid> wanted = Owned<GuestCpuid>::create();

	if (!wanted)
		return Errno::nomem;
	if (Result<> r = read(argument, *wanted); !r)
		return r;
	if (has_run_)
		return wanted->is_same(*cpuid_, state_) ? Result<>() : Errno::inval;
	if (Result<> r = wanted->check(); !r)
		return r;
	*cpuid_ = *wanted;
	state_.model = cpuid_->model();
	/* Pass-through is for guests without an APIC in the kernel. */
	dedicated_run_.apic_wanted.store(state_.model.x2apic && !lapic_, std::memory_order_relaxed);
	if (lapic_)
		lapic_->set_has_deadline(state_.model.tsc_deadline);
	return {};
}

Result<> Vcpu::get_cpuid(unsigned long argument)
{
	kvm_cpuid2 header;

	if (Result<> r = copy_from_user(header, argument); !r)
		return r;
	if (header.nent < cpuid_->count())
		return Errno::toobig;
	header.nent = cpuid_->count();
	for (u32 i = 0; i < header.nent; i++) {
		kvm_cpuid_entry2 entry = to_kvm(cpuid_->as_seen(i, state_));

		if (Result<> r = copy_to_user(argument + sizeof(header) + i * sizeof(entry), entry);
		    !r)
			return r;
	}
	return copy_to_user(argument, header);
}

Result<> Vcpu::access_msr(kvm_msr_entry &entry, bool write, bool &done)
{
	u64 value = entry.data;

	if (lapic_ && (entry.index == msr::tsc_deadline || x2apic::is_msr(entry.index))) {
		access_apic_msr(entry.index, write, value, done);
		if (write)
			after_apic_access();
		else if (done)
			entry.data = value;
		return {};
	}
	if (Result<> r = vmx_.fetch(state_, host_msr_groups(entry.index)); !r)
		return r;
	if (write) {
		SrcuRead read(vm_.srcu());

		done = paravirtual::memory_allows(entry.index, value,
						  GuestMemory(vm_.slots(read))) &&
		       write_host_msr(state_, entry.index, value);
	} else {
		done = read_host_msr(state_, entry.index, value);
	}
	if (done && write && entry.index == msr::kernel_gs_base)
		dedicated_run_.reload = true;
	if (done && !write)
		entry.data = value;
	return {};
}

Result<long> Vcpu::access_msrs(unsigned long argument, bool write)
{
	kvm_msrs header;

	if (Result<> r = copy_from_user(header, argument); !r)
		return r.error();
	if (header.nmsrs >= too_many_msrs)
		return Errno::toobig;
	Page page = Page::create();
	if (!page)
		return Errno::nomem;
	auto *entries = page.as<kvm_msr_entry>();
	std::size_t bytes = header.nmsrs * sizeof(*entries);
	if (Result<> r = from_errno(glue_copy_from_user(entries, argument + sizeof(header), bytes));
	    !r)
		return r.error();

	u32 count = 0;
	for (bool done = true; count < header.nmsrs; count++) {
		if (Result<> r = access_msr(entries[count], write, done); !r)
			return r.error();
		if (!done)
			break;
	}
	if (!write)
		if (Result<> r = from_errno(
			    glue_copy_to_user(argument + sizeof(header), entries, bytes));
		    !r)
			return r.error();
	return static_cast<long>(count);
}

/* Of a vCPU that is lent, what its CPU has saved comes to Linux's copy first. */
Result<> Vcpu::fpu_image(u64 features, Page &image)
{
	image = Page::create();
	if (!image)
		return Errno::nomem;
	if (lent_)
		if (Result<> r = from_errno(
			    glue_guest_fpu_load(fpu_, fpu_image_.as<void>(), fpu_features()));
		    !r)
			return r;
	glue_guest_fpu_save(fpu_, image.as<void>(), features);
	return {};
}

Result<> Vcpu::set_fpu_image(const Page &image)
{
	if (Result<> r = from_errno(glue_guest_fpu_load(fpu_, image.as<void>(), fpu_features()));
	    !r)
		return r;
	if (lent_) {
		glue_guest_fpu_save(fpu_, fpu_image_.as<void>(), fpu_features());
		dedicated_run_.reload = true;
	}
	return {};
}

Result<> Vcpu::get_fpu(unsigned long argument)
{
	Page image;

	if (Result<> r = fpu_image(fpu_features(), image); !r)
		return r;
	const LegacyArea &legacy = *image.as<LegacyArea>();
	kvm_fpu fpu{};
	std::memcpy(fpu.fpr, legacy.st, sizeof(fpu.fpr));
	std::memcpy(fpu.xmm, legacy.xmm, sizeof(fpu.xmm));
	fpu.fcw = legacy.control;
	fpu.fsw = legacy.status;
	fpu.ftwx = static_cast<u8>(legacy.tags);
	fpu.last_opcode = legacy.opcode;
	fpu.last_ip = legacy.instruction;
	fpu.last_dp = legacy.operand;
	return copy_to_user(argument, fpu);
}

/* MXCSR stays, as it does in KVM. */
Result<> Vcpu::set_fpu(unsigned long argument)
{
	kvm_fpu fpu;
	Page image;

	if (Result<> r = copy_from_user(fpu, argument); !r)
		return r;
	if (Result<> r = fpu_image(fpu_features(), image); !r)
		return r;
	LegacyArea &legacy = *image.as<LegacyArea>();
	std::memcpy(legacy.st, fpu.fpr, sizeof(fpu.fpr));
	std::memcpy(legacy.xmm, fpu.xmm, sizeof(fpu.xmm));
	legacy.control = fpu.fcw;
	legacy.status = fpu.fsw;
	legacy.tags = fpu.ftwx;
	legacy.opcode = fpu.last_opcode;
	legacy.instruction = fpu.last_ip;
	legacy.operand = fpu.last_dp;
	constexpr u64 x87_and_sse = 3;
	*reinterpret_cast<u64 *>(image.as<u8>() + xstate_bv) |= x87_and_sse;
	return set_fpu_image(image);
}

Result<> Vcpu::get_xsave(unsigned long argument)
{
	constexpr u64 x87_and_sse = 3;
	Page image;

	if (Result<> r = fpu_image(state_.model.xcr0 | x87_and_sse, image); !r)
		return r;
	static_assert(sizeof(kvm_xsave::region) == page_size);
	return from_errno(glue_copy_to_user(argument, image.as<void>(), page_size));
}

Result<> Vcpu::set_xsave(unsigned long argument)
{
	Page image = Page::create();

	if (!image)
		return Errno::nomem;
	if (Result<> r = from_errno(glue_copy_from_user(image.as<void>(), argument, page_size)); !r)
		return r;
	return set_fpu_image(image);
}

Result<> Vcpu::get_xcrs(unsigned long argument)
{
	kvm_xcrs xcrs{};

	if (guest_features().xcr0) {
		xcrs.nr_xcrs = 1;
		xcrs.xcrs[0].value = state_.xcr0;
	}
	return copy_to_user(argument, xcrs);
}

Result<> Vcpu::set_xcrs(unsigned long argument)
{
	kvm_xcrs xcrs;

	if (Result<> r = copy_from_user(xcrs, argument); !r)
		return r;
	if (!guest_features().xcr0 || xcrs.nr_xcrs > KVM_MAX_XCRS || xcrs.flags)
		return Errno::inval;
	for (u32 i = 0; i < xcrs.nr_xcrs; i++)
		if (xcrs.xcrs[i].xcr == 0)
			return write_xcr0(state_, xcrs.xcrs[i].value) ? Result<>() : Errno::inval;
	return {};
}

Result<> Vcpu::set_tsc_khz(unsigned long argument)
{
	u32 khz = static_cast<u32>(argument);

	if (khz == 0)
		khz = static_cast<u32>(glue_tsc_khz());
	if (!is_host_tsc_khz(khz))
		return Errno::inval;
	tsc_khz_ = khz;
	return {};
}

bool Vcpu::state_ioctl(unsigned command, unsigned long argument, Result<long> &result)
{
	VcpuState *state = &state_; /* for the lambdas, which clang takes to hold no lock */
	Result<> r;

	/* One that takes a structure which @set then checks. */
	auto take = [&]<class T>(T value, auto set) {
		Result<> got = copy_from_user(value, argument);
		return got ? set(value) : got;
	};
	auto give = [&]<class T>(T value, auto get) {
		get(value);
		return copy_to_user(argument, value);
	};
	switch (command) {
	case KVM_GET_MSRS:
		result = access_msrs(argument, false);
		return true;
	case KVM_SET_MSRS:
		result = access_msrs(argument, true);
		return true;
	case KVM_GET_TSC_KHZ:
		result = static_cast<long>(tsc_khz_);
		return true;
	case KVM_SET_TSC_KHZ:
		r = set_tsc_khz(argument);
		break;
	case KVM_SET_CPUID:
		r = set_cpuid(argument, read_cpuid<kvm_cpuid_entry>);
		break;
	case KVM_SET_CPUID2:
		r = set_cpuid(argument, read_cpuid<kvm_cpuid_entry2>);
		break;
	case KVM_GET_CPUID2:
		r = get_cpuid(argument);
		break;
	case KVM_GET_FPU:
		r = get_fpu(argument);
		break;
	case KVM_SET_FPU:
		r = set_fpu(argument);
		break;
	case KVM_GET_XSAVE:
	case KVM_GET_XSAVE2:
		/* No state is offered that would need more than the older one has. */
		r = get_xsave(argument);
		break;
	case KVM_SET_XSAVE:
		r = set_xsave(argument);
		break;
	case KVM_GET_XCRS:
		r = get_xcrs(argument);
		break;
	case KVM_SET_XCRS:
		r = set_xcrs(argument);
		break;
	case KVM_GET_DEBUGREGS:
		r = give(kvm_debugregs{}, [&](auto &k) { get_debug_registers(*state, k); });
		break;
	case KVM_SET_DEBUGREGS:
		r = take(kvm_debugregs{}, [&](auto &k) { return set_debug_registers(*state, k); });
		break;
	case KVM_GET_SREGS2:
		r = vmx_.fetch(state_, sregs_groups);
		if (r)
			r = give(kvm_sregs2{}, [&](auto &k) { get_sregs2(*state, k); });
		break;
	case KVM_SET_SREGS2:
		r = take(kvm_sregs2{}, [&](auto &k) {
			SrcuRead read(vm_.srcu());
			return set_sregs2(*state, k, GuestMemory(vm_.slots(read)));
		});
		break;
	case KVM_X86_SETUP_MCE:
		r = take(u64{}, [&](u64 &cap) { return machine_check_->set_up(cap); });
		break;
	case KVM_X86_SET_MCE:
		r = take(kvm_x86_mce{}, [&](auto &k) { return machine_check_->report(*state, k); });
		break;
	default:
		return false;
	}
	result = r ? Result<long>(0) : r.error();
	return true;
}

} // namespace kvmpp
