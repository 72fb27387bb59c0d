// SPDX-License-Identifier: GPL-2.0
/* KVMPP_SET_DEDICATED_CPU and what follows, as user space and Linux see it. */
#include "vm_fixture.hpp"

#include "arch/x86/dedicated/machine.hpp"
#include "arch/x86/x2apic.hpp"
#include "virt/dedicated_cpus.hpp"
#include "virt/vcpu.hpp"
#include "virt/vm.hpp"

#include <linux_glue/log.h>
#include <uapi/kvmpp.h>

#include <asm/errno.h>

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <vector>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class Dedicate : public ModuleTest
{
protected:
	Dedicate() : vm(create_vm()), vcpu(create_vcpu(vm)) { offer_cpuid(vcpu); }
	~Dedicate() override
	{
		for (int fd : {vcpu, other})
			if (fd >= 0)
				close_fd(fd);
		close_fd(vm);
	}
	static long set(int fd, long cpu)
	{
		return vcpu_ioctl(fd, KVMPP_SET_DEDICATED_CPU, static_cast<unsigned long>(cpu));
	}
	static int get(int fd)
	{
		int cpu = -2;

		EXPECT_EQ(vcpu_ioctl(fd, KVMPP_GET_DEDICATED_CPU, cpu), 0);
		return cpu;
	}
	/* It failed, and left all as it was. */
	void expect_untouched(int cpu, bool online = true)
	{
		EXPECT_EQ(get(vcpu), -1);
		EXPECT_EQ(is_online(cpu), online);
		EXPECT_FALSE(is_started(cpu));
		EXPECT_EQ(live_maps(), 0);
		EXPECT_FALSE(module_is_kept());
		EXPECT_EQ(possible(), cpu_count - 1);
		EXPECT_EQ(processor(cpu).vmx, online) << "there is a VM";
	}
	static long possible()
	{
		return kvmpp_device_ioctl(KVM_CHECK_EXTENSION, KVMPP_CAP_DEDICATED_CPU);
	}
	long run(int fd) { return vcpu_ioctl(fd, KVM_RUN, 0ul); }
	long run() { return run(vcpu); }
	kvm_run &run_page() { return shared(vcpu); }

	/* What the guest does at each entry, in turn, on whichever CPU. */
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
	static Step exits(ExitReason reason, u64 length = 1)
	{
		return [=](Vmcs &vmcs, u64 *) {
			vmcs.fields[field::exit_reason.encoding] = static_cast<u64>(reason);
			vmcs.fields[field::exit_qualification.encoding] = 0;
			vmcs.fields[field::vm_exit_instruction_length.encoding] = length;
			vmcs.fields[field::idt_vectoring_info.encoding] = 0;
			return false;
		};
	}
	static Step halts() { return exits(ExitReason::hlt); }
	static Step on_cpu(int cpu, Step step)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			EXPECT_EQ(this_cpu(), cpu);
			return step(vmcs, gprs);
		};
	}
	/* It stays in the guest until somebody wants it; meanwhile @first is done. */
	static Step stays(std::function<void()> first = nullptr)
	{
		return [=](Vmcs &vmcs, u64 *) {
			vmcs.fields[field::idt_vectoring_info.encoding] = 0;
			if (first)
				first();
			wait_for_nmi(vmcs);
			return false;
		};
	}
	std::string shown()
	{
		std::string text;

		kvmpp_show_dedicated(reinterpret_cast<glue_text *>(&text));
		return text;
	}

	int vm, vcpu, other = -1;
	size_t entries = 0;
	bool target_of_flush = false;
};

} // namespace

TEST_F(Dedicate, taken_and_given_back)
{
	EXPECT_EQ(possible(), 3);
	EXPECT_EQ(get(vcpu), -1);
	ASSERT_EQ(set(vcpu, 2), 0);
	EXPECT_EQ(get(vcpu), 2);
	EXPECT_FALSE(is_online(2));
	EXPECT_TRUE(is_started(2));
	EXPECT_TRUE(processor(2).vmx);
	EXPECT_TRUE(processor(2).msrs[msr::apic_base] & apic_base_bit::extended);
	EXPECT_EQ(possible(), 2);
	EXPECT_NE(shown().find("cpu 2 "), std::string::npos);
	EXPECT_NE(shown().find("state waiting passthrough yes"), std::string::npos) << shown();
	EXPECT_EQ(set(vcpu, -1), 0);
	expect_untouched(2);
	EXPECT_FALSE(processor(2).msrs[msr::apic_base] & apic_base_bit::extended)
		<< "as Linux had it";
	EXPECT_EQ(shown(), "");
}

TEST_F(Dedicate, two_hundred_rounds)
{
	for (int i = 0; i < 200; i++) {
		ASSERT_EQ(set(vcpu, 1 + i % 3), 0) << i;
		ASSERT_EQ(set(vcpu, -1), 0) << i;
	}
	expect_untouched(1);
}

TEST_F(Dedicate, cpu_that_was_offline_is_so_again)
{
	take_offline(3);
	ASSERT_EQ(set(vcpu, 3), 0);
	EXPECT_EQ(set(vcpu, -1), 0);
	expect_untouched(3, false);
	EXPECT_EQ(bring_online(3), 0);
}

TEST_F(Dedicate, errors_that_leave_all_as_it_was)
{
	set_may_dedicate(false);
	EXPECT_EQ(set(vcpu, 1), -EPERM);
	EXPECT_EQ(set(vcpu, -1), -EPERM);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVMPP_GET_DEDICATED_CPU, 0ul), -EPERM);
	set_may_dedicate(true);
	for (long cpu : {-2l, long{cpu_count}, 1000000l, long{INT32_MIN}, long{INT32_MAX}})
		EXPECT_EQ(set(vcpu, cpu), -EINVAL) << cpu;
	set_present(3, false);
	EXPECT_EQ(set(vcpu, 3), -EINVAL);
	set_present(3, true);
	EXPECT_EQ(set(vcpu, -1), -EINVAL) << "it has none";
	EXPECT_EQ(set(vcpu, 0), -EBUSY);
	set_x2apic(false);
	EXPECT_EQ(set(vcpu, 1), -EOPNOTSUPP);
	EXPECT_EQ(possible(), 0);
	set_x2apic(true);
	set_sibling_online(1, true);
	EXPECT_EQ(set(vcpu, 1), -EBUSY);
	set_sibling_online(1, false);
	fail_remove(-EBUSY);
	EXPECT_EQ(set(vcpu, 1), -EBUSY);
	fail_remove(1);
	EXPECT_EQ(set(vcpu, 1), -EBUSY) << "Linux has it that somebody else took it offline";
	fail_low_page();
	EXPECT_EQ(set(vcpu, 1), -ENOMEM);
	expect_untouched(1);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVMPP_GET_DEDICATED_CPU, 8ul), -EFAULT);
	(void)take_log();
}

TEST_F(Dedicate, smt_is_allowed_where_the_parameter_says_so)
{
	glue_parameters.allow_smt = true;
	set_sibling_online(1, true);
	EXPECT_EQ(set(vcpu, 1), 0);
	EXPECT_EQ(set(vcpu, -1), 0);
}

TEST_F(Dedicate, last_cpu_online)
{
	take_offline(2);
	take_offline(3);
	EXPECT_EQ(set(vcpu, 1), 0);
	other = create_vcpu(vm, 1);
	offer_cpuid(other);
	EXPECT_EQ(set(other, 0), -EBUSY);
	EXPECT_EQ(kvmpp_cpu_offline(0), -EBUSY) << "it is where dedicated CPUs call";
	EXPECT_EQ(set(vcpu, -1), 0);
	EXPECT_EQ(bring_online(2), 0);
	EXPECT_EQ(bring_online(3), 0);
}

TEST_F(Dedicate, two_at_once)
{
	other = create_vcpu(vm, 1);
	offer_cpuid(other);
	ASSERT_EQ(set(vcpu, 1), 0);
	EXPECT_EQ(set(other, 1), -EBUSY) << "dedicated already";
	EXPECT_EQ(set(vcpu, 2), -EBUSY) << "the vCPU has one";
	ASSERT_EQ(set(other, 2), 0);
	EXPECT_EQ(get(vcpu), 1);
	EXPECT_EQ(get(other), 2);
	EXPECT_EQ(possible(), 1);
	guest({on_cpu(1, halts()), on_cpu(2, halts())});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run(other), 0);
	EXPECT_EQ(set(vcpu, -1), 0);
	EXPECT_EQ(get(other), 2);
	close_fd(std::exchange(other, -1));
	EXPECT_TRUE(is_online(2)) << "the end of a vCPU gives its CPU back";
}

TEST_F(Dedicate, out_of_memory_at_each_allocation)
{
	for (unsigned n = 0;; n++) {
		int live = live_allocations();
		fail_allocation_after(n);
		long error = set(vcpu, 1);
		bool failed = allocation_failed();
		if (!failed) {
			EXPECT_EQ(error, 0);
			EXPECT_GT(n, 6u);
			break;
		}
		EXPECT_EQ(error, -ENOMEM) << n;
		expect_untouched(1);
		/* The record and the bell of a CPU stay once they are there. */
		EXPECT_LE(live_allocations() - live, 2) << n;
	}
	fail_allocation_after(~0u);
}

TEST_F(Dedicate, cpu_that_does_not_come_up)
{
	break_start(1);
	EXPECT_EQ(set(vcpu, 1), -ETIMEDOUT);
	expect_untouched(1);
}

TEST_F(Dedicate, cpu_that_comes_up_late)
{
	start_late(1, 900);
	EXPECT_EQ(set(vcpu, 1), 0);
	EXPECT_EQ(set(vcpu, -1), 0);
	start_late(1, 5000);
	EXPECT_EQ(set(vcpu, 1), -ETIMEDOUT);
	expect_untouched(1);
}

TEST_F(Dedicate, cpu_that_comes_up_as_it_is_given_up)
{
	/* At any millisecond around the end: it is either there, or parks, and Linux has it back. */
	for (unsigned ms = 990; ms < 1010; ms++) {
		start_late(1, ms);
		long error = set(vcpu, 1);
		EXPECT_TRUE(error == 0 || error == -ETIMEDOUT) << ms << ": " << error;
		EXPECT_EQ(set(vcpu, -1), error == 0 ? 0 : -EINVAL);
		expect_untouched(1);
	}
}

TEST_F(Dedicate, cpu_that_comes_up_between_time_out_and_init)
{
	/* In VMX operation it would not take the INIT, and run on beside Linux. */
	start_too_late(1);
	EXPECT_EQ(set(vcpu, 1), -ETIMEDOUT);
	expect_untouched(1);
	start_late(1, 0);
	EXPECT_EQ(set(vcpu, 1), 0) << "and it can be had again";
	EXPECT_EQ(set(vcpu, -1), 0);
}

TEST_F(Dedicate, vmxon_fails_there)
{
	/* After the CPU has left Linux, which would notice as well. */
	start_late(1, 5);
	on_millisecond([once = false]() mutable {
		if (is_started(1) && !std::exchange(once, true))
			processor(1).fail_vmxon = true;
	});
	EXPECT_EQ(set(vcpu, 1), -EIO);
	on_millisecond(nullptr);
	expect_untouched(1);
	EXPECT_EQ(take_log().size(), 1u);
	/* It parks as from anywhere; VMXOFF faults there, which is seen to. */
	EXPECT_EQ(take_violations(),
		  std::vector<std::string>{"VMXOFF outside VMX operation on CPU 1"});
}

TEST_F(Dedicate, cpu_does_not_come_back_online)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	fail_add(-EBUSY);
	EXPECT_EQ(set(vcpu, -1), 0);
	EXPECT_EQ(take_log().size(), 1u);
	EXPECT_FALSE(is_started(1));
	EXPECT_FALSE(is_online(1));
	EXPECT_EQ(bring_online(1), 0);
}

TEST_F(Dedicate, offline_cpu_cannot_be_had)
{
	take_offline(1);
	fail_add(-EIO);
	EXPECT_EQ(set(vcpu, 1), -EIO);
	expect_untouched(1, false);
	EXPECT_EQ(bring_online(1), 0);
}

TEST_F(Dedicate, nobody_else_brings_it_online)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	EXPECT_EQ(kvmpp_cpu_prepare(1), -EBUSY);
	EXPECT_EQ(kvmpp_cpu_prepare(2), 0);
	EXPECT_EQ(set(vcpu, -1), 0);
	EXPECT_EQ(kvmpp_cpu_prepare(1), 0);
}

TEST_F(Dedicate, suspend_gives_it_back_and_none_is_taken_until_it_woke)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	kvmpp_machine_sleeps();
	EXPECT_TRUE(is_online(1));
	EXPECT_EQ(get(vcpu), -1);
	EXPECT_EQ(set(vcpu, 1), -EBUSY);
	kvmpp_machine_woke();
	EXPECT_EQ(set(vcpu, 1), 0);
	EXPECT_EQ(set(vcpu, -1), 0);
}

TEST_F(Dedicate, runs_there_and_again_here)
{
	guest({on_cpu(0, halts()), on_cpu(1, halts()), on_cpu(1, halts()), on_cpu(0, halts())});
	EXPECT_EQ(run(), 0);
	ASSERT_EQ(set(vcpu, 1), 0);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
	EXPECT_EQ(set(vcpu, -1), 0);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(entries, 4u);
	EXPECT_EQ(nmis_unclaimed(), 0u);
}

TEST_F(Dedicate, moves_there_in_the_middle_of_a_run)
{
	guest({on_cpu(0,
		      [&](Vmcs &vmcs, u64 *gprs) {
			      exits(ExitReason::external_interrupt)(vmcs, gprs);
			      set_need_resched(true);
			      return false;
		      }),
	       on_cpu(2, halts())});
	on_reschedule([&] {
		AnotherThread thread;
		EXPECT_EQ(set(vcpu, 2), 0);
	});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(entries, 2u);
}

TEST_F(Dedicate, given_back_in_the_middle_of_a_run)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({on_cpu(1, stays()), on_cpu(0, halts())});
	/* Another process has the vCPU's file. */
	on_millisecond([&, once = false]() mutable {
		if (std::exchange(once, true))
			return;
		AnotherThread thread;
		EXPECT_EQ(set(vcpu, -1), 0);
	});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(entries, 2u);
	EXPECT_TRUE(is_online(1));
}

TEST_F(Dedicate, another_cpu_between_two_runs)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({on_cpu(1,
		      [](Vmcs &vmcs, u64 *gprs) {
			      here().msrs[msr::kernel_gs_base] = 0x7000000;
			      here().fpu = 0xfe;
			      here().msrs[x2apic::tpr] = 0x50;
			      return halts()(vmcs, gprs);
		      }),
	       on_cpu(2, [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(here().msrs[msr::kernel_gs_base], 0x7000000u);
		       EXPECT_EQ(here().fpu, 0xfeu);
		       EXPECT_EQ(here().msrs[x2apic::tpr], 0x50u);
		       return halts()(vmcs, gprs);
	       })});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(set(vcpu, -1), 0);
	ASSERT_EQ(set(vcpu, 2), 0);
	EXPECT_EQ(run(), 0);
}

TEST_F(Dedicate, halted_there_is_for_user_space_to_wake)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({on_cpu(1, [](Vmcs &vmcs, u64 *) {
		vmcs.fields[field::guest_activity_state.encoding] = 1;
		vmcs.fields[field::idt_vectoring_info.encoding] = 0;
		wait_for_nmi(vmcs);
		return false;
	})});
	on_millisecond([&, once = false]() mutable {
		if (std::exchange(once, true))
			return;
		AnotherThread thread;
		EXPECT_EQ(set(vcpu, -1), 0);
	});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
}

TEST_F(Dedicate, signal_brings_it_out)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({stays([] { set_signal_pending(true); }), halts()});
	EXPECT_EQ(run(), -EINTR);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_INTR});
	set_signal_pending(false);
	EXPECT_EQ(run(), 0) << "and it can be run again";
	EXPECT_EQ(nmis_unclaimed(), 0u);
}

TEST_F(Dedicate, signal_comes_through_to_a_guest_that_exits_without_end)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       set_signal_pending(true);
		       return exits(ExitReason::pause)(vmcs, gprs);
	       },
	       halts()});
	EXPECT_EQ(run(), -EINTR);
	set_signal_pending(false);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
}

TEST_F(Dedicate, exits_are_counted_by_their_way_out)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({exits(ExitReason::cpuid, 2), exits(ExitReason::pause, 2), halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_NE(shown().find("stay 1 online 1 user 1 "), std::string::npos) << shown();
}

TEST_F(Dedicate, page_fault_is_answered_by_linux)
{
	auto *ram = static_cast<u8 *>(std::aligned_alloc(page_size, page_size));
	u64 at = reinterpret_cast<u64>(ram);

	add_user_memory(at, page_size);
	EXPECT_EQ(set_memory(vm, 0, 0, page_size, at), 0);
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       exits(ExitReason::ept_violation)(vmcs, gprs);
		       vmcs.fields[field::exit_qualification.encoding] = 0x182;
		       vmcs.fields[field::guest_physical_address.encoding] = 0;
		       return false;
	       },
	       /* The page goes while the guest runs: the flush is waited for. */
	       stays([&] {
		       (void)take_invalidations();
		       target_of_flush = true;
	       }),
	       [&](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_FALSE(target_of_flush) << "the notifier is through";
		       return halts()(vmcs, gprs);
	       }});
	on_millisecond([&] {
		if (!std::exchange(target_of_flush, false))
			return;
		AnotherThread thread;
		kvmpp_mmu_invalidate_begin(object_of(vm), at, at + page_size);
		EXPECT_EQ(take_invalidations().size(), 1u) << "on CPU 1";
		kvmpp_mmu_invalidate_end(object_of(vm), at, at + page_size);
	});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(entries, 3u);
	on_millisecond(nullptr);
	EXPECT_EQ(set_memory(vm, 0, 0, 0, 0), 0);
	remove_user_memory(at);
	std::free(ram);
}

TEST_F(Dedicate, cpu_that_dies)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({exits(ExitReason::cpuid, 2), halts()});
	raise(1, 14, 2);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_INTERNAL_ERROR});
	EXPECT_EQ(run(), 0) << "it is not waited for again";
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_INTERNAL_ERROR});
	EXPECT_NE(shown().find("state dead"), std::string::npos) << shown();
	EXPECT_EQ(set(vcpu, -1), 0);
	std::vector<std::string> log = take_log();
	ASSERT_EQ(log.size(), 1u) << "one report, from Linux";
	EXPECT_NE(log[0].find("exception 14"), std::string::npos);
	expect_untouched(1);
	guest({on_cpu(0, halts())});
	EXPECT_EQ(run(), 0);
}

TEST_F(Dedicate, breakpoint_of_text_patching_is_tried_again)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({halts()});
	raise(1, 3, 0);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
}

TEST_F(Dedicate, foreign_nmi_is_counted_and_reported)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	send_nmi(1);
	run_dedicated_cpus();
	guest({halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_NE(shown().find("unknown_nmis 1 "), std::string::npos) << shown();
	EXPECT_EQ(set(vcpu, -1), 0);
	std::vector<std::string> log = take_log();
	ASSERT_EQ(log.size(), 1u);
	EXPECT_NE(log[0].find("1 NMIs of unknown origin"), std::string::npos);
}

TEST_F(Dedicate, nmis_that_are_not_the_modules_reach_linux)
{
	EXPECT_EQ(kvmpp_nmi(0), 0);
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(set(vcpu, -1), 0);
	EXPECT_EQ(kvmpp_nmi(0), 0);
	EXPECT_EQ(kvmpp_nmi(1), 0) << "what was sent before is settled";
	EXPECT_EQ(kvmpp_nmi(2), 0);
}

TEST_F(Dedicate, host_that_broadcasts_gets_no_passthrough)
{
	set_ipi_broadcast(true);
	ASSERT_EQ(set(vcpu, 1), 0);
	EXPECT_NE(shown().find("passthrough no"), std::string::npos) << shown();
	EXPECT_NE(shown().find("strays 3"), std::string::npos) << shown();
	EXPECT_EQ(take_log().size(), 1u);
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_TRUE(vmcs.fields[field::pin_based_controls.encoding] &
				   pin::external_interrupt_exiting);
		       add_interrupt(1, 0xfb);
		       return exits(ExitReason::external_interrupt)(vmcs, gprs);
	       },
	       halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_NE(shown().find("strays 4"), std::string::npos)
		<< "taken and ended there: " << shown();
}

TEST_F(Dedicate, host_that_does_not_broadcast)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	EXPECT_NE(shown().find("passthrough yes"), std::string::npos) << shown();
	EXPECT_TRUE(take_log().empty());
}

TEST_F(Dedicate, host_that_cannot_be_tried)
{
	/* Two of four are online at that time, and more may be later. */
	take_offline(2);
	take_offline(3);
	set_ipi_broadcast(true);
	ASSERT_EQ(set(vcpu, 1), 0);
	EXPECT_NE(shown().find("passthrough no"), std::string::npos) << shown();
	(void)take_log();
	EXPECT_EQ(set(vcpu, -1), 0);
	EXPECT_EQ(bring_online(2), 0);
	EXPECT_EQ(bring_online(3), 0);
}

TEST_F(Dedicate, crash_while_it_waits)
{
	ASSERT_EQ(set(vcpu, 1), 0);
	dedicated_crash();
	EXPECT_TRUE(is_halted(1));
	EXPECT_FALSE(processor(1).vmx);
	EXPECT_EQ(set(vcpu, -1), 0);
}

/* What bare code must not do, done by the guest that it runs: it is on that CPU. */
TEST_F(Dedicate, lock_or_memory_on_a_dedicated_cpu)
{
	Mutex mutex;

	mutex.init(GLUE_LOCK_VM);
	ASSERT_EQ(set(vcpu, 1), 0);
	guest({[&](Vmcs &vmcs, u64 *gprs) {
		mutex.lock();
		mutex.unlock();
		glue_free(glue_zalloc(8));
		glue_log_err("from there");
		return halts()(vmcs, gprs);
	}});
	EXPECT_EQ(run(), 0);
	std::vector<std::string> noted = take_violations();
	for (const char *what : {"a mutex on CPU 1, which Linux does not have",
				 "kvmpp_vm_lock on CPU 1, which Linux does not have",
				 "allocation on CPU 1, which Linux does not have",
				 "printk() on CPU 1, which Linux does not have"})
		EXPECT_NE(std::find(noted.begin(), noted.end(), what), noted.end()) << what;
	(void)take_log();
}

/* What cannot be undone, each in a process of its own: what is wrong first is its status. */
class LastDeed : public Dedicate
{
public:
	void TestBody() override {}
	[[noreturn]] void lose_cpu()
	{
		unsigned ms = 0;

		check(1, set(vcpu, 1) == 0);
		hang(1);
		on_millisecond([&] { ms++; });
		long error = set(vcpu, -1);
		check(2, error == -ETIMEDOUT || error == -EIO);
		check(3, ms > 900 && ms < 1100 && get(vcpu) == 1);
		check(4, module_is_kept() && take_log().size() == 1);
		ms = 0;
		check(5, set(vcpu, -1) == -EIO && ms == 0);
		run_page().cr8 = 7;
		check(6,
		      run() == 0 && run_page().exit_reason == KVM_EXIT_INTERNAL_ERROR && ms == 0);
		check(7, shown().find("state lost") != std::string::npos);
		check(9, run_page().cr8 == 0);
		close_fd(vcpu);
		check(8, live_maps() == 1 && ms == 0);
		_exit(0);
	}
	/* A kick that is not answered, of a page that goes. */
	[[noreturn]] void lose_kicked()
	{
		unsigned us = 0;

		check(1, set(vcpu, 1) == 0);
		/* Of its state not all is in memory then. */
		guest({exits(ExitReason::cpuid), stays([&] { hang(1); })});
		on_millisecond([&, once = false]() mutable {
			if (std::exchange(once, true))
				return;
			CpuMask cpus;
			const VcpuTable &table = static_cast<Vm *>(object_of(vm))->vcpus();
			on_microsecond([&] { us++; });
			check(2, cpus.create() && live_maps() == 1);
			table.ask_all(Request::flush_ept, cpus);
			check(3, us > 900'000 && us < 1'100'000 && module_is_kept());
			us = 0;
			table.ask_all(Request::flush_ept, cpus);
			check(4, us < 10);
			set_signal_pending(true);
		});
		check(5, run() == 0 && run_page().exit_reason == KVM_EXIT_INTERNAL_ERROR);
		/* Nobody takes its state from a CPU that may go on with it. */
		set_signal_pending(false);
		kvm_regs regs;
		check(6, vcpu_ioctl(vcpu, KVM_GET_REGS, regs) == -EIO);
		check(7, run() == 0 && run_page().exit_reason == KVM_EXIT_INTERNAL_ERROR);
		_exit(0);
	}
	[[noreturn]] void go_down()
	{
		check(1, set(vcpu, 1) == 0);
		dedicated_machine_down();
		check(2, get(vcpu) == -1 && is_online(1));
		check(3, set(vcpu, 1) == -EBUSY);
		_exit(0);
	}
	[[noreturn]] void crash()
	{
		check(1, set(vcpu, 1) == 0);
		guest({stays()});
		on_millisecond([&] {
			int called = static_cast<int>(nmis_sent());
			dedicated_crash();
			check(2, is_halted(1));
			check(3, !processor(1).vmx && active_vmcss(1) == 0);
			check(4, static_cast<int>(nmis_sent()) == called + 1);
			_exit(0);
		});
		(void)run();
		_exit(5);
	}

private:
	static void check(int status, bool so)
	{
		if (!so)
			_exit(status);
	}
};

TEST(LastDeedDeathTest, cpu_that_does_not_answer_is_lost_after_a_second)
{
	EXPECT_EXIT(LastDeed().lose_cpu(), testing::ExitedWithCode(0), "");
}

TEST(LastDeedDeathTest, kick_that_is_not_answered_is_waited_for_once)
{
	EXPECT_EXIT(LastDeed().lose_kicked(), testing::ExitedWithCode(0), "");
}

TEST(LastDeedDeathTest, machine_goes_down)
{
	EXPECT_EXIT(LastDeed().go_down(), testing::ExitedWithCode(0), "");
}

TEST(LastDeedDeathTest, crash_in_the_guest)
{
	EXPECT_EXIT(LastDeed().crash(), testing::ExitedWithCode(0), "");
}
