// SPDX-License-Identifier: GPL-2.0
/* What a CPU that Linux does not have does with the vCPU it was given: run_dedicated(). */
#include "vmx_cpu_fixture.hpp"

#include "arch/x86/cpuid_table.hpp"
#include "arch/x86/dedicated/machine.hpp"
#include "arch/x86/dedicated_cpu.hpp"
#include "arch/x86/vmcs_field.hpp"
#include "arch/x86/vmx_vcpu.hpp"
#include "virt/dedicated_cpus.hpp"

#include <linux/kvm.h>

#include <functional>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class RunDedicated : public VmxCpuTest
{
protected:
	static constexpr int on = 1;

	RunDedicated()
	{
		enable_all();
		EXPECT_TRUE(ept.create(true));
		vmx = Owned<VmxVcpu>::create(config, ept);
		EXPECT_TRUE(vmx->create({}));
		machine = static_cast<DedicatedMachine *>(glue_zalloc(sizeof(DedicatedMachine)));
		new (&machine->record) DedicatedCpu;
		machine->prepare();
		cpu().cpu = {on};
		cpu().exits = exits;
		cpu().calls = &calls;
		cpu().registers.xcr0 = 7;
		cpu().state.store(DedicatedCpu::State::up);
		processor(on).gdt_base = reinterpret_cast<u64>(machine->gdt);
		processor(on).msrs[msr::apic_base] =
			0xfee00000 | apic_base_bit::enabled | apic_base_bit::extended;
		s.cpuid = &cpuid;
		s.reset(0, 0);
		run_record.state = &s;
		run_record.identity = &identity;
		run_record.kick = &target;
		run_record.apics = apics.get();
		run_record.fpu_image = fpu.as<void>();
		run_record.apic_is_free = true;
		run_record.apic_wanted = true;
		*fpu.as<u64>() = 0xf9;
		EXPECT_TRUE(vmx->lend(s, run_record));
		s.apic.owned = true;
		s.apic.map = apics.get();
	}
	~RunDedicated() override
	{
		interrupt(on, [&] { detach_dedicated(cpu(), run_record); });
		vmx = {};
		glue_free(machine);
	}
	DedicatedCpu &cpu() { return machine->record; }

	using Step = std::function<bool(Vmcs &, u64 *)>;
	void guest(std::vector<Step> steps)
	{
		entries = 0;
		set_guest([this, steps = std::move(steps)](Vmcs &vmcs, u64 *gprs) {
			if (entries >= steps.size()) {
				violation("an entry more than the test expects");
				return true;
			}
			return steps[entries++](vmcs, gprs);
		});
	}
	static Step exit(ExitReason reason, u64 qualification = 0)
	{
		return [=](Vmcs &vmcs, u64 *) {
			vmcs.fields[field::exit_reason.encoding] = static_cast<u64>(reason);
			vmcs.fields[field::exit_qualification.encoding] = qualification;
			vmcs.fields[field::vm_exit_instruction_length.encoding] = 2;
			vmcs.fields[field::idt_vectoring_info.encoding] = 0;
			return false;
		};
	}
	/* It is in the guest, where the NMI of a kick finds it. */
	Step kicked(Request request)
	{
		return [this, request](Vmcs &vmcs, u64 *) {
			EXPECT_TRUE(target.where().is_dedicated());
			EXPECT_EQ(target.where().cpu(), CpuId{on});
			ask_and_kick(request);
			vmcs.fields[field::idt_vectoring_info.encoding] = 0;
			wait_for_nmi(vmcs);
			return false;
		};
	}
	static Step nmi()
	{
		return [](Vmcs &vmcs, u64 *) {
			vmcs.fields[field::idt_vectoring_info.encoding] = 0;
			wait_for_nmi(vmcs);
			return false;
		};
	}
	/* As kick() does: the NMI waits at the CPU. */
	void ask_and_kick(Request request)
	{
		target.ask(request);
		if (target.where().is_dedicated())
			kick_it();
	}
	void kick_it()
	{
		cpu().nmis.note(1);
		nmi_comes(on);
	}
	Answer run()
	{
		Answer answer{};

		interrupt(on, [&] { answer = run_dedicated(cpu(), run_record); });
		return answer;
	}
	unsigned flushes()
	{
		unsigned count = 0;

		for (const Invalidation &i : take_invalidations())
			count += !i.vpid;
		return count;
	}
	auto &fields() { return vmcs_at(processor(on).current).fields; }

	Ept ept;
	Owned<VmxVcpu> vmx;
	DedicatedMachine *machine;
	u64 exits[exit_rows] = {};
	NmiAccount calls;
	GuestCpuid cpuid;
	VcpuState s;
	VcpuIdentity identity{.id = 0, .physical_address_bits = 39};
	KickTarget target;
	Owned<ApicMap> apics = Owned<ApicMap>::create();
	Page fpu = Page::create();
	DedicatedRun run_record;
	size_t entries = 0;
};

} // namespace

TEST(NmiAccount, claims_as_many_as_were_sent)
{
	NmiAccount account;

	EXPECT_FALSE(account.claim());
	account.note(5);
	account.note(6);
	EXPECT_EQ(account.last_sent(), 6u);
	EXPECT_TRUE(account.claim());
	EXPECT_TRUE(account.claim());
	EXPECT_FALSE(account.claim());
	account.note(7);
	account.note(8);
	EXPECT_TRUE(account.claim());
	account.settle();
	EXPECT_FALSE(account.claim()) << "the other one was lost in the first";
	account.note(9);
	EXPECT_TRUE(account.claim());
	EXPECT_EQ(account.sent(), 5u);
	EXPECT_EQ(account.come(), 5u);
}

TEST_F(RunDedicated, exits_that_stay)
{
	guest({exit(ExitReason::cpuid), exit(ExitReason::wbinvd),
	       exit(ExitReason::external_interrupt), exit(ExitReason::hlt)});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_EQ(cpu().stayed.load(), 3u);
	EXPECT_EQ(run_record.exit.reason(), ExitReason::hlt);
	EXPECT_EQ(run_record.next, Next::needs_linux);
	EXPECT_EQ(exits[static_cast<unsigned>(ExitReason::cpuid)], 1u);
	EXPECT_EQ(exits[static_cast<unsigned>(ExitReason::hlt)], 1u);
	EXPECT_TRUE(target.where().is_nowhere());
}

TEST_F(RunDedicated, exit_for_linux_has_all_of_the_state)
{
	guest({[](Vmcs &vmcs, u64 *gprs) {
		vmcs.fields[field::guest_rip.encoding] = 0x2000;
		vmcs.fields[field::guest_rsp.encoding] = 0x8000;
		vmcs.fields[field::guest_cr3.encoding] = 0x5000;
		gprs[rbx] = 77;
		return exit(ExitReason::ept_violation)(vmcs, gprs);
	}});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_TRUE((Groups::all() - s.valid).empty());
	EXPECT_EQ(s.rip, 0x2000u);
	EXPECT_EQ(s.gpr[rsp], 0x8000u);
	EXPECT_EQ(s.gpr[rbx], 77u);
	EXPECT_EQ(s.cr3, 0x5000u);
}

TEST_F(RunDedicated, exit_that_only_user_space_can_finish_was_handled_there)
{
	s.apic_base |= apic_base_bit::extended;
	guest({[](Vmcs &vmcs, u64 *gprs) {
		gprs[rcx] = x2apic::icr;
		gprs[rax] = 0x4500; /* INIT */
		gprs[rdx] = 3;
		return exit(ExitReason::wrmsr)(vmcs, gprs);
	}});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_NE(run_record.next, Next::needs_linux);
	EXPECT_EQ(run_record.next, Next::user);
	EXPECT_EQ(s.user.reason, u32{KVM_EXIT_X86_WRMSR});
	EXPECT_EQ(take_ipis(), std::vector<Ipi>{});
	EXPECT_EQ(cpu().stayed.load(), 0u);
}

TEST_F(RunDedicated, asked_before_the_look)
{
	target.ask(Request::come_out);
	guest({});
	EXPECT_EQ(run(), Answer::interrupted);
	EXPECT_EQ(entries, 0u);
}

TEST_F(RunDedicated, kicked_between_look_and_entry)
{
	bool once = false;

	at_spot([&](Spot spot) {
		if (spot == Spot::in_window && !std::exchange(once, true))
			ask_and_kick(Request::come_out);
	});
	guest({});
	EXPECT_EQ(run(), Answer::interrupted);
	EXPECT_EQ(entries, 0u) << "the entry is given up";
	EXPECT_EQ(cpu().nmis_unknown.load(), 0u);
}

TEST_F(RunDedicated, kicked_in_the_guest)
{
	guest({kicked(Request::come_out)});
	EXPECT_EQ(run(), Answer::interrupted);
	EXPECT_EQ(cpu().nmis.come(), 1u);
	EXPECT_EQ(cpu().nmis_unknown.load(), 0u);
	interrupt(on, [] { EXPECT_FALSE(nmis_blocked()); });
}

TEST_F(RunDedicated, flush_is_done_and_the_guest_goes_on)
{
	guest({kicked(Request::flush_ept), exit(ExitReason::hlt)});
	(void)take_invalidations();
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_EQ(entries, 2u);
	EXPECT_EQ(flushes(), 2u) << "one of them as it came to this CPU";
	EXPECT_FALSE(target.is_unseen(Request::flush_ept));
}

TEST_F(RunDedicated, many_kicks_are_one_request)
{
	guest({[&](Vmcs &vmcs, u64 *) {
		       for (int i = 0; i < 100; i++)
			       ask_and_kick(Request::flush_ept);
		       vmcs.fields[field::idt_vectoring_info.encoding] = 0;
		       wait_for_nmi(vmcs);
		       return false;
	       },
	       exit(ExitReason::hlt)});
	(void)take_invalidations();
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_EQ(flushes(), 2u);
	EXPECT_EQ(entries, 2u);
}

TEST_F(RunDedicated, come_out_as_it_exits_anyway_is_taken)
{
	guest({[&](Vmcs &vmcs, u64 *gprs) {
		       target.ask(Request::come_out);
		       return exit(ExitReason::hlt)(vmcs, gprs);
	       },
	       exit(ExitReason::hlt)});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_EQ(run(), Answer::exited) << "not asked again";
}

TEST_F(RunDedicated, come_out_after_an_exit_that_stays)
{
	guest({[&](Vmcs &vmcs, u64 *gprs) {
		target.ask(Request::come_out);
		return exit(ExitReason::cpuid)(vmcs, gprs);
	}});
	u64 rip = s.rip;
	EXPECT_EQ(run(), Answer::interrupted);
	EXPECT_EQ(s.rip, rip + 2) << "what was done is done once";
}

TEST_F(RunDedicated, nmi_that_nobody_sent)
{
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       nmi_comes(on);
		       return nmi()(vmcs, gprs);
	       },
	       exit(ExitReason::hlt)});
	EXPECT_EQ(run(), Answer::exited) << "and the guest went on";
	EXPECT_EQ(cpu().nmis_unknown.load(), 1u);
}

TEST_F(RunDedicated, event_interrupted_in_its_delivery_is_delivered_again)
{
	s.cr0 |= cr0::pe;
	guest({[](Vmcs &vmcs, u64 *) {
		       nmi_comes(on);
		       wait_for_nmi(vmcs);
		       vmcs.fields[field::idt_vectoring_info.encoding] = 0x80000b0e;
		       vmcs.fields[field::idt_vectoring_error_code.encoding] = 2;
		       return false;
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding],
				 0x80000b0eu);
		       EXPECT_EQ(vmcs.fields[field::vm_entry_exception_error_code.encoding], 2u);
		       return exit(ExitReason::hlt)(vmcs, gprs);
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding] >> 31, 0u);
		       return exit(ExitReason::hlt)(vmcs, gprs);
	       }});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_EQ(run(), Answer::exited);
}

TEST_F(RunDedicated, what_is_injected_wakes_a_guest_that_has_halted)
{
	guest({exit(ExitReason::cpuid),
	       [](Vmcs &vmcs, u64 *gprs) {
		       vmcs.fields[field::guest_activity_state.encoding] = 1;
		       return exit(ExitReason::hlt)(vmcs, gprs);
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::guest_activity_state.encoding], 0u);
		       return exit(ExitReason::hlt)(vmcs, gprs);
	       }});
	EXPECT_EQ(run(), Answer::exited);
	s.has_event = true;
	s.event = {.info = {0x80000b0d}, .error_code = 0, .instruction_length = 0};
	EXPECT_EQ(run(), Answer::exited);
}

TEST_F(RunDedicated, vmfail)
{
	guest({[](Vmcs &vmcs, u64 *) {
		       vmcs.fields[field::vm_instruction_error.encoding] = 7;
		       return true;
	       },
	       exit(ExitReason::hlt)});
	EXPECT_EQ(run(), Answer::vmfail);
	EXPECT_EQ(run_record.exit.raw_reason, 7u);
	EXPECT_EQ(run_record.exit.cpu, CpuId{on});
	EXPECT_EQ(run(), Answer::exited) << "and it can be tried again";
}

TEST_F(RunDedicated, entry_that_fails)
{
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       exit(ExitReason::invalid_guest_state)(vmcs, gprs);
		       vmcs.fields[field::exit_reason.encoding] |= u32{1} << 31;
		       return false;
	       },
	       exit(ExitReason::hlt)});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_TRUE(run_record.exit.entry_failed());
	EXPECT_EQ(run_record.next, Next::needs_linux);
	EXPECT_EQ(run(), Answer::exited) << "VMLAUNCH still";
}

TEST_F(RunDedicated, vmcs_that_cannot_be_had)
{
	guest({});
	processor(on).fail_vmptrld = true;
	EXPECT_EQ(run(), Answer::failed);
}

TEST_F(RunDedicated, field_that_cannot_be_written)
{
	guest({});
	missing_fields() = {field::guest_rip.encoding};
	s.mark_dirty(Group::rip);
	EXPECT_EQ(run(), Answer::failed);
	missing_fields() = {};
	EXPECT_TRUE(target.where().is_nowhere());
}

TEST_F(RunDedicated, field_that_cannot_be_read)
{
	guest({exit(ExitReason::hlt)});
	missing_fields() = {field::vm_exit_instruction_length.encoding};
	EXPECT_EQ(run(), Answer::failed);
	missing_fields() = {};
}

TEST_F(RunDedicated, controls_of_a_cpu_of_its_own)
{
	guest({exit(ExitReason::hlt)});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_FALSE(fields()[field::pin_based_controls.encoding] &
		     pin::external_interrupt_exiting);
	EXPECT_TRUE(fields()[field::pin_based_controls.encoding] & pin::nmi_exiting);
	EXPECT_FALSE(fields()[field::primary_processor_based_controls.encoding] &
		     primary::hlt_exiting);
	EXPECT_FALSE(fields()[field::secondary_processor_based_controls.encoding] &
		     secondary::pause_loop_exiting);
	EXPECT_EQ(fields()[field::host_rip.encoding], reinterpret_cast<u64>(kvmpp_dedicated_exit));
}

TEST_F(RunDedicated, msrs_of_x2apic_exit_until_it_is_on)
{
	u64 before = 0;

	guest({[&](Vmcs &vmcs, u64 *gprs) {
		       before = vmcs.fields[field::msr_bitmap.encoding];
		       s.apic_base |= apic_base_bit::extended;
		       return exit(ExitReason::cpuid)(vmcs, gprs);
	       },
	       [&](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::msr_bitmap.encoding],
				 run_record.x2apic_bitmap.value);
		       s.apic_base &= ~apic_base_bit::extended;
		       return exit(ExitReason::cpuid)(vmcs, gprs);
	       },
	       [&](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::msr_bitmap.encoding],
				 run_record.msr_bitmap.value);
		       return exit(ExitReason::hlt)(vmcs, gprs);
	       }});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_EQ(before, run_record.msr_bitmap.value);
}

TEST_F(RunDedicated, state_that_is_the_cpus_comes_and_goes)
{
	s.kernel_gs_base = 0x1234000;
	s.lstar = 0xffffffff81000000;
	guest({[](Vmcs &vmcs, u64 *gprs) {
		EXPECT_EQ(here().fpu, 0xf9u);
		EXPECT_EQ(here().msrs[msr::kernel_gs_base], 0x1234000u);
		EXPECT_EQ(here().msrs[msr::lstar], 0xffffffff81000000u);
		here().fpu = 0xfa;
		here().msrs[msr::kernel_gs_base] = 0x5678000;
		here().msrs[x2apic::tpr] = 0x30;
		vmcs.fields[field::guest_activity_state.encoding] = 1;
		return exit(ExitReason::ept_violation)(vmcs, gprs);
	}});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_EQ(*fpu.as<u64>(), 0xfau) << "also while it stays there";
	EXPECT_EQ(s.kernel_gs_base, 0x5678000u);
	EXPECT_EQ(s.cr8, 3u);
	u64 vmcs = processor(on).current;
	interrupt(on, [&] { detach_dedicated(cpu(), run_record); });
	EXPECT_EQ(*fpu.as<u64>(), 0xfau);
	EXPECT_TRUE(run_record.left.valid);
	EXPECT_EQ(run_record.left.activity, 1u);
	EXPECT_EQ(run_record.left.apic.tpr, 0x30u);
	EXPECT_EQ(vmcs_at(vmcs).active_on, -1);
	vmx->take_back(s, run_record);
	EXPECT_EQ(s.kernel_gs_base, 0x5678000u);
	EXPECT_EQ(s.apic.real.tpr, 0x30u);
	EXPECT_FALSE(s.apic.owned);
	EXPECT_FALSE(run_record.attached);
}

TEST_F(RunDedicated, what_the_thread_has_changed_is_loaded_again)
{
	auto expect = [](u64 fpu, u64 base) {
		return [=](Vmcs &vmcs, u64 *gprs) {
			EXPECT_EQ(here().fpu, fpu);
			EXPECT_EQ(here().msrs[msr::kernel_gs_base], base);
			return exit(ExitReason::hlt)(vmcs, gprs);
		};
	};
	s.kernel_gs_base = 0x1000;
	guest({expect(0xf9, 0x1000), expect(0xfa, 0x2000)});
	EXPECT_EQ(run(), Answer::exited);
	*fpu.as<u64>() = 0xfa;
	s.kernel_gs_base = 0x2000;
	run_record.reload = true;
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_FALSE(run_record.reload);
	/* A CPU that lets go of it does not write over what was changed after it ran. */
	*fpu.as<u64>() = 0xfb;
	s.kernel_gs_base = 0x3000;
	run_record.reload = true;
	interrupt(on, [&] { detach_dedicated(cpu(), run_record); });
	vmx->take_back(s, run_record);
	EXPECT_EQ(*fpu.as<u64>(), 0xfbu);
	EXPECT_EQ(s.kernel_gs_base, 0x3000u);
}

TEST_F(RunDedicated, cr8_is_the_apics_and_user_space_may_set_it)
{
	auto expect = [](u32 tpr, u32 next) {
		return [=](Vmcs &vmcs, u64 *gprs) {
			EXPECT_EQ(here().msrs[x2apic::tpr], tpr);
			here().msrs[x2apic::tpr] = next;
			return exit(ExitReason::hlt)(vmcs, gprs);
		};
	};
	s.cr8 = 2;
	guest({expect(0x20, 0x37), expect(0x37, 0x37), expect(0x50, 0x50)});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_EQ(s.cr8, 3u);
	EXPECT_EQ(run(), Answer::exited) << "its lower half is the guest's alone";
	s.cr8 = 5;
	EXPECT_EQ(run(), Answer::exited);
	/* Nor is it lost as the CPU goes. */
	s.cr8 = 6;
	interrupt(on, [&] { detach_dedicated(cpu(), run_record); });
	vmx->take_back(s, run_record);
	EXPECT_EQ(s.cr8, 6u);
}

TEST_F(RunDedicated, the_apic_is_for_who_has_it_in_cpuid)
{
	run_record.apic_wanted = false;
	EXPECT_TRUE(vmx->lend(s, run_record));
	EXPECT_FALSE(run_record.passthrough);
	EXPECT_TRUE(run_record.controls.pin & pin::external_interrupt_exiting);
	run_record.apic_wanted = true;
	run_record.apic_is_free = false;
	EXPECT_TRUE(vmx->lend(s, run_record));
	EXPECT_FALSE(run_record.passthrough);
	run_record.apic_is_free = true;
	EXPECT_TRUE(vmx->lend(s, run_record));
	EXPECT_TRUE(run_record.passthrough);
	EXPECT_FALSE(run_record.controls.pin & pin::external_interrupt_exiting);
}

TEST_F(RunDedicated, xcr0_is_the_guests_in_the_guest_only)
{
	s.cr4 |= cr4::osxsave;
	s.xcr0 = 3;
	guest({[](Vmcs &vmcs, u64 *gprs) {
		EXPECT_EQ(here().xcr0, 3u);
		return exit(ExitReason::hlt)(vmcs, gprs);
	}});
	EXPECT_EQ(run(), Answer::exited);
	EXPECT_EQ(processor(on).xcr0, 7u);
}

TEST_F(RunDedicated, crash_ends_the_run)
{
	guest({[&](Vmcs &vmcs, u64 *gprs) {
		cpu().crash.store(1);
		return exit(ExitReason::cpuid)(vmcs, gprs);
	}});
	EXPECT_EQ(run(), Answer::interrupted);
}
