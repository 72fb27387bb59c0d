// SPDX-License-Identifier: GPL-2.0
/* vCPUs whose local APICs are in the kernel, as user space and their guests see them. */
#include "device_fixture.hpp"

#include "arch/x86/x2apic.hpp"
#include "virt/irqchip/lapic.hpp"
#include "virt/vcpu.hpp"
#include "virt/vm.hpp"

#include <asm/errno.h>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

constexpr u64 apic_page = 0xfee00000;
constexpr u32 enabled = 0x1ff;

class ApicVm : public DeviceTest
{
protected:
	explicit ApicVm(bool chips = false)
	{
		close_fd(vcpu);
		close_fd(vm);
		vm = create_vm();
		EXPECT_EQ(set_memory(vm, 0, 0, ram_bytes, reinterpret_cast<u64>(ram)), 0);
		if (chips)
			EXPECT_EQ(vm_ioctl(vm, KVM_CREATE_IRQCHIP, 0ul), 0);
		else
			make_split();
		vcpu = make_vcpu(0);
		other = make_vcpu(1);
		offer_cpuid(vcpu);
		offer_cpuid(other);
		poke(vcpu, Lapic::svr, enabled);
		poke(other, Lapic::svr, enabled);
	}
	~ApicVm() override
	{
		if (other >= 0)
			close_fd(other);
	}
	void make_split()
	{
		kvm_enable_cap cap{};

		cap.cap = KVM_CAP_SPLIT_IRQCHIP;
		cap.args[0] = 24;
		EXPECT_EQ(vm_ioctl(vm, KVM_ENABLE_CAP, cap), 0);
	}

	static Lapic &apic(int fd) { return *static_cast<Vcpu *>(object_of(fd))->entry().lapic; }
	static u32 peek(int fd, u32 reg)
	{
		kvm_lapic_state state{};
		u32 value;

		EXPECT_EQ(vcpu_ioctl(fd, KVM_GET_LAPIC, state), 0);
		std::memcpy(&value, state.regs + reg * 16, sizeof(value));
		return value;
	}
	static void poke(int fd, u32 reg, u32 value)
	{
		kvm_lapic_state state{};

		EXPECT_EQ(vcpu_ioctl(fd, KVM_GET_LAPIC, state), 0);
		std::memcpy(state.regs + reg * 16, &value, sizeof(value));
		EXPECT_EQ(vcpu_ioctl(fd, KVM_SET_LAPIC, state), 0);
	}
	static u32 mp_state(int fd)
	{
		kvm_mp_state state{};

		EXPECT_EQ(vcpu_ioctl(fd, KVM_GET_MP_STATE, state), 0);
		return state.mp_state;
	}
	static long set_mp_state(int fd, u32 value)
	{
		kvm_mp_state state{.mp_state = value};

		return vcpu_ioctl(fd, KVM_SET_MP_STATE, state);
	}
	static long interrupt(int fd, u32 vector)
	{
		kvm_interrupt request{.irq = vector};

		return vcpu_ioctl(fd, KVM_INTERRUPT, request);
	}
	static long run(int fd) { return vcpu_ioctl(fd, KVM_RUN, 0ul); }
	void post(int fd, u8 vector, bool level = false)
	{
		EXPECT_TRUE(apic(fd).accept({.vector = vector, .level = level}));
	}
	/* Interrupts are on in the guest from now on. */
	static void allow(int fd)
	{
		kvm_regs regs{};

		EXPECT_EQ(vcpu_ioctl(fd, KVM_GET_REGS, regs), 0);
		regs.rflags |= rflags::if_;
		EXPECT_EQ(vcpu_ioctl(fd, KVM_SET_REGS, regs), 0);
	}
	void use_x2apic(int fd)
	{
		kvm_sregs sregs{};

		EXPECT_EQ(vcpu_ioctl(fd, KVM_GET_SREGS, sregs), 0);
		sregs.apic_base |= apic_base_bit::extended;
		EXPECT_EQ(vcpu_ioctl(fd, KVM_SET_SREGS, sregs), 0);
	}
	/* The APIC's timer is in TSC-deadline mode, with vector 0x61. */
	void use_deadline()
	{
		CpuidArgument cpuid = supported();

		for (u32 i = 0; i < cpuid.count; i++)
			if (cpuid.entries[i].function == 1)
				cpuid.entries[i].ecx |= 1 << 24;
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_CPUID2, cpuid), 0);
		poke(vcpu, Lapic::lvt_timer, 2 << 17 | 0x61);
	}
	/* Of the host's TSC. */
	static Step sets_deadline(u64 tsc)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			u64 offset = vmcs.fields[field::tsc_offset.encoding];
			writes_msr(msr::tsc_deadline, tsc + offset)(vmcs, gprs);
		};
	}
	/* The VMX-preemption timer is at @counts when the guest is entered. */
	static constexpr u32 longest = ~u32{0};
	static Step timer_says(u32 counts, Step step)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			EXPECT_TRUE(vmcs.fields[field::pin_based_controls.encoding] &
				    pin::preemption_timer);
			EXPECT_EQ(vmcs.fields[field::preemption_timer_value.encoding], counts);
			step(vmcs, gprs);
		};
	}
	static Step at_tsc(u64 tsc, Step step)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			set_tsc(tsc);
			step(vmcs, gprs);
		};
	}
	/* mov %eax, (%bx), with EBX as wide. */
	Step stores32(u64 address, u32 value) { return access32(address, 0x89, value); }
	Step loads32(u64 address) { return access32(address, 0x8b, 0); }
	Step access32(u64 address, u8 opcode, u32 value)
	{
		return [=, this](Vmcs &vmcs, u64 *gprs) {
			exits(ExitReason::ept_violation, opcode == 0x89 ? 0x182 : 0x181)(vmcs,
											 gprs);
			u64 rip = vmcs.fields[field::guest_rip.encoding];
			const u8 code[] = {0x66, 0x67, opcode, 0x03};
			std::memcpy(ram + rip, code, sizeof(code));
			vmcs.fields[field::guest_physical_address.encoding] = address;
			vmcs.fields[field::guest_linear_address.encoding] = address;
			gprs[rax] = value;
			gprs[rbx] = address;
			/* Unreal mode, as firmware has it. */
			vmcs.fields[segment_field(field::guest_es_limit,
						  static_cast<unsigned>(Seg::ds))] = 0xffffffff;
		};
	}
	static Step reads_msr(u32 index)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			exits(ExitReason::rdmsr, 0, 2)(vmcs, gprs);
			gprs[rcx] = index;
		};
	}
	/* The guest gets @vector, and does @step. */
	static Step gets(u32 vector, Step step)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding],
				  0x80000000 | vector);
			step(vmcs, gprs);
		};
	}
	static Step gets_nothing(Step step)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			EXPECT_FALSE(vmcs.fields[field::vm_entry_interruption_info.encoding] &
				     0x80000000);
			step(vmcs, gprs);
		};
	}
	/* Back to user space. */
	static Step leaves() { return outs(0x99, 1, 0); }

	int other = -1;
};

class ChipsVm : public ApicVm
{
protected:
	ChipsVm() : ApicVm(true) {}
};

} // namespace

TEST_F(DeviceTest, without_an_apic_in_the_kernel)
{
	kvm_lapic_state state{};
	kvm_mp_state mp{.mp_state = KVM_MP_STATE_HALTED};

	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_LAPIC, state), -EINVAL);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_LAPIC, state), -EINVAL);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_MP_STATE, mp), -EINVAL);
	guest({writes_msr(msr::tsc_deadline, 5), halts()});
	expect_exit(KVM_EXIT_HLT);
}

TEST_F(ApicVm, mmio_is_done_in_the_kernel)
{
	u64 version = 0;

	guest({stores32(apic_page + 0x80, 0x30), loads32(apic_page + 0x30),
	       [&](Vmcs &vmcs, u64 *gprs) {
		       version = gprs[rax];
		       leaves()(vmcs, gprs);
	       },
	       stores32(apic_page + 0x1000, 7)});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(version, 0x50014u);
	EXPECT_EQ(peek(vcpu, Lapic::tpr), 0x30u);
	EXPECT_EQ(shared(vcpu).cr8, 3u);
	expect_exit(KVM_EXIT_MMIO);
	EXPECT_EQ(shared(vcpu).mmio.phys_addr, apic_page + 0x1000);
}

TEST_F(ApicVm, x2apic_is_done_in_the_kernel)
{
	u64 id = 1;

	use_x2apic(vcpu);
	guest({writes_msr(0x808, 0x40), reads_msr(0x802),
	       [&](Vmcs &vmcs, u64 *gprs) {
		       id = gprs[rax];
		       writes_msr(0x802, 0)(vmcs, gprs);
	       },
	       gets(0x30d, leaves())});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(id, 0u);
	EXPECT_EQ(peek(vcpu, Lapic::tpr), 0x40u);
	EXPECT_EQ(peek(vcpu, Lapic::ldr), 1u);
}

TEST_F(ApicVm, cr8_is_the_task_priority)
{
	/* MOV CR8, RAX. */
	auto writes_cr8 = [](u64 value) {
		return [=](Vmcs &vmcs, u64 *gprs) {
			exits(ExitReason::control_register_access, 8, 3)(vmcs, gprs);
			gprs[rax] = value;
		};
	};

	allow(vcpu);
	guest({writes_cr8(6),
	       [&](Vmcs &vmcs, u64 *gprs) {
		       post(vcpu, 0x55);
		       writes_cr8(5)(vmcs, gprs);
	       },
	       gets_nothing(writes_cr8(4)), gets(0x55, leaves())});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(peek(vcpu, Lapic::tpr), 0x40u);
	shared(vcpu).cr8 = 99;
	guest({leaves()});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(shared(vcpu).cr8, 4u) << "it is not user space's to set";
	kvm_sregs sregs{};
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
	EXPECT_EQ(sregs.cr8, 4u);
	sregs.cr8 = 7;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SREGS, sregs), 0);
	EXPECT_EQ(peek(vcpu, Lapic::tpr), 0x70u);
	poke(vcpu, Lapic::tpr, 0x20);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
	EXPECT_EQ(sregs.cr8, 2u);
}

TEST_F(ApicVm, task_priority_of_user_space_has_eight_bits)
{
	kvm_sregs sregs{};

	poke(vcpu, Lapic::tpr, 0xfffffff1);
	EXPECT_EQ(peek(vcpu, Lapic::tpr), 0xf1u);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
	EXPECT_EQ(sregs.cr8, 15u);
}

TEST_F(ApicVm, interrupts_wait_for_the_guest_to_let_them)
{
	post(vcpu, 0x51);
	guest({gets_nothing([](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_TRUE(vmcs.fields[field::primary_processor_based_controls.encoding] &
				   primary::interrupt_window_exiting);
		       exits(ExitReason::interrupt_window)(vmcs, gprs);
		       vmcs.fields[field::guest_rflags.encoding] |= rflags::if_;
	       }),
	       gets(0x51, [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_FALSE(vmcs.fields[field::primary_processor_based_controls.encoding] &
				    primary::interrupt_window_exiting);
		       leaves()(vmcs, gprs);
	       })});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(peek(vcpu, Lapic::isr + 2), 1u << 17);
	EXPECT_EQ(peek(vcpu, Lapic::irr + 2), 0u);
}

TEST_F(ApicVm, one_after_the_other_as_eoi_comes)
{
	allow(vcpu);
	post(vcpu, 0x51);
	post(vcpu, 0x52);
	guest({gets(0x52, exits(ExitReason::external_interrupt)),
	       gets_nothing(stores32(apic_page + 0xb0, 0)),
	       gets(0x51, stores32(apic_page + 0xb0, 0)), gets_nothing(leaves())});
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, nmi_goes_before_an_interrupt)
{
	allow(vcpu);
	post(vcpu, 0x51);
	EXPECT_TRUE(apic(vcpu).accept({.delivery = ApicMessage::Delivery::nmi}));
	guest({gets(0x202,
		    [](Vmcs &vmcs, u64 *gprs) {
			    /* Its gate has cleared IF. */
			    vmcs.fields[field::guest_rflags.encoding] &= ~rflags::if_;
			    vmcs.fields[field::guest_interruptibility.encoding] = blocking_by_nmi;
			    exits(ExitReason::external_interrupt)(vmcs, gprs);
		    }),
	       gets_nothing([](Vmcs &vmcs, u64 *gprs) {
		       vmcs.fields[field::guest_rflags.encoding] |= rflags::if_;
		       exits(ExitReason::interrupt_window)(vmcs, gprs);
	       }),
	       gets(0x51, leaves())});
	expect_exit(KVM_EXIT_IO);
}

/* Posted at each place where the vCPU may be: it is not lost. */
TEST_F(ApicVm, interrupt_that_comes_while_the_guest_runs)
{
	allow(vcpu);
	guest({[&](Vmcs &vmcs, u64 *gprs) {
		       post(vcpu, 0x51);
		       exits(ExitReason::external_interrupt)(vmcs, gprs);
	       },
	       gets(0x51, leaves())});
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, hlt_waits_in_the_kernel)
{
	allow(vcpu);
	on_sleep([&] { post(vcpu, 0x51); });
	guest({halts(), gets(0x51, leaves())});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(times_slept(), 1u);
	EXPECT_EQ(mp_state(vcpu), u32{KVM_MP_STATE_RUNNABLE});
}

TEST_F(ApicVm, hlt_with_something_pending_does_not_wait)
{
	allow(vcpu);
	guest({[&](Vmcs &vmcs, u64 *gprs) {
		       post(vcpu, 0x51);
		       halts()(vmcs, gprs);
	       },
	       gets(0x51, leaves())});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(times_slept(), 0u);
}

TEST_F(ApicVm, what_does_not_get_through_does_not_wake)
{
	unsigned step = 0;

	allow(vcpu);
	poke(vcpu, Lapic::tpr, 0x60);
	on_sleep([&] {
		if (step++ == 0)
			post(vcpu, 0x51); /* below the task priority */
		else
			EXPECT_TRUE(apic(vcpu).accept({.delivery = ApicMessage::Delivery::nmi}));
	});
	guest({halts(), gets(0x202, leaves())});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(times_slept(), 2u);
}

TEST_F(ApicVm, interrupts_do_not_wake_with_if_clear)
{
	on_sleep([&] {
		if (times_slept() == 1)
			post(vcpu, 0x51);
		else
			EXPECT_TRUE(apic(vcpu).accept({.delivery = ApicMessage::Delivery::nmi}));
	});
	guest({halts(), gets(0x202, leaves())});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(times_slept(), 2u);
}

TEST_F(ApicVm, signal_ends_the_wait)
{
	on_sleep([] { set_signal_pending(true); });
	guest({halts()});
	EXPECT_EQ(run(vcpu), -EINTR);
	EXPECT_EQ(shared(vcpu).exit_reason, u32{KVM_EXIT_INTR});
	EXPECT_EQ(mp_state(vcpu), u32{KVM_MP_STATE_HALTED});
	set_signal_pending(false);
	/* It goes on waiting. */
	on_sleep([&] { EXPECT_TRUE(apic(vcpu).accept({.delivery = ApicMessage::Delivery::nmi})); });
	guest({gets(0x202, leaves())});
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, timer_wakes)
{
	allow(vcpu);
	poke(vcpu, Lapic::lvt_timer, 0x61);
	on_sleep([] { advance_timers(1'000'000); });
	guest({stores32(apic_page + 0x380, 500'000), halts(), gets(0x61, leaves())});
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, deadline_is_an_msr)
{
	use_deadline();
	u64 read = 0;
	set_tsc(1000);
	guest({writes_msr(msr::tsc_deadline, u64{1} << 40), reads_msr(msr::tsc_deadline),
	       [&](Vmcs &vmcs, u64 *gprs) {
		       read = gprs[rdx] << 32 | gprs[rax];
		       leaves()(vmcs, gprs);
	       }});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(read, u64{1} << 40);
	EXPECT_EQ(timers_set(), 0) << "the CPU watches it";
	/* A signal ends its sleep, in which Linux watches. */
	on_sleep([] { set_signal_pending(true); });
	guest({halts()});
	EXPECT_EQ(run(vcpu), -EINTR);
	EXPECT_EQ(timers_set(), 1);
	close_fd(vcpu);
	vcpu = -1;
	EXPECT_EQ(timers_set(), 0) << "a timer of a vCPU that is gone";
}

TEST_F(ApicVm, end_of_interrupt_brings_the_next)
{
	allow(vcpu);
	use_x2apic(vcpu);
	post(vcpu, 0x55);
	post(vcpu, 0x44);
	guest({gets(0x55, exits(ExitReason::cpuid, 0, 2)), gets_nothing(writes_msr(0x80b, 0)),
	       gets(0x44, writes_msr(0x80b, 0)), gets_nothing(leaves())});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(entries, 4u);
	EXPECT_EQ(rip(), 0x1000u + 2 + 2 + 2);
}

TEST_F(ApicVm, ipis_by_the_msr)
{
	allow(vcpu);
	use_x2apic(vcpu);
	use_x2apic(other);
	guest({writes_msr(0x830, u64{1} << 32 | 0x77), writes_msr(0x830, 0x46),
	       gets(0x46, writes_msr(0x830, 1 << 18 | 0x66)), gets(0x66, reads_msr(0x830)),
	       gets_nothing(writes_msr(0x830, 1 << 13)), gets(0x30d, leaves())});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(peek(other, Lapic::irr + 3), 1u << (0x77 - 96));
	EXPECT_EQ(peek(vcpu, Lapic::isr + 3), 1u << (0x66 - 96));
}

TEST_F(ChipsVm, whoever_waits_for_the_end_of_an_edge_is_told)
{
	struct Listener final : IrqAckListener {
		Listener() { gsi = 20; }
		void acknowledged() override { count++; }
		int count = 0;
	} listener;
	Irqchip &irqchip = *static_cast<Vm *>(object_of(vm))->irqchip();
	kvm_irqchip chip{};

	chip.chip_id = KVM_IRQCHIP_IOAPIC;
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_IRQCHIP, chip), 0);
	chip.chip.ioapic.redirtbl[20].bits = 0x60;
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_IRQCHIP, chip), 0);
	irqchip.add(listener);
	allow(vcpu);
	use_x2apic(vcpu);
	poke(vcpu, Lapic::lvt_lint0, 0x10000);
	post(vcpu, 0x70);
	EXPECT_EQ(irqchip.set_irq(IrqSource::user, 20, true), 1);
	guest({gets(0x70, writes_msr(0x80b, 0)), gets(0x60, writes_msr(0x80b, 0)), leaves()});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(listener.count, 1);
	irqchip.remove(listener);
}

TEST_F(ApicVm, deadline_of_a_guest_that_computes)
{
	use_x2apic(vcpu);
	use_deadline();
	allow(vcpu);
	set_tsc_khz(1'000'000);
	set_tsc(5000);

	guest({timer_says(longest, sets_deadline(15'000)),
	       /* Bit 5 of the TSC changes every 32 ticks. */
	       timer_says(9999 / 32 + 2, at_tsc(14'000, exits(ExitReason::cpuid, 0, 2))),
	       timer_says(999 / 32 + 2, at_tsc(14'999, exits(ExitReason::preemption_timer))),
	       gets_nothing(timer_says(2, at_tsc(15'001, exits(ExitReason::preemption_timer)))),
	       gets(0x61, timer_says(longest, leaves()))});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(entries, 5u);
	EXPECT_EQ(apic(vcpu).deadline(), 0u);
	/* Farther than the timer can count: it comes out for no reason. */
	guest({writes_msr(0x80b, 0), sets_deadline(u64{1} << 40),
	       timer_says(longest, at_tsc(u64{1} << 39, exits(ExitReason::preemption_timer))),
	       /* One that has passed. */
	       gets_nothing(at_tsc(u64{1} << 41, leaves()))});
	expect_exit(KVM_EXIT_IO);
	guest({timer_says(0, exits(ExitReason::preemption_timer)), gets(0x61, leaves())});
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, deadline_goes_to_linux_for_a_sleep)
{
	use_x2apic(vcpu);
	use_deadline();
	allow(vcpu);
	set_tsc_khz(1'000'000);
	set_tsc(5000);

	on_sleep([&] {
		EXPECT_EQ(timers_set(), 1);
		advance_timers(4000);
		set_tsc(9000);
		post(vcpu, 0x55);
	});
	guest({sets_deadline(15'000), halts(), gets(0x55, timer_says(5999 / 32 + 2, leaves()))});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(timers_set(), 0);
	on_sleep([&] { advance_timers(6000); });
	guest({writes_msr(0x80b, 0), halts(), gets(0x61, timer_says(longest, leaves()))});
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, deadline_after_the_machine_has_slept)
{
	use_deadline();
	set_tsc_khz(1'000'000);
	set_tsc(1'000'000);

	guest({sets_deadline(1'010'000), leaves()});
	expect_exit(KVM_EXIT_IO);
	sleep_for(1'000'000);
	EXPECT_EQ(insn::rdtsc(), 7u);
	guest({timer_says(9999 / 32 + 2, leaves())});
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, deadline_is_linuxs_where_tscs_differ)
{
	use_deadline();
	set_tsc_stable(false);
	guest({writes_msr(msr::tsc_deadline, u64{1} << 40), timer_says(longest, leaves())});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(timers_set(), 1);
}

TEST_F(ApicVm, second_processor_is_started)
{
	EXPECT_EQ(mp_state(other), u32{KVM_MP_STATE_UNINITIALIZED});
	EXPECT_EQ(mp_state(vcpu), u32{KVM_MP_STATE_RUNNABLE});
	shared(other).immediate_exit = 1;
	EXPECT_EQ(run(other), -EINTR);
	shared(other).immediate_exit = 0;
	on_sleep([] { set_signal_pending(true); });
	EXPECT_EQ(run(other), -EINTR);
	set_signal_pending(false);
	/* By the other's ICR. */
	on_sleep([&] {
		EXPECT_TRUE(apic(other).accept({.delivery = ApicMessage::Delivery::init}));
		EXPECT_TRUE(apic(other).accept(
			{.vector = 0x9a, .delivery = ApicMessage::Delivery::startup}));
	});
	EXPECT_EQ(run(other), -EAGAIN);
	EXPECT_EQ(mp_state(other), u32{KVM_MP_STATE_RUNNABLE});
	guest({[](Vmcs &vmcs, u64 *gprs) {
		EXPECT_EQ(vmcs.fields[field::guest_rip.encoding], 0u);
		EXPECT_EQ(vmcs.fields[segment_field(field::guest_es_base,
						    static_cast<unsigned>(Seg::cs))],
			  0x9a000u);
		leaves()(vmcs, gprs);
	}});
	expect_exit(KVM_EXIT_IO, other);
}

TEST_F(ApicVm, init_without_a_start_up_waits_for_one)
{
	allow(vcpu);
	EXPECT_EQ(set_mp_state(other, KVM_MP_STATE_RUNNABLE), 0);
	EXPECT_TRUE(apic(other).accept({.delivery = ApicMessage::Delivery::init}));
	EXPECT_EQ(mp_state(other), u32{KVM_MP_STATE_INIT_RECEIVED});
	EXPECT_EQ(peek(other, Lapic::svr), 0xffu) << "INIT resets it";
	on_sleep([&] {
		/* It is nothing for one that waits. */
		EXPECT_TRUE(apic(other).accept({.delivery = ApicMessage::Delivery::nmi}));
		EXPECT_TRUE(apic(other).accept(
			{.vector = 1, .delivery = ApicMessage::Delivery::startup}));
	});
	guest({gets(0x202, leaves())});
	expect_exit(KVM_EXIT_IO, other);
	/* The bootstrap processor starts at once. */
	EXPECT_TRUE(apic(vcpu).accept({.delivery = ApicMessage::Delivery::init}));
	EXPECT_EQ(mp_state(vcpu), u32{KVM_MP_STATE_RUNNABLE});
	EXPECT_EQ(rip(), 0xfff0u);
}

/* Which has all of the vCPU's state read, over what user space has set. */
TEST_F(ApicVm, start_up_that_nobody_waits_for_leaves_the_segments)
{
	constexpr u32 stack =
		segment_field(field::guest_es_access_rights, static_cast<unsigned>(Seg::ss));

	guest({leaves()});
	expect_exit(KVM_EXIT_IO);
	kvm_sregs sregs{};
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
	sregs.ss.avl = 1;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SREGS, sregs), 0);
	EXPECT_TRUE(apic(vcpu).accept({.vector = 1, .delivery = ApicMessage::Delivery::startup}));
	guest({[=](Vmcs &vmcs, u64 *gprs) {
		EXPECT_TRUE(vmcs.fields[stack] & Segment::avl);
		leaves()(vmcs, gprs);
	}});
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, init_comes_while_the_guest_runs)
{
	EXPECT_EQ(set_mp_state(other, KVM_MP_STATE_RUNNABLE), 0);
	on_sleep([&] {
		EXPECT_TRUE(apic(other).accept(
			{.vector = 2, .delivery = ApicMessage::Delivery::startup}));
	});
	guest({[&](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_TRUE(apic(other).accept({.delivery = ApicMessage::Delivery::init}));
		       vmcs.fields[field::guest_sysenter_esp.encoding] = 0x1234;
		       exits(ExitReason::external_interrupt)(vmcs, gprs);
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::guest_rip.encoding], 0u);
		       EXPECT_EQ(vmcs.fields[field::guest_sysenter_esp.encoding], 0x1234u)
			       << "an MSR, which stays";
		       leaves()(vmcs, gprs);
	       }});
	expect_exit(KVM_EXIT_IO, other);
}

TEST_F(ApicVm, init_ends_the_access_that_user_space_has)
{
	kvm_regs regs{};

	/* Where INIT has the processor begin. */
	regs.rip = 0xfff0;
	regs.rflags = 2;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, regs), 0);
	guest({exits(ExitReason::io_instruction, 0x500000 | 8)});
	expect_exit(KVM_EXIT_IO);
	EXPECT_TRUE(apic(vcpu).accept({.delivery = ApicMessage::Delivery::init}));
	EXPECT_EQ(mp_state(vcpu), u32{KVM_MP_STATE_RUNNABLE});
	guest({[](Vmcs &vmcs, u64 *gprs) {
		EXPECT_EQ(vmcs.fields[field::guest_rip.encoding], 0xfff0u);
		leaves()(vmcs, gprs);
	}});
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, init_keeps_msrs)
{
	kvm_regs regs{};
	kvm_sregs sregs{};

	EXPECT_EQ(vcpu_ioctl(other, KVM_GET_SREGS, sregs), 0);
	sregs.cr3 = 0x5000;
	sregs.cr0 = 0x60000011;
	EXPECT_EQ(vcpu_ioctl(other, KVM_SET_SREGS, sregs), 0);
	use_x2apic(other);
	EXPECT_TRUE(apic(other).accept({.delivery = ApicMessage::Delivery::init}));
	EXPECT_EQ(mp_state(other), u32{KVM_MP_STATE_INIT_RECEIVED});
	EXPECT_EQ(vcpu_ioctl(other, KVM_GET_SREGS, sregs), 0);
	EXPECT_EQ(sregs.cr0, 0x60000010u) << "CD and NW stay";
	EXPECT_EQ(sregs.cr3, 0u);
	EXPECT_EQ(sregs.cs.base, 0xffff0000u);
	EXPECT_EQ(sregs.apic_base & 0xfff, 0xc00u);
	EXPECT_EQ(vcpu_ioctl(other, KVM_GET_REGS, regs), 0);
	EXPECT_EQ(regs.rip, 0xfff0u);
	EXPECT_EQ(regs.rflags, 2u);
}

TEST_F(ApicVm, mp_states_of_user_space)
{
	for (u32 state : {KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_HALTED,
			  KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE}) {
		EXPECT_EQ(set_mp_state(vcpu, state), 0);
		EXPECT_EQ(mp_state(vcpu), state);
	}
	EXPECT_EQ(set_mp_state(vcpu, KVM_MP_STATE_STOPPED), -EINVAL);
	kvm_vcpu_events events{};
	events.flags = KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	events.sipi_vector = 3;
	EXPECT_EQ(vcpu_ioctl(other, KVM_SET_VCPU_EVENTS, events), 0);
	EXPECT_EQ(set_mp_state(other, KVM_MP_STATE_SIPI_RECEIVED), 0);
	EXPECT_EQ(mp_state(other), u32{KVM_MP_STATE_RUNNABLE});
	kvm_sregs sregs{};
	EXPECT_EQ(vcpu_ioctl(other, KVM_GET_SREGS, sregs), 0);
	EXPECT_EQ(sregs.cs.base, 0x3000u);
}

TEST_F(ApicVm, pic_in_user_space)
{
	allow(vcpu);
	guest({gets(0x33, leaves())});
	EXPECT_EQ(interrupt(vcpu, 256), -EINVAL);
	EXPECT_EQ(interrupt(vcpu, 0x33), 0);
	EXPECT_EQ(interrupt(vcpu, 0x34), -EEXIST);
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(peek(vcpu, Lapic::isr + 1), 0u) << "no APIC had it";
	/* Its LINT0 masked, it takes none, and user space is not asked for one. */
	poke(vcpu, Lapic::lvt_lint0, 0x10700);
	shared(vcpu).request_interrupt_window = 1;
	guest({leaves()});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(shared(vcpu).ready_for_interrupt_injection, 0);
	EXPECT_EQ(interrupt(vcpu, 0x33), 0);
	guest({gets_nothing(leaves())});
	expect_exit(KVM_EXIT_IO);
	poke(vcpu, Lapic::lvt_lint0, 0x700);
	guest({gets(0x33, exits(ExitReason::external_interrupt))});
	expect_exit(KVM_EXIT_IRQ_WINDOW_OPEN);
	EXPECT_EQ(shared(vcpu).ready_for_interrupt_injection, 1);
}

TEST_F(ApicVm, user_space_hears_of_the_end_of_its_io_apics)
{
	struct {
		kvm_irq_routing header{};
		kvm_irq_routing_entry entry{};
	} routing;

	routing.header.nr = 1;
	routing.entry.gsi = 3;
	routing.entry.type = KVM_IRQ_ROUTING_MSI;
	routing.entry.u.msi.address_lo = 0xfee00000;
	routing.entry.u.msi.data = 0x8000 | 0x51;
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_GSI_ROUTING, routing), 0);
	allow(vcpu);
	post(vcpu, 0x51, true);
	post(vcpu, 0x31, false);
	guest({gets(0x51, stores32(apic_page + 0xb0, 0)), gets(0x31, stores32(apic_page + 0xb0, 0)),
	       leaves()});
	expect_exit(KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(shared(vcpu).eoi.vector, 0x51);
	expect_exit(KVM_EXIT_IO);
	/* The same by the MSR. */
	use_x2apic(vcpu);
	post(vcpu, 0x51, true);
	guest({gets(0x51, writes_msr(0x80b, 0)), leaves()});
	expect_exit(KVM_EXIT_IOAPIC_EOI);
	EXPECT_EQ(shared(vcpu).eoi.vector, 0x51);
	expect_exit(KVM_EXIT_IO);
}

TEST_F(ApicVm, base_msr_is_followed_at_once)
{
	guest({writes_msr(msr::apic_base, apic_page | 0xd00), reads_msr(0x802), leaves()});
	expect_exit(KVM_EXIT_IO);
	EXPECT_TRUE(apic(vcpu).is_x2apic());
	guest({writes_msr(msr::apic_base, apic_page | 0x100),
	       writes_msr(msr::apic_base, 0xd000 | 0x900), stores32(0xd080, 0x50), leaves()});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(peek(vcpu, Lapic::tpr), 0x50u);
}

TEST_F(ApicVm, page_of_the_tpr_can_be_switched_off_only)
{
	kvm_vapic_addr address{};

	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_VAPIC_ADDR, address), 0);
	address.vapic_addr = 0x1000;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_VAPIC_ADDR, address), -EINVAL);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_VAPIC_ADDR, 8ul), -EFAULT);
}

TEST_F(ApicVm, nmis_are_saved)
{
	kvm_vcpu_events events{};

	for (int i = 0; i < 5; i++)
		EXPECT_TRUE(apic(vcpu).accept({.delivery = ApicMessage::Delivery::nmi}));
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_VCPU_EVENTS, events), 0);
	EXPECT_EQ(events.nmi.pending, 1);
	EXPECT_FALSE(apic(vcpu).has_nmis());
}

TEST_F(ApicVm, no_memory_for_it)
{
	close_fd(other);
	for (int i = 0;; i++) {
		fail_allocation_after(i);
		other = create_vcpu(vm, 1);
		if (other >= 0)
			break;
		EXPECT_TRUE(other == -ENOMEM || other == -ENFILE) << other;
	}
	fail_allocation_after(-1);
}

TEST_F(ChipsVm, strings_of_the_8259s)
{
	kvm_irqchip chip{};

	std::memcpy(ram + 0x1800, "\x30\x04\x01\x5a", 4);
	guest({outs(0x20, 1, 0x11), strings(0x21, false, 0x1800, 4), strings(0x21, true, 0x1900, 3),
	       leaves()});
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(shared(vcpu).io.port, 0x99);
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_IRQCHIP, chip), 0);
	EXPECT_EQ(chip.chip.pic.irq_base, 0x30);
	EXPECT_EQ(chip.chip.pic.imr, 0x5a);
	EXPECT_EQ(std::memcmp(ram + 0x1900, "\x5a\x5a\x5a\0", 4), 0);
}

TEST_F(ChipsVm, interrupts_of_the_8259s)
{
	kvm_irq_level line{};

	EXPECT_EQ(interrupt(vcpu, 0x33), -ENXIO);
	/* The two initialisation words that matter, and no mask. */
	guest({outs(0x20, 1, 0x11), outs(0x21, 1, 0x30), outs(0x21, 1, 4), outs(0x21, 1, 1),
	       outs(0x21, 1, 0), leaves()});
	allow(vcpu);
	expect_exit(KVM_EXIT_IO);
	EXPECT_EQ(shared(vcpu).io.port, 0x99);
	EXPECT_EQ(shared(vcpu).ready_for_interrupt_injection, 1);
	line.irq = 4;
	line.level = 1;
	EXPECT_EQ(vm_ioctl(vm, KVM_IRQ_LINE, line), 0);
	guest({gets(0x34, leaves())});
	expect_exit(KVM_EXIT_IO);
	/* And it wakes one that has halted. */
	line.level = 0;
	EXPECT_EQ(vm_ioctl(vm, KVM_IRQ_LINE, line), 0);
	Irqchip &irqchip = *static_cast<Vm *>(object_of(vm))->irqchip();
	on_sleep([&] { EXPECT_EQ(irqchip.set_irq(IrqSource::user, 3, true), 1); });
	guest({outs(0x20, 1, 0x20), halts(), gets(0x33, leaves())});
	expect_exit(KVM_EXIT_IO);
}
