// SPDX-License-Identifier: GPL-2.0
/* KVM's MSRs but for kvmclock's: what they take, and what steal time tells the guest. */
#include "device_fixture.hpp"

#include "arch/x86/handlers.hpp"
#include "arch/x86/paravirtual.hpp"

using namespace kvmpp;
using namespace kvmpp::host;
using namespace kvmpp::paravirtual;
using Record = kvmpp::paravirtual::StealTime;

namespace
{

class Steal : public DeviceTest
{
protected:
	static constexpr u64 page = 0x240, unmapped = 0xd000;

	struct Msrs {
		u32 count = 1, padding = 0;
		kvm_msr_entry entry{};
	};
	long set(u32 index, u64 value)
	{
		Msrs msrs{.entry = {.index = index, .reserved = 0, .data = value}};

		return vcpu_ioctl(vcpu, KVM_SET_MSRS, msrs);
	}
	u64 get(u32 index)
	{
		Msrs msrs{.entry = {.index = index, .reserved = 0, .data = ~u64{0}}};

		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_MSRS, msrs), 1) << index;
		return msrs.entry.data;
	}
	void run_once()
	{
		guest({halts()});
		expect_exit(KVM_EXIT_HLT);
	}
	Record &record() { return at<Record>(page); }
	/* The guest takes an interrupt of the host's, after which others run for @ns. */
	Step preempted_for(u64 ns)
	{
		return [=, this](Vmcs &vmcs, u64 *gprs) {
			exits(ExitReason::external_interrupt)(vmcs, gprs);
			set_need_resched(true);
			on_reschedule([=, this] {
				reschedule_to(this_cpu(), [&] { seen_away = record().preempted; });
				add_run_delay(ns);
			});
		};
	}

	int seen_away = -1;
};

} // namespace

TEST_F(Steal, msrs_of_the_vmm)
{
	for (u32 index :
	     {async_pf_enable, steal_time, pv_eoi, async_pf_interrupt, async_pf_acknowledge})
		EXPECT_EQ(get(index), 0u) << index;
	EXPECT_EQ(set(steal_time, page | 1), 1);
	EXPECT_EQ(get(steal_time), page | 1);
	for (unsigned reserved = 1; reserved < 6; reserved++)
		EXPECT_EQ(set(steal_time, page | 1 | 1 << reserved), 0) << reserved;
	EXPECT_EQ(get(steal_time), page | 1);
	EXPECT_EQ(set(steal_time, unmapped | 1), 1) << "nobody looks before it is written";
	EXPECT_EQ(set(steal_time, 0), 1);

	EXPECT_EQ(set(pv_eoi, page | 1), 1);
	EXPECT_EQ(get(pv_eoi), page | 1);
	EXPECT_EQ(set(pv_eoi, page | 2), 0);
	EXPECT_EQ(set(pv_eoi, page | 3), 0);
	EXPECT_EQ(set(pv_eoi, unmapped | 1), 0);
	EXPECT_EQ(get(pv_eoi), page | 1);
	EXPECT_EQ(set(pv_eoi, unmapped), 1) << "off";

	EXPECT_EQ(set(async_pf_enable, 0), 1);
	EXPECT_EQ(set(async_pf_enable, page | 1), 0) << "there is no APIC to send one by";
	EXPECT_EQ(set(async_pf_interrupt, 0), 0);
	EXPECT_EQ(set(async_pf_interrupt, 0xec), 0);
	EXPECT_EQ(set(async_pf_acknowledge, 1), 1);
	EXPECT_EQ(get(async_pf_acknowledge), 0u);
}

TEST_F(Steal, msrs_of_the_guest)
{
	auto expect_gp = [](Vmcs &vmcs, u64 *gprs) {
		EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding] & 0xff, 13u);
		halts()(vmcs, gprs);
	};
	guest({writes_msr(steal_time, page | 1), writes_msr(pv_eoi, page | 1),
	       writes_msr(async_pf_enable, 0), writes_msr(async_pf_acknowledge, 1), halts()});
	expect_exit(KVM_EXIT_HLT);
	EXPECT_EQ(get(steal_time), page | 1);
	EXPECT_EQ(get(pv_eoi), page | 1);
	for (auto [index, value] : {std::pair<u32, u64>{steal_time, page | 3},
				    {pv_eoi, unmapped | 1},
				    {pv_eoi, page | 2},
				    {async_pf_enable, page | 1},
				    {async_pf_interrupt, 0xec}}) {
		guest({writes_msr(index, value), expect_gp});
		expect_exit(KVM_EXIT_HLT);
	}
	EXPECT_EQ(get(pv_eoi), page | 1);
}

TEST_F(Steal, are_in_the_list)
{
	struct {
		kvm_msr_list header{.nmsrs = 100, .indices = {}};
		u32 indices[100] = {};
	} list;
	add_user_memory(reinterpret_cast<u64>(&list), sizeof(list));
	EXPECT_EQ(
		kvmpp_device_ioctl(KVM_GET_MSR_INDEX_LIST, reinterpret_cast<unsigned long>(&list)),
		0);
	remove_user_memory(reinterpret_cast<u64>(&list));
	for (u32 index :
	     {async_pf_enable, steal_time, pv_eoi, async_pf_interrupt, async_pf_acknowledge})
		EXPECT_EQ(std::count(list.indices, list.indices + list.header.nmsrs, index), 1)
			<< index;
}

TEST_F(Steal, none_where_linux_does_not_count)
{
	init_guest_features(7, true, true, false);
	EXPECT_EQ(set(steal_time, page | 1), 0);
	EXPECT_EQ(set(steal_time, 0), 0);
	EXPECT_EQ(get(steal_time), 0u);
	init_guest_features(7, true, true, true);
}

TEST_F(Steal, is_told_before_the_entry)
{
	add_run_delay(1000);
	record() = {.steal = 7, .version = 4, .flags = 0, .preempted = 1};
	EXPECT_EQ(set(steal_time, page | 1), 1);
	EXPECT_EQ(record().steal, 7u) << "not yet";
	guest({[this](Vmcs &vmcs, u64 *gprs) {
		EXPECT_EQ(record().steal, 1007u);
		EXPECT_EQ(record().version, 6u);
		EXPECT_EQ(record().preempted, 0);
		halts()(vmcs, gprs);
	}});
	expect_exit(KVM_EXIT_HLT);
	add_run_delay(500);
	run_once();
	EXPECT_EQ(record().steal, 1507u);
	EXPECT_EQ(record().version, 8u);
	run_once();
	EXPECT_EQ(record().version, 8u) << "nothing to tell";
}

TEST_F(Steal, version_that_was_odd)
{
	record().version = 7;
	EXPECT_EQ(set(steal_time, page | 1), 1);
	run_once();
	EXPECT_EQ(record().version, 10u);
}

TEST_F(Steal, preempted_while_the_guest_runs)
{
	EXPECT_EQ(set(steal_time, page | 1), 1);
	guest({preempted_for(300), [this](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(seen_away, 1);
		       EXPECT_EQ(record().steal, 300u);
		       EXPECT_EQ(record().preempted, 0);
		       halts()(vmcs, gprs);
	       }});
	expect_exit(KVM_EXIT_HLT);
	EXPECT_EQ(entries, 2u);
}

/* Between the look at what is to be told and the entry. */
TEST_F(Steal, preempted_on_its_way_into_the_guest)
{
	EXPECT_EQ(set(steal_time, page | 1), 1);
	run_once();
	set_need_resched(true);
	on_reschedule([] {
		reschedule_to(this_cpu());
		add_run_delay(20);
	});
	guest({[this](Vmcs &vmcs, u64 *gprs) {
		EXPECT_EQ(record().steal, 20u);
		halts()(vmcs, gprs);
	}});
	expect_exit(KVM_EXIT_HLT);
}

/* Others are not to believe that it is at a place where it can wait. */
TEST_F(Steal, preempted_in_an_instruction_that_the_host_does)
{
	EXPECT_EQ(set(steal_time, page | 1), 1);
	guest({[this](Vmcs &vmcs, u64 *gprs) {
		       writes_msr(msr::tsc_aux, 0)(vmcs, gprs);
		       set_need_resched(true);
		       on_reschedule([this] {
			       reschedule_to(this_cpu(), [&] { seen_away = record().preempted; });
		       });
	       },
	       halts()});
	expect_exit(KVM_EXIT_HLT);
	EXPECT_EQ(seen_away, 0);
}

TEST_F(Steal, memory_that_has_to_be_waited_for)
{
	EXPECT_EQ(set(steal_time, page | 1), 1);
	set_swapped_out(true);
	guest({preempted_for(300), halts()});
	expect_exit(KVM_EXIT_HLT);
	set_swapped_out(false);
	EXPECT_EQ(seen_away, 0) << "the scheduler does not wait";
	EXPECT_EQ(record().steal, 300u);
}

TEST_F(Steal, no_memory_there)
{
	EXPECT_EQ(set(steal_time, unmapped | 1), 1);
	guest({preempted_for(300), halts()});
	expect_exit(KVM_EXIT_HLT);
	EXPECT_EQ(set(steal_time, page | 1), 1);
	run_once();
	EXPECT_EQ(record().steal, 300u) << "all since it was told last";
}

TEST_F(Steal, switched_off)
{
	EXPECT_EQ(set(steal_time, page | 1), 1);
	run_once();
	EXPECT_EQ(set(steal_time, page), 1);
	u32 version = record().version;
	guest({preempted_for(300), halts()});
	expect_exit(KVM_EXIT_HLT);
	EXPECT_EQ(record().version, version);
	EXPECT_EQ(seen_away, 0);
}

TEST_F(Steal, on_a_dedicated_cpu)
{
	VcpuState s;
	VcpuIdentity identity{.id = 0, .physical_address_bits = 39};
	Exit exit;

	s.reset(0, 0);
	exit.instruction_length = 2;
	exit.raw_reason = static_cast<u32>(ExitReason::wrmsr);
	for (u32 index : {steal_time, pv_eoi}) {
		s.gpr[rcx] = index;
		EXPECT_EQ(handle_bare(s, identity, exit), Next::needs_linux)
			<< index << " is for the thread";
	}
	s.gpr[rcx] = async_pf_enable;
	s.gpr[rdx] = 0;
	EXPECT_EQ(handle_bare(s, identity, exit), Next::resume);
	EXPECT_FALSE(s.has_event);
	exit.raw_reason = static_cast<u32>(ExitReason::rdmsr);
	s.gpr[rcx] = steal_time;
	EXPECT_EQ(handle_bare(s, identity, exit), Next::resume);
}
