/* SPDX-License-Identifier: GPL-2.0 */
/* A VM with two pages of memory and a vCPU in real mode, whose guest does one access after another. */
#pragma once

#include "vm_fixture.hpp"

#include <functional>
#include <utility>
#include <vector>

namespace kvmpp::host
{

class DeviceTest : public ModuleTest
{
protected:
	static constexpr u64 ram_bytes = 0x2000;
	static constexpr u64 device = 0xd000; /* no RAM */

	DeviceTest() : ram(static_cast<u8 *>(std::aligned_alloc(page_size, ram_bytes)))
	{
		std::memset(ram, 0, ram_bytes);
		add_user_memory(reinterpret_cast<u64>(ram), ram_bytes);
		vm = create_vm();
		EXPECT_EQ(set_memory(vm, 0, 0, ram_bytes, reinterpret_cast<u64>(ram)), 0);
		vcpu = make_vcpu(0);
	}
	~DeviceTest() override
	{
		if (vcpu >= 0)
			close_fd(vcpu);
		if (vm >= 0)
			close_fd(vm);
		remove_user_memory(reinterpret_cast<u64>(ram));
		std::free(ram);
	}

	int make_vcpu(u32 id)
	{
		int made = create_vcpu(vm, id);
		kvm_sregs sregs{};
		kvm_regs regs{};

		EXPECT_EQ(vcpu_ioctl(made, KVM_GET_SREGS, sregs), 0);
		sregs.cs.base = sregs.cs.selector = 0;
		EXPECT_EQ(vcpu_ioctl(made, KVM_SET_SREGS, sregs), 0);
		regs.rip = 0x1000;
		regs.rflags = 2;
		EXPECT_EQ(vcpu_ioctl(made, KVM_SET_REGS, regs), 0);
		return made;
	}

	/* What the guest does at each entry, in turn. */
	using Step = std::function<void(Vmcs &, u64 *)>;
	void guest(std::vector<Step> steps)
	{
		entries = 0;
		set_guest([this, steps = std::move(steps)](Vmcs &vmcs, u64 *gprs) {
			if (entries >= steps.size())
				violation("an entry more than the test expects");
			else
				steps[entries++](vmcs, gprs);
			return false;
		});
	}
	static Step exits(ExitReason reason, u64 qualification = 0, u64 length = 1)
	{
		return [=](Vmcs &vmcs, u64 *) {
			vmcs.fields[field::exit_reason.encoding] = static_cast<u64>(reason);
			vmcs.fields[field::exit_qualification.encoding] = qualification;
			vmcs.fields[field::vm_exit_instruction_length.encoding] = length;
			vmcs.fields[field::idt_vectoring_info.encoding] = 0;
		};
	}
	static Step halts() { return exits(ExitReason::hlt); }
	static Step outs(u16 port, u32 size, u64 value)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			exits(ExitReason::io_instruction, u64{port} << 16 | (size - 1))(vmcs, gprs);
			gprs[rax] = value;
		};
	}
	/* REP INSB or OUTSB, of so many bytes at @address. */
	static Step strings(u16 port, bool in, u64 address, u64 count)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			constexpr u64 string = 1 << 4, rep = 1 << 5;

			exits(ExitReason::io_instruction,
			      u64{port} << 16 | rep | string | (in ? 8 : 0), 2)(vmcs, gprs);
			vmcs.fields[field::guest_linear_address.encoding] = address;
			vmcs.fields[field::vm_exit_instruction_info.encoding] = 3 << 15; /* DS */
			gprs[rsi] = gprs[rdi] = address;
			gprs[rcx] = count;
		};
	}
	/* mov %ax, (%bx), from there on in memory. */
	Step stores(u64 address, u16 value)
	{
		return [=, this](Vmcs &vmcs, u64 *gprs) {
			exits(ExitReason::ept_violation, 0x182)(vmcs, gprs);
			u64 rip = vmcs.fields[field::guest_rip.encoding];
			std::memcpy(ram + rip, "\x89\x07", 2);
			vmcs.fields[field::guest_physical_address.encoding] = address;
			vmcs.fields[field::guest_linear_address.encoding] = address;
			gprs[rax] = value;
			gprs[rbx] = address;
		};
	}
	static Step writes_msr(u32 index, u64 value)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			exits(ExitReason::wrmsr, 0, 2)(vmcs, gprs);
			gprs[rcx] = index;
			gprs[rax] = static_cast<u32>(value);
			gprs[rdx] = value >> 32;
		};
	}

	/* The guest runs to an exit to user space, which is this one. */
	void expect_exit(u32 reason, int of = -1)
	{
		int which = of < 0 ? vcpu : of;

		EXPECT_EQ(vcpu_ioctl(which, KVM_RUN, 0ul), 0);
		EXPECT_EQ(shared(which).exit_reason, reason);
	}
	u64 rip()
	{
		kvm_regs regs{};

		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_REGS, regs), 0);
		return regs.rip;
	}
	template <class T> T &at(u64 guest_phys)
	{
		return *reinterpret_cast<T *>(ram + guest_phys);
	}

	u8 *ram;
	int vm = -1, vcpu = -1;
	size_t entries = 0;
};

} // namespace kvmpp::host
