// SPDX-License-Identifier: GPL-2.0
/* kvmclock: what guests read, its MSRs, and KVM_GET_CLOCK, KVM_SET_CLOCK and KVM_KVMCLOCK_CTRL. */
#include "device_fixture.hpp"

#include "arch/x86/cpu_insn.hpp"
#include "arch/x86/handlers.hpp"
#include "arch/x86/kvmclock.hpp"

#include <linux_glue/x86.h>

#include <asm/errno.h>

using namespace kvmpp;
using namespace kvmpp::host;
using namespace kvmpp::kvmclock;

namespace
{

constexpr u64 ms = 1'000'000;
constexpr u32 all_flags = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;

class Clock : public DeviceTest
{
protected:
	static constexpr u64 page = 0x200, other_page = 0x300, wall_page = 0x400;

	/* The guest writes MSRs and halts. */
	void write_msrs(std::vector<std::pair<u32, u64>> writes, int of = -1)
	{
		std::vector<Step> steps;

		for (auto [index, value] : writes)
			steps.push_back(writes_msr(index, value));
		steps.push_back(halts());
		guest(std::move(steps));
		expect_exit(KVM_EXIT_HLT, of);
	}
	void run_once(int of = -1) { write_msrs({}, of); }
	u64 guests_tsc() { return insn::rdtsc() + tsc_offset; }
	/* What the guest reads, by the rules. */
	u64 time_at(u64 where = page)
	{
		const auto &t = at<PvclockTime>(where);

		EXPECT_EQ(t.version % 2, 0u);
		TscScale scale{t.tsc_to_system_mul, t.tsc_shift};
		return t.system_time + scale.ns(guests_tsc() - t.tsc_timestamp);
	}
	u8 flags_at(u64 where = page) { return at<PvclockTime>(where).flags; }
	kvm_clock_data get()
	{
		kvm_clock_data data{};

		EXPECT_EQ(vm_ioctl(vm, KVM_GET_CLOCK, data), 0);
		return data;
	}
	long set(u64 clock, u32 flags = 0, u64 realtime = 0)
	{
		kvm_clock_data data{};

		data.clock = clock;
		data.flags = flags;
		data.realtime = realtime;
		return vm_ioctl(vm, KVM_SET_CLOCK, data);
	}
	long ctrl(int of) { return vcpu_ioctl(of, KVM_KVMCLOCK_CTRL, 0ul); }

	u64 tsc_offset = -insn::rdtsc(); /* began at 0 as the VM was made, and no time has passed */
};

} // namespace

TEST(TscScale, ns)
{
	for (u64 khz : {1000u, 50'000u, 999'999u, 1'000'000u, 1'000'001u, 2'400'000u, 3'999'999u,
			10'000'000u}) {
		TscScale scale = TscScale::of(khz);
		u64 hour = 3600 * khz * 1000;
		s64 off = static_cast<s64>(scale.ns(hour) - 3600'000'000'000);

		EXPECT_GE(scale.mul, 1u << 31) << khz;
		EXPECT_LT(off < 0 ? -off : off, 5000) << khz << ": of an hour";
		EXPECT_EQ(scale.ns(0), 0u);
	}
}

TEST_F(Clock, capabilities)
{
	EXPECT_EQ(kvmpp_device_ioctl(KVM_CHECK_EXTENSION, KVM_CAP_ADJUST_CLOCK), all_flags);
	EXPECT_EQ(kvmpp_device_ioctl(KVM_CHECK_EXTENSION, KVM_CAP_KVMCLOCK_CTRL), 1);
}

TEST_F(Clock, goes_from_0_on)
{
	EXPECT_EQ(get().clock, 0u);
	pass_time(3 * ms);
	EXPECT_EQ(get().clock, 3 * ms);
	EXPECT_EQ(get().flags, all_flags);
	EXPECT_EQ(get().realtime, real_time());
	EXPECT_EQ(get().host_tsc, insn::rdtsc());
	EXPECT_EQ(vm_ioctl(vm, KVM_GET_CLOCK, 0x7f0000000000ul), -EFAULT);
	EXPECT_EQ(vm_ioctl(vm, KVM_SET_CLOCK, 0x7f0000000000ul), -EFAULT);
}

TEST_F(Clock, is_set)
{
	EXPECT_EQ(set(1000 * ms), 0);
	EXPECT_EQ(get().clock, 1000 * ms);
	pass_time(ms);
	EXPECT_EQ(get().clock, 1001 * ms);
	EXPECT_EQ(set(5, 1), -EINVAL);
	EXPECT_EQ(set(5, 1 << 4), -EINVAL);
	EXPECT_EQ(get().clock, 1001 * ms);
	EXPECT_EQ(set(10 * ms, KVM_CLOCK_REALTIME, real_time() - 7 * ms), 0);
	EXPECT_EQ(get().clock, 17 * ms) << "what passed since";
	EXPECT_EQ(set(10 * ms, all_flags, real_time() + 7 * ms), 0);
	EXPECT_EQ(get().clock, 10 * ms) << "not backwards";
}

TEST_F(Clock, guest_reads_what_user_space_gets)
{
	pass_time(2 * ms);
	write_msrs({{system_time, page | 1}});
	EXPECT_EQ(flags_at(), tsc_stable);
	EXPECT_EQ(at<PvclockTime>(page).version, 2u);
	EXPECT_EQ(time_at(), 2 * ms);
	pass_time(5000 * ms);
	EXPECT_EQ(time_at(), get().clock);
	EXPECT_EQ(time_at(), 5002 * ms);
	run_once();
	EXPECT_EQ(at<PvclockTime>(page).version, 2u) << "written when there is something to tell";
}

TEST_F(Clock, setting_tells_the_guest)
{
	write_msrs({{system_time, page | 1}});
	EXPECT_EQ(set(77 * ms), 0);
	run_once();
	EXPECT_EQ(time_at(), 77 * ms);
	EXPECT_EQ(at<PvclockTime>(page).version, 4u);
	pass_time(ms);
	EXPECT_EQ(time_at(), 78 * ms);
}

TEST_F(Clock, set_while_the_guest_runs)
{
	guest({writes_msr(system_time, page | 1),
	       [&](Vmcs &vmcs, u64 *gprs) {
		       exits(ExitReason::external_interrupt)(vmcs, gprs);
		       set_need_resched(true);
	       },
	       [&](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(time_at(), 9 * ms);
		       halts()(vmcs, gprs);
	       }});
	on_reschedule([&] {
		AnotherThread thread;
		EXPECT_EQ(set(9 * ms), 0);
	});
	expect_exit(KVM_EXIT_HLT);
}

TEST_F(Clock, version_goes_on_from_what_is_there)
{
	auto &t = at<PvclockTime>(page);

	for (u32 before : {0u, 7u, 8u, ~0u, ~0u - 1}) {
		t.version = before;
		t.flags = 0xff;
		write_msrs({{system_time, page | 1}});
		EXPECT_EQ(t.version, ((before + 1) | 1) + 1) << before;
		EXPECT_EQ(t.flags, tsc_stable | guest_stopped) << "only that flag is kept";
	}
}

TEST_F(Clock, switched_off)
{
	write_msrs({{system_time, page | 1}});
	at<PvclockTime>(page) = {};
	write_msrs({{system_time, other_page}});
	EXPECT_EQ(set(77 * ms), 0);
	run_once();
	EXPECT_EQ(at<PvclockTime>(page).version, 0u);
	EXPECT_EQ(at<PvclockTime>(other_page).version, 0u) << "bit 0 is clear";
	write_msrs({{system_time, other_page | 1}});
	EXPECT_EQ(at<PvclockTime>(other_page).version, 2u);
}

TEST_F(Clock, where_there_is_no_memory)
{
	/* Not over the end of a page, nor outside of memory: nothing happens, and the MSR is written. */
	for (u64 where : {u64{0xff0}, u64{device}, ~u64{0} - 1}) {
		write_msrs({{system_time, where | 1}, {wall_clock, where}});
		EXPECT_EQ(at<u32>(0xff0), where == 0xff0 ? 2u : at<u32>(0xff0));
	}
	EXPECT_EQ(at<PvclockTime>(0xfe0).version, 0u);
	write_msrs({{system_time, 0xfe0 | 1}});
	EXPECT_EQ(at<PvclockTime>(0xfe0).version, 2u);
}

TEST_F(Clock, wall_clock)
{
	auto &wall = at<PvclockWallClock>(wall_page);

	pass_time(1234 * ms);
	wall.version = 3;
	write_msrs({{wall_clock, wall_page}});
	EXPECT_EQ(wall.version, 6u);
	u64 zero = real_time() - get().clock;
	EXPECT_EQ(wall.sec, zero / 1'000'000'000);
	EXPECT_EQ(wall.nsec, zero % 1'000'000'000);
	pass_time(ms);
	write_msrs({{wall_clock_old, wall_page}});
	EXPECT_EQ(wall.version, 8u);
	EXPECT_EQ(wall.nsec, zero % 1'000'000'000) << "the same moment";
	run_once();
	EXPECT_EQ(wall.version, 8u) << "once for each write";
	write_msrs({{wall_clock, 0}});
	EXPECT_EQ(at<u32>(0), 0u) << "0 is nowhere";
	/* Over the end of a page. */
	write_msrs({{wall_clock, 0xff8}});
	EXPECT_EQ(at<PvclockWallClock>(0xff8).version, 2u);
	EXPECT_EQ(at<PvclockWallClock>(0xff8).nsec, zero % 1'000'000'000);
}

TEST_F(Clock, msrs_are_read_back)
{
	guest({writes_msr(system_time, page | 1), writes_msr(wall_clock, wall_page),
	       [](Vmcs &vmcs, u64 *gprs) {
		       exits(ExitReason::rdmsr, 0, 2)(vmcs, gprs);
		       gprs[rcx] = system_time_old;
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(gprs[rax], page | 1);
		       exits(ExitReason::rdmsr, 0, 2)(vmcs, gprs);
		       gprs[rcx] = wall_clock_old;
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(gprs[rax], u64{wall_page});
		       halts()(vmcs, gprs);
	       }});
	expect_exit(KVM_EXIT_HLT);
}

TEST_F(Clock, guest_that_was_stopped)
{
	EXPECT_EQ(ctrl(vcpu), -EINVAL) << "no clock yet";
	write_msrs({{system_time, page | 1}});
	EXPECT_EQ(ctrl(vcpu), 0);
	EXPECT_EQ(flags_at(), tsc_stable);
	run_once();
	EXPECT_EQ(flags_at(), tsc_stable | guest_stopped);
	EXPECT_EQ(set(5 * ms), 0);
	run_once();
	EXPECT_EQ(flags_at(), tsc_stable | guest_stopped) << "until the guest clears it";
	at<PvclockTime>(page).flags = 0;
	EXPECT_EQ(set(6 * ms), 0);
	run_once();
	EXPECT_EQ(flags_at(), tsc_stable);
	write_msrs({{system_time, page}});
	EXPECT_EQ(ctrl(vcpu), -EINVAL);
}

TEST_F(Clock, two_vcpus_tell_one_time)
{
	int second = make_vcpu(1);

	write_msrs({{system_time, page | 1}});
	pass_time(ms);
	write_msrs({{system_time, other_page | 1}}, second);
	pass_time(ms);
	EXPECT_EQ(time_at(page), time_at(other_page));
	EXPECT_EQ(flags_at(page) & flags_at(other_page), tsc_stable);
	close_fd(second);
}

/* A guest that sets one TSC is told that they are no longer one, and that they are again. */
TEST_F(Clock, tscs_that_differ)
{
	int second = make_vcpu(1);

	pass_time(1000 * ms);
	write_msrs({{system_time, page | 1}});
	write_msrs({{system_time, other_page | 1}}, second);
	write_msrs({{msr::tsc, u64{1} << 40}});
	EXPECT_EQ(flags_at(page), 0);
	run_once(second);
	EXPECT_EQ(flags_at(other_page), 0);
	EXPECT_EQ(get().flags, 0u);
	EXPECT_EQ(time_at(other_page), 1000 * ms) << "by its own TSC";
	tsc_offset = (u64{1} << 40) - insn::rdtsc();
	EXPECT_EQ(time_at(page), 1000 * ms) << "by the other one";
	write_msrs({{msr::tsc, u64{1} << 40}}, second);
	EXPECT_EQ(flags_at(other_page), tsc_stable);
	EXPECT_EQ(time_at(other_page), 1000 * ms);
	run_once();
	EXPECT_EQ(flags_at(page), tsc_stable);
	EXPECT_EQ(get().flags, all_flags);
	close_fd(second);
}

TEST_F(Clock, vcpu_that_differs_ends)
{
	int second = make_vcpu(1);

	write_msrs({{system_time, page | 1}, {msr::tsc, u64{1} << 40}});
	EXPECT_EQ(flags_at(page), 0);
	close_fd(second);
	run_once();
	EXPECT_EQ(flags_at(page), tsc_stable);
}

TEST_F(Clock, guest_that_knows_no_flags)
{
	write_msrs({{system_time_old, page | 1}});
	EXPECT_EQ(flags_at(), 0);
	EXPECT_EQ(time_at(), 0u);
	EXPECT_EQ(get().flags, 0u);
	write_msrs({{system_time, page | 1}});
	EXPECT_EQ(flags_at(), tsc_stable);
}

TEST_F(Clock, host_without_a_stable_tsc)
{
	set_tsc_stable(false);
	write_msrs({{system_time, page | 1}});
	EXPECT_EQ(flags_at(), 0);
	u32 version = at<PvclockTime>(page).version;
	pass_time(ms);
	run_once();
	EXPECT_EQ(at<PvclockTime>(page).version, version + 2) << "anew at each entry";
	EXPECT_EQ(at<PvclockTime>(page).system_time, ms);
	EXPECT_EQ(get().clock, ms);
	EXPECT_EQ(get().flags, 0u);
	EXPECT_EQ(set(50 * ms), 0);
	EXPECT_EQ(get().clock, 50 * ms);
}

TEST_F(Clock, machine_sleeps)
{
	write_msrs({{system_time, page | 1}});
	pass_time(10 * ms);
	u64 guests_tsc_before = guests_tsc();
	sleep_for(3000 * ms);
	EXPECT_EQ(get().clock, 3010 * ms);
	tsc_offset = guests_tsc_before - insn::rdtsc();
	pass_time(ms);
	run_once();
	EXPECT_EQ(time_at(), 3011 * ms) << "the TSC has begun anew";
	EXPECT_EQ(flags_at(), tsc_stable | guest_stopped);
}

/* Asleep, guests' TSCs stand still, and those of a VM go on to agree. */
TEST_F(Clock, tscs_do_not_go_back_in_a_sleep)
{
	int second = make_vcpu(1);
	auto tsc = [&](int of) {
		struct {
			u32 count = 1, padding = 0;
			kvm_msr_entry entry{.index = msr::tsc, .reserved = 0, .data = 0};
		} msrs;
		EXPECT_EQ(vcpu_ioctl(of, KVM_GET_MSRS, msrs), 1);
		return msrs.entry.data;
	};

	write_msrs({{system_time, page | 1}});
	for (int round = 0; round < 2; round++) {
		pass_time(1000 * ms);
		u64 before = tsc(vcpu);
		sleep_for(3000 * ms);
		if (round == 0) {
			EXPECT_EQ(tsc(vcpu), before);
		}
		sleep_for(500 * ms);
		EXPECT_EQ(tsc(second), before) << "that has missed one of them";
		pass_time(ms);
		int third = make_vcpu(2);
		u64 after = before + ms * glue_tsc_khz() / 1'000'000;
		for (int of : {vcpu, second, third})
			EXPECT_EQ(tsc(of), after);
		EXPECT_EQ(get().flags, all_flags) << "they agree";
		guest({[&](Vmcs &vmcs, u64 *gprs) {
			EXPECT_EQ(insn::rdtsc() + vmcs.fields[field::tsc_offset.encoding], after);
			halts()(vmcs, gprs);
		}});
		expect_exit(KVM_EXIT_HLT);
		close_fd(third);
	}
	close_fd(second);
}

/* The guest sets its TSC to what it would be: it is to agree with the others. */
TEST_F(Clock, tsc_set_after_a_sleep)
{
	pass_time(10'000 * ms);
	u64 tsc = guests_tsc();
	sleep_for(3000 * ms);
	write_msrs({{msr::tsc, tsc + 5}});
	guest({[&](Vmcs &vmcs, u64 *gprs) {
		EXPECT_EQ(insn::rdtsc() + vmcs.fields[field::tsc_offset.encoding], tsc);
		halts()(vmcs, gprs);
	}});
	expect_exit(KVM_EXIT_HLT);
}

TEST_F(Clock, on_a_dedicated_cpu)
{
	VcpuState s;
	VcpuIdentity identity{.id = 0, .physical_address_bits = 39};
	Exit exit;

	s.reset(0, 0);
	exit.instruction_length = 2;
	for (u32 index : {system_time, system_time_old, wall_clock, wall_clock_old}) {
		s.gpr[rcx] = index;
		for (ExitReason reason : {ExitReason::rdmsr, ExitReason::wrmsr}) {
			exit.raw_reason = static_cast<u32>(reason);
			EXPECT_EQ(handle_bare(s, identity, exit), Next::needs_linux) << index;
		}
	}
	for (u32 index : {msr::tsc, msr::tsc_adjust}) {
		s.gpr[rcx] = index;
		EXPECT_EQ(handle_bare(s, identity, exit), Next::needs_linux)
			<< "the clock goes by it";
	}
	s.gpr[rcx] = msr::tsc;
	EXPECT_FALSE(s.has_event);
	exit.raw_reason = static_cast<u32>(ExitReason::rdmsr);
	EXPECT_EQ(handle_bare(s, identity, exit), Next::resume);
}
