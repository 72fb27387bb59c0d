// SPDX-License-Identifier: GPL-2.0
/* KVM_RUN: entries, exits, what user space sees, and the vCPU's VMCS as CPUs change under it. */
#include "ept_walk.hpp"
#include "virt/directed_yield.hpp"
#include "vm_fixture.hpp"

#include "arch/x86/vmx_cpu.hpp"

#include <asm/errno.h>

#include <functional>
#include <vector>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class Run : public ModuleTest
{
protected:
	static constexpr u64 ram_bytes = 0x10000;

	explicit Run(bool exclusive = true)
		: ModuleTest(exclusive),
		  ram(static_cast<u8 *>(std::aligned_alloc(page_size, ram_bytes)))
	{
		std::memset(ram, 0, ram_bytes);
		add_user_memory(reinterpret_cast<u64>(ram), ram_bytes);
		vm = create_vm();
		EXPECT_EQ(set_memory(vm, 0, 0, ram_bytes, reinterpret_cast<u64>(ram)), 0);
		vcpu = create_vcpu(vm);
		offer_cpuid(vcpu);
		kvm_sregs sregs{};
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
		sregs.cs.base = sregs.cs.selector = 0;
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SREGS, sregs), 0);
		kvm_regs regs{};
		regs.rip = 0x1000;
		regs.rflags = 2;
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, regs), 0);
	}
	~Run() override
	{
		if (vcpu >= 0)
			close_fd(vcpu);
		close_fd(vm);
		remove_user_memory(reinterpret_cast<u64>(ram));
		std::free(ram);
	}

	/* What the guest does at each entry, in turn: true is VMfail. */
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
	static Step exits(ExitReason reason, u64 qualification = 0, u64 length = 1)
	{
		return [=](Vmcs &vmcs, u64 *) {
			vmcs.fields[field::exit_reason.encoding] = static_cast<u64>(reason);
			vmcs.fields[field::exit_qualification.encoding] = qualification;
			vmcs.fields[field::vm_exit_instruction_length.encoding] = length;
			vmcs.fields[field::idt_vectoring_info.encoding] = 0;
			return false;
		};
	}
	static Step touches(u64 guest_phys, bool write)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			exits(ExitReason::ept_violation, write ? 0x182 : 0x181)(vmcs, gprs);
			vmcs.fields[field::guest_physical_address.encoding] = guest_phys;
			vmcs.fields[field::guest_linear_address.encoding] = guest_phys;
			return false;
		};
	}
	static Step halts() { return exits(ExitReason::hlt); }
	long run() { return vcpu_ioctl(vcpu, KVM_RUN, 0ul); }
	kvm_run &run_page() { return shared(vcpu); }
	/* An exception is to be delivered; the entry goes as @refused has it, then RIP is set. */
	void expect_dropped_after(Step refused)
	{
		guest({exits(ExitReason::rdpmc, 0, 2), refused, [](Vmcs &vmcs, u64 *gprs) {
			       EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding] >>
						 31,
					 0u);
			       return halts()(vmcs, gprs);
		       }});
		EXPECT_EQ(run(), 0);
		EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_FAIL_ENTRY});
		kvm_regs r = regs();
		r.rip = 0x3000;
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, r), 0);
		EXPECT_EQ(run(), 0);
		EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
	}
	kvm_regs regs()
	{
		kvm_regs r{};

		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_REGS, r), 0);
		return r;
	}
	u64 exits_counted()
	{
		std::string stats;

		kvmpp_show_stats(reinterpret_cast<glue_text *>(&stats));
		size_t at = stats.find("exits_total ");
		return std::stoull(stats.substr(at + 12));
	}

	u8 *ram;
	int vm = -1, vcpu = -1;
	size_t entries = 0;
};

/* Guests that spin, and their siblings. */
class Spin : public Run
{
protected:
	Spin() : sibling(create_vcpu(vm, 1))
	{
		on_yield([&](int thread) {
			yielded_to.push_back(thread);
			return 1;
		});
	}
	~Spin() override
	{
		if (sibling >= 0)
			close_fd(sibling);
	}
	/* The sibling is preempted in its guest, in thread 1, while thread 0 runs this vCPU's. */
	void run_while_sibling_waits()
	{
		guest({[&](Vmcs &vmcs, u64 *gprs) {
			       exits(ExitReason::external_interrupt)(vmcs, gprs);
			       set_need_resched(true);
			       return false;
		       },
		       exits(ExitReason::pause, 0, 2), halts(), halts()});
		on_reschedule([&] {
			reschedule_to(this_cpu(), [&] {
				switch_thread(0);
				EXPECT_EQ(run(), 0);
				switch_thread(1);
			});
		});
		switch_thread(1);
		EXPECT_EQ(vcpu_ioctl(sibling, KVM_RUN, 0ul), 0);
		switch_thread(0);
	}

	int sibling;
	std::vector<int> yielded_to;
};

class RunNotExclusive : public Run
{
protected:
	RunNotExclusive() : Run(false) {}

	void expect_vmx_off()
	{
		for (int cpu = 0; cpu < cpu_count; cpu++)
			EXPECT_FALSE(processor(cpu).vmx || active_vmcss(cpu)) << "on CPU " << cpu;
	}
	long get_sregs()
	{
		kvm_sregs sregs{};
		return vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs);
	}
};

} // namespace

TEST_F(Spin, pause_exit_yields_to_a_preempted_sibling)
{
	DirectedYield::Stats before = DirectedYield::stats();

	run_while_sibling_waits();
	EXPECT_EQ(yielded_to, std::vector<int>{1});
	EXPECT_EQ(regs().rip, 0x1003u) << "PAUSE and HLT are done";
	EXPECT_EQ(DirectedYield::stats().done - before.done, 1u);
	EXPECT_EQ(entries, 4u);
}

TEST_F(Spin, nobody_is_preempted)
{
	guest({exits(ExitReason::pause, 0, 2), halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(yielded_to, std::vector<int>{});
	/* The sibling has been and is back in user space: it waits for nothing. */
	run_while_sibling_waits();
	yielded_to.clear();
	guest({exits(ExitReason::pause, 0, 2), halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(yielded_to, std::vector<int>{});
}

TEST_F(Spin, no_memory_for_the_name_of_its_thread)
{
	guest({halts()});
	switch_thread(5);
	fail_allocation_after(0);
	EXPECT_EQ(run(), -ENOMEM);
	EXPECT_EQ(run(), 0);
}

TEST_F(Run, pause_loop_exiting)
{
	glue_parameters.ple_gap = 100;
	glue_parameters.ple_window = 5000;
	guest({halts()});
	EXPECT_EQ(run(), 0);
	auto &fields = vmcs_at(processor(0).current).fields;
	EXPECT_TRUE(fields[field::secondary_processor_based_controls.encoding] &
		    secondary::pause_loop_exiting);
	EXPECT_FALSE(fields[field::primary_processor_based_controls.encoding] &
		     primary::pause_exiting);
	EXPECT_EQ(fields[field::ple_gap.encoding], 100u);
	EXPECT_EQ(fields[field::ple_window.encoding], 5000u);
}

TEST_F(Run, pause_loop_exiting_is_not_wanted)
{
	glue_parameters.ple_gap = 0;
	guest({halts()});
	EXPECT_EQ(run(), 0);
	auto &fields = vmcs_at(processor(0).current).fields;
	EXPECT_FALSE(fields[field::secondary_processor_based_controls.encoding] &
		     secondary::pause_loop_exiting);
	EXPECT_FALSE(fields.contains(field::ple_gap.encoding));
}

TEST_F(Run, pause_loop_exiting_is_missing)
{
	close_fd(vcpu);
	close_fd(vm);
	kvmpp_exit();
	VmxRegisters registers = capable_registers();
	registers.secondary &= ~(u64{secondary::pause_loop_exiting} << 32);
	for (int cpu = 0; cpu < cpu_count; cpu++)
		set_registers(cpu, registers);
	missing_fields() = {field::ple_gap.encoding, field::ple_window.encoding};
	EXPECT_EQ(kvmpp_init(), 0);
	vm = create_vm();
	vcpu = create_vcpu(vm);
	guest({halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
}

TEST_F(Run, hlt)
{
	guest({halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
	EXPECT_EQ(regs().rip, 0x1001u);
	EXPECT_FALSE(sched_notifier_registered());
	EXPECT_FALSE(guest_fpu_loaded());
	EXPECT_EQ(processor(0).debugctl, 2u) << "a VM exit clears it; Linux's value comes back";
}

TEST_F(Run, l1_data_cache_is_flushed_after_what_is_not_the_guests)
{
	guest({halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(l1d_flushes(), 1u) << "user space";
	guest({exits(ExitReason::cpuid, 0, 2), exits(ExitReason::cpuid, 0, 2), halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(l1d_flushes(), 2u) << "user space; an exit by itself shows nothing";
	guest({touches(0x3000, true), halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(l1d_flushes(), 3u) << "user space; a page that is looked up shows nothing either";
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       set_need_resched(true);
		       on_reschedule([] { reschedule_to(0, [] {}); });
		       return exits(ExitReason::cpuid, 0, 2)(vmcs, gprs);
	       },
	       halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(l1d_flushes(), 5u) << "user space, and another thread has run here";
}

TEST_F(Run, perf_is_asked_anew_each_time)
{
	for (bool there : {true, false, true}) {
		set_perf_events(there);
		guest({exits(ExitReason::cpuid, 0, 2), exits(ExitReason::cpuid, 0, 2), halts()});
		EXPECT_EQ(run(), 0);
	}
}

TEST_F(Run, host_state_is_that_of_the_cpu)
{
	guest({halts(), halts()});
	EXPECT_EQ(run(), 0);
	Vmcs &vmcs = vmcs_at(processor(0).current);
	EXPECT_EQ(vmcs.fields[field::host_gs_base.encoding], 0x4000u);
	EXPECT_EQ(vmcs.fields[field::host_tr_base.encoding], 0x1000u);
	EXPECT_EQ(vmcs.fields[field::host_cr3.encoding], 0x7000u);
	EXPECT_EQ(vmcs.fields[field::host_fs_base.encoding], 0xf5ba5eu);
	EXPECT_EQ(vmcs.fields[field::vmcs_link_pointer.encoding], ~u64{0});
	u64 address = processor(0).current;
	migrate_to(2);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(processor(2).current, address);
	EXPECT_EQ(vmcs.fields[field::host_gs_base.encoding], 0x4002u);
	EXPECT_EQ(vmcs.fields[field::host_tr_base.encoding], 0x1002u);
	EXPECT_EQ(vmcs.fields[field::host_gdtr_base.encoding], 0x2002u);
	EXPECT_EQ(vmcs.fields[field::host_sysenter_esp.encoding], 0x5002u);
}

TEST_F(Run, guest_state_is_written_and_read_back)
{
	guest({[](Vmcs &vmcs, u64 *gprs) {
		EXPECT_EQ(vmcs.fields[field::guest_rip.encoding], 0x1000u);
		EXPECT_EQ(vmcs.fields[field::guest_rflags.encoding], 2u);
		/* What VMX insists on, and what caching is not the guest's business, is not shown. */
		EXPECT_EQ(vmcs.fields[field::guest_cr0.encoding] & (cr0::ne | cr0::cd | cr0::nw),
			  cr0::ne);
		EXPECT_EQ(vmcs.fields[field::cr0_read_shadow.encoding], 0x60000010u);
		EXPECT_TRUE(vmcs.fields[field::guest_cr4.encoding] & cr4::vmxe);
		EXPECT_EQ(vmcs.fields[field::cr4_read_shadow.encoding], 0u);
		vmcs.fields[field::guest_rip.encoding] = 0x2000;
		vmcs.fields[field::guest_rsp.encoding] = 0x8000;
		vmcs.fields[field::guest_cr0.encoding] |= cr0::ts;
		gprs[rbx] = 77;
		return halts()(vmcs, gprs);
	}});
	EXPECT_EQ(run(), 0);
	kvm_regs r = regs();
	EXPECT_EQ(r.rip, 0x2001u);
	EXPECT_EQ(r.rsp, 0x8000u);
	EXPECT_EQ(r.rbx, 77u);
	kvm_sregs sregs{};
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
	EXPECT_EQ(sregs.cr0, 0x60000010u | cr0::ts);
	EXPECT_EQ(sregs.cr4, 0u);
}

TEST_F(Run, first_launch_then_resume_and_launch_again_after_a_move)
{
	/* The model notes a violation for the wrong one. */
	guest({exits(ExitReason::cpuid, 0, 2), exits(ExitReason::cpuid, 0, 2), halts(), halts()});
	EXPECT_EQ(run(), 0);
	migrate_to(1);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(entries, 4u);
}

TEST_F(Run, ram_is_mapped_on_first_touch)
{
	guest({touches(0x3000, true), halts()});
	EXPECT_EQ(run(), 0);
	u64 eptp = vmcs_at(processor(0).current).fields[field::ept_pointer.encoding];
	EXPECT_EQ(ept_entry(eptp, 0x3000) & ~u64{0xfff}, reinterpret_cast<u64>(ram) + 0x3000);
	EXPECT_EQ(ept_entry(eptp, 0x4000), 0u);
}

TEST_F(Run, removed_and_invalidated_memory_leaves_the_ept)
{
	guest({touches(0x3000, true), touches(0x4000, true), halts()});
	EXPECT_EQ(run(), 0);
	u64 eptp = vmcs_at(processor(0).current).fields[field::ept_pointer.encoding];
	u64 at = reinterpret_cast<u64>(ram);
	(void)take_invalidations();
	kvmpp_mmu_invalidate_begin(object_of(vm), at + 0x3000, at + 0x4000);
	EXPECT_EQ(ept_entry(eptp, 0x3000), 0u);
	EXPECT_NE(ept_entry(eptp, 0x4000), 0u);
	kvmpp_mmu_invalidate_end(object_of(vm), at + 0x3000, at + 0x4000);
	EXPECT_EQ(set_memory(vm, 0, 0, 0, 0), 0);
	EXPECT_EQ(ept_entry(eptp, 0x4000), 0u);
	EXPECT_TRUE(take_invalidations().empty()) << "nobody runs who could use it";
	guest({halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(take_invalidations(),
		  (std::vector<Invalidation>{{0, false, insn::Invalidate::single_context, eptp}}));
}

/* The CPU takes a walk for a write only where it sets flags in EPT entries. */
TEST_F(Run, page_tables_in_a_read_only_slot)
{
	constexpr u64 flags = 1 << 6;
	u64 at = reinterpret_cast<u64>(ram);
	auto walks = [&](u64 guest_phys, bool with_flags) {
		return [=](Vmcs &vmcs, u64 *gprs) {
			EXPECT_EQ((vmcs.fields[field::ept_pointer.encoding] & flags) != 0,
				  with_flags);
			touches(guest_phys, true)(vmcs, gprs);
			vmcs.fields[field::exit_qualification.encoding] = 0x82;
			return false;
		};
	};
	int other = create_vcpu(vm, 1);

	offer_cpuid(other);
	EXPECT_EQ(set_memory(vm, 1, 0x100000, page_size, at, KVM_MEM_READONLY), 0);
	guest({walks(0x200000, true)});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_INTERNAL_ERROR}) << "no memory at all";
	guest({halts()});
	EXPECT_EQ(vcpu_ioctl(other, KVM_RUN, 0ul), 0);
	/* The second is no walk. */
	guest({walks(0x3000, true), touches(0x100000, true), walks(0x100000, true),
	       walks(0x100000, false)});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(entries, 4u) << "done without, the guest walks them";
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_INTERNAL_ERROR})
		<< "but not if its own flags are to be set";
	guest({walks(0x3000, true), walks(0x100000, true), halts()});
	EXPECT_EQ(vcpu_ioctl(other, KVM_RUN, 0ul), 0);
	EXPECT_EQ(shared(other).exit_reason, u32{KVM_EXIT_HLT}) << "each vCPU when it has to";
	close_fd(other);
}

TEST_F(Run, memory_that_the_vmm_took_away)
{
	guest({touches(0x3000, true)});
	remove_user_memory(reinterpret_cast<u64>(ram));
	EXPECT_EQ(run(), -EFAULT);
	add_user_memory(reinterpret_cast<u64>(ram), ram_bytes);
}

TEST_F(Run, memory_that_the_hardware_has_lost)
{
	guest({touches(0x3000, true), touches(0x3000, true), halts()});
	fail_next_user_page_get(-EHWPOISON);
	EXPECT_EQ(run(), -EINTR);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_INTR});
	EXPECT_EQ(user_page_lost(), reinterpret_cast<u64>(ram) + 0x3000);
	EXPECT_EQ(entries, 1u);
	set_signal_pending(false);
	EXPECT_EQ(run(), 0) << "the VMM has put another page there";
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
}

TEST_F(Run, mmio_write_and_read)
{
	std::memcpy(ram + 0x1000, "\x89\x07\x8b\x07", 4); /* mov %ax, (%bx); mov (%bx), %ax */
	kvm_regs r = regs();
	r.rax = 0x1234;
	r.rbx = 0xd000;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, r), 0);
	EXPECT_EQ(set_memory(vm, 0, 0, 0, 0), 0);
	EXPECT_EQ(set_memory(vm, 0, 0, 0x2000, reinterpret_cast<u64>(ram)), 0);
	guest({touches(0xd000, true), touches(0xd000, false), halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_MMIO});
	EXPECT_TRUE(run_page().mmio.is_write);
	EXPECT_EQ(run_page().mmio.phys_addr, 0xd000u);
	EXPECT_EQ(run_page().mmio.len, 2u);
	EXPECT_EQ(run_page().mmio.data[0], 0x34);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_MMIO});
	EXPECT_FALSE(run_page().mmio.is_write);
	run_page().mmio.data[0] = 0xcd;
	run_page().mmio.data[1] = 0xab;
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
	EXPECT_EQ(regs().rax, 0xabcdu);
	EXPECT_EQ(regs().rip, 0x1005u);
}

/* What an exit leaves unread of the guest's state is there for whoever needs it. */
class MmioInLongMode : public Run
{
protected:
	static constexpr u64 code64 = 0xa09b, code32 = 0xc09b, data = 0xc093, user_data = 0xc0f3;

	MmioInLongMode()
	{
		/* 2 MiB of the first: all user's, to be read and written. */
		put_entry(0x4000, 0x5007);
		put_entry(0x5000, 0x6007);
		put_entry(0x6000, 0x87);
		EXPECT_EQ(set_memory(vm, 0, 0, 0, 0), 0);
		EXPECT_EQ(set_memory(vm, 0, 0, 0x8000, reinterpret_cast<u64>(ram)), 0);
		kvm_sregs sregs{};
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
		sregs.cr0 = cr0::pg | cr0::ne | cr0::pe;
		sregs.cr3 = 0x4000;
		sregs.cr4 = cr4::pae;
		sregs.efer = efer::lme | efer::lma;
		sregs.cs.l = sregs.cs.present = sregs.cs.s = sregs.cs.g = 1;
		sregs.cs.type = 0xb;
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SREGS, sregs), 0);
		kvm_regs r = regs();
		r.rax = 0x1234;
		r.rbx = 0xc000;
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, r), 0);
	}
	void put_entry(u64 at, u64 entry) { std::memcpy(ram + at, &entry, 8); }
	static void put_segment(Vmcs &vmcs, Seg seg, u64 selector, u64 base, u64 rights)
	{
		unsigned i = static_cast<unsigned>(seg);

		vmcs.fields[segment_field(field::guest_es_selector, i)] = selector;
		vmcs.fields[segment_field(field::guest_es_base, i)] = base;
		vmcs.fields[segment_field(field::guest_es_limit, i)] = 0xffffffff;
		vmcs.fields[segment_field(field::guest_es_access_rights, i)] = rights;
	}
	/* The guest has loaded its segments, CS with @code, and then meets a device. */
	static Step touches_from(u64 code, u64 stack, u64 guest_phys, u64 qualification)
	{
		return [=](Vmcs &vmcs, u64 *gprs) {
			put_segment(vmcs, Seg::cs, 0x10, 0, code);
			put_segment(vmcs, Seg::ss, 0x18, 0, stack);
			put_segment(vmcs, Seg::ds, 0x20, 0x1000, data);
			put_segment(vmcs, Seg::es, 0x28, 0x2000, data);
			put_segment(vmcs, Seg::fs, 0x30, 0x800, data);
			put_segment(vmcs, Seg::gs, 0x38, 0x1800, data);
			put_segment(vmcs, Seg::ldtr, 0x40, 0x3000, 0x82);
			put_segment(vmcs, Seg::tr, 0x48, 0x3100, 0x8b);
			touches(guest_phys, true)(vmcs, gprs);
			vmcs.fields[field::exit_qualification.encoding] = qualification;
			return false;
		};
	}
	void expect_write(u64 address)
	{
		EXPECT_EQ(run(), 0);
		EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_MMIO});
		EXPECT_TRUE(run_page().mmio.is_write);
		EXPECT_EQ(run_page().mmio.phys_addr, address);
	}
	/* Whatever was read for the instruction. */
	void expect_all_segments()
	{
		kvm_sregs sregs{};

		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
		EXPECT_EQ(sregs.cs.selector, 0x10);
		EXPECT_EQ(sregs.ss.selector, 0x18);
		EXPECT_EQ(sregs.ds.base, 0x1000u);
		EXPECT_EQ(sregs.es.base, 0x2000u);
		EXPECT_EQ(sregs.es.limit, 0xffffffffu);
		EXPECT_EQ(sregs.fs.selector, 0x30);
		EXPECT_EQ(sregs.gs.base, 0x1800u);
		EXPECT_EQ(sregs.ldt.base, 0x3000u);
		EXPECT_EQ(sregs.tr.selector, 0x48);
		EXPECT_EQ(sregs.tr.base, 0x3100u);
	}
};

TEST_F(MmioInLongMode, base_of_fs_and_gs)
{
	for (u64 qualification : {u64{0x182}, u64{0x18a}}) {
		kvm_regs r = regs();
		r.rip = 0x1000;
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, r), 0);
		std::memcpy(ram + 0x1000, "\x65\x89\x03", 3); /* mov %eax, %gs:(%rbx) */
		guest({touches_from(code64, data, 0xd800, qualification), halts()});
		expect_write(0xd800);
		expect_all_segments();
		EXPECT_EQ(run(), 0);
		r.rip = 0x1000;
		EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, r), 0);
		std::memcpy(ram + 0x1000, "\x64\x89\x03", 3); /* mov %eax, %fs:(%rbx) */
		guest({touches_from(code64, data, 0xc800, qualification), halts()});
		expect_write(0xc800);
		EXPECT_EQ(run(), 0);
	}
}

TEST_F(MmioInLongMode, segments_of_compatibility_mode)
{
	std::memcpy(ram + 0x1000, "\x89\x03\x26\x89\x03", 5); /* mov %eax, (%ebx); %es:(%ebx) */
	guest({touches_from(code32, data, 0xd000, 0x182), touches_from(code32, data, 0xe000, 0x18a),
	       halts()});
	expect_write(0xd000);
	expect_all_segments();
	expect_write(0xe000);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(regs().rip, 0x1006u);
}

TEST_F(MmioInLongMode, privilege_level)
{
	/* The last page is the supervisor's. */
	put_entry(0x6000, 0x7007);
	put_entry(0x7008, 0x1007);
	put_entry(0x7060, 0xc003);
	std::memcpy(ram + 0x1000, "\x89\x43\xff", 3); /* mov %eax, -1(%rbx) */
	put_entry(0x7058, 0xb007);
	guest({touches_from(code64, user_data, 0xbfff, 0x182), [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding],
				 0x80000b0eu);
		       EXPECT_EQ(vmcs.fields[field::vm_entry_exception_error_code.encoding], 7u);
		       return halts()(vmcs, gprs);
	       }});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_HLT});
	kvm_regs r = regs();
	r.rip = 0x1000;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_REGS, r), 0);
	guest({touches_from(code64, data, 0xbfff, 0x182), halts()});
	expect_write(0xbfff);
	EXPECT_EQ(run(), 0);
}

/* The CPU has them in its VMCS while PAE paging is on. */
TEST_F(MmioInLongMode, pdptes)
{
	kvm_sregs2 sregs{};
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS2, sregs), 0);
	EXPECT_EQ(sregs.flags, 0u);
	sregs.efer = 0;
	sregs.cs.l = 0;
	sregs.cs.db = 1;
	sregs.cr3 = 0x3000;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SREGS2, sregs), 0);
	std::memcpy(ram + 0x1000, "\x89\x03", 2); /* mov %eax, (%ebx) */
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::guest_pdpte0.encoding], 0u);
		       touches_from(code32, data, 0xd000, 0x182)(vmcs, gprs);
		       vmcs.fields[field::guest_pdpte0.encoding] = 0x6001;
		       vmcs.fields[field::guest_pdpte3.encoding] = 0x7001;
		       return false;
	       },
	       halts()});
	expect_write(0xd000);
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS2, sregs), 0);
	EXPECT_EQ(sregs.flags, u64{KVM_SREGS2_FLAGS_PDPTRS_VALID});
	EXPECT_EQ(sregs.pdptrs[0], 0x6001u);
	EXPECT_EQ(sregs.pdptrs[3], 0x7001u);
	EXPECT_EQ(run(), 0);
}

TEST_F(Run, port_in)
{
	guest({exits(ExitReason::io_instruction, 0x03f80008, 1), halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_IO});
	EXPECT_EQ(run_page().io.direction, KVM_EXIT_IO_IN);
	EXPECT_EQ(run_page().io.port, 0x3f8);
	EXPECT_EQ(run_page().io.size, 1);
	EXPECT_EQ(run_page().io.count, 1u);
	EXPECT_EQ(run_page().io.data_offset, page_size);
	*port_data(vcpu) = 0x5a;
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(regs().rax & 0xff, 0x5au);
	EXPECT_EQ(regs().rip, 0x1002u);
}

TEST_F(Run, signal_before_and_immediate_exit)
{
	guest({});
	set_signal_pending(true);
	EXPECT_EQ(run(), -EINTR);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_INTR});
	set_signal_pending(false);
	run_page().immediate_exit = 1;
	EXPECT_EQ(run(), -EINTR);
	run_page().immediate_exit = 0;
	EXPECT_EQ(entries, 0u);
}

TEST_F(Run, immediate_exit_completes_what_user_space_did)
{
	guest({exits(ExitReason::io_instruction, 0x03f80008, 1)});
	EXPECT_EQ(run(), 0);
	*port_data(vcpu) = 0x5a;
	run_page().immediate_exit = 1;
	EXPECT_EQ(run(), -EINTR);
	EXPECT_EQ(regs().rax & 0xff, 0x5au);
	EXPECT_EQ(regs().rip, 0x1001u);
}

TEST_F(Run, reschedule_before_the_entry)
{
	guest({halts()});
	set_need_resched(true);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(entries, 1u);
}

TEST_F(Run, exits_that_need_nothing_of_linux_do_not_hold_back_a_signal)
{
	guest({exits(ExitReason::cpuid, 0, 2),
	       [](Vmcs &vmcs, u64 *gprs) {
		       set_signal_pending(true);
		       return exits(ExitReason::cpuid, 0, 2)(vmcs, gprs);
	       },
	       halts()});
	EXPECT_EQ(run(), -EINTR);
	EXPECT_EQ(entries, 2u);
	EXPECT_EQ(regs().rip, 0x1004u) << "and both are done";
	set_signal_pending(false);
}

TEST_F(Run, bad_shared_page)
{
	guest({});
	run_page().cr8 = 16;
	EXPECT_EQ(run(), -EINVAL);
	run_page().cr8 = 0;
	run_page().kvm_valid_regs = 1;
	EXPECT_EQ(run(), -EINVAL);
	run_page().kvm_valid_regs = 0;
}

TEST_F(Run, shared_page_follows)
{
	guest({[](Vmcs &vmcs, u64 *gprs) {
		vmcs.fields[field::guest_rflags.encoding] |= rflags::if_;
		return halts()(vmcs, gprs);
	}});
	EXPECT_EQ(run(), 0);
	EXPECT_TRUE(run_page().if_flag);
	EXPECT_EQ(run_page().apic_base, 0xfee00900u);
	EXPECT_TRUE(run_page().ready_for_interrupt_injection);
}

TEST_F(Run, interrupt_and_its_window)
{
	constexpr u32 window = primary::interrupt_window_exiting;
	auto controls = [](Vmcs &vmcs) {
		return vmcs.fields[field::primary_processor_based_controls.encoding];
	};

	guest({[&](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_TRUE(controls(vmcs) & window);
		       vmcs.fields[field::guest_rflags.encoding] |= rflags::if_;
		       return exits(ExitReason::interrupt_window)(vmcs, gprs);
	       },
	       [&](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_FALSE(controls(vmcs) & window);
		       EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding],
				 0x80000031u);
		       return halts()(vmcs, gprs);
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding] >> 31, 0u);
		       return halts()(vmcs, gprs);
	       }});
	run_page().request_interrupt_window = 1;
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_IRQ_WINDOW_OPEN});
	EXPECT_TRUE(run_page().ready_for_interrupt_injection);
	run_page().request_interrupt_window = 0;
	kvm_interrupt interrupt{.irq = 0x31};
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_INTERRUPT, interrupt), 0);
	interrupt.irq = 256;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_INTERRUPT, interrupt), -EINVAL);
	EXPECT_EQ(run(), 0);
	/* The model takes out what an entry has delivered only where an entry was. */
	vmcs_at(processor(0).current).fields[field::vm_entry_interruption_info.encoding] = 0;
	EXPECT_EQ(run(), 0);
}

TEST_F(Run, step_over_an_emulated_instruction)
{
	guest({exits(ExitReason::io_instruction, 0x03f80000, 1)});
	kvm_guest_debug debug{
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP, .pad = 0, .arch = {}};
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_GUEST_DEBUG, debug), 0);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_IO});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_DEBUG});
	EXPECT_EQ(run_page().debug.arch.pc, 0x1001u);
	EXPECT_EQ(run_page().debug.arch.exception, 1u);
	EXPECT_EQ(run_page().debug.arch.dr6, dr6::fixed | dr6::bs);
	EXPECT_FALSE(regs().rflags & rflags::tf);
}

TEST_F(Run, breakpoints_are_the_vmms_while_it_debugs)
{
	constexpr u32 breakpoint = 1 << 3;
	auto bitmap = [](Vmcs &vmcs) { return vmcs.fields[field::exception_bitmap.encoding]; };

	guest({[&](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_TRUE(bitmap(vmcs) & breakpoint);
		       return halts()(vmcs, gprs);
	       },
	       [&](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_FALSE(bitmap(vmcs) & breakpoint);
		       return halts()(vmcs, gprs);
	       }});
	kvm_guest_debug debug{
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP, .pad = 0, .arch = {}};
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_GUEST_DEBUG, debug), 0);
	EXPECT_EQ(run(), 0);
	debug.control = 0;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_GUEST_DEBUG, debug), 0);
	EXPECT_EQ(run(), 0);
}

TEST_F(Run, signal_mask_is_that_of_a_run)
{
	struct {
		u32 length;
		u8 set[8];
	} mask{.length = 4, .set = {0x11, 0, 0, 0, 0, 0, 0, 0x80}};

	guest({[](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(entered_signal_mask(), 0x8000000000000011u);
		       return halts()(vmcs, gprs);
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_FALSE(entered_signal_mask());
		       return halts()(vmcs, gprs);
	       }});
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SIGNAL_MASK, mask), -EINVAL);
	mask.length = 8;
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SIGNAL_MASK, mask), 0);
	EXPECT_EQ(run(), 0);
	EXPECT_FALSE(entered_signal_mask());
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_SET_SIGNAL_MASK, 0ul), 0);
	EXPECT_EQ(run(), 0);
}

TEST_F(Run, invalid_guest_state)
{
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       exits(ExitReason::invalid_guest_state)(vmcs, gprs);
		       vmcs.fields[field::exit_reason.encoding] |= u32{1} << 31;
		       return false;
	       },
	       halts()});
	migrate_to(2);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_FAIL_ENTRY});
	EXPECT_EQ(run_page().fail_entry.hardware_entry_failure_reason, 0x80000021u);
	EXPECT_EQ(run_page().fail_entry.cpu, 2u);
	EXPECT_EQ(run(), 0) << "and it can be tried again: VMLAUNCH still";
}

TEST_F(Run, vmfail_names_error_and_cpu)
{
	guest({[](Vmcs &vmcs, u64 *) {
		vmcs.fields[field::vm_instruction_error.encoding] = 7;
		return true;
	}});
	migrate_to(2);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(run_page().exit_reason, u32{KVM_EXIT_FAIL_ENTRY});
	EXPECT_EQ(run_page().fail_entry.hardware_entry_failure_reason, 7u);
	EXPECT_EQ(run_page().fail_entry.cpu, 2u);
}

TEST_F(Run, vmfail_is_no_exit)
{
	guest({[](Vmcs &vmcs, u64 *) {
		vmcs.fields[field::vm_instruction_error.encoding] = 7;
		return true;
	}});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(exits_counted(), 0u);
}

TEST_F(Run, exits_are_counted)
{
	guest({exits(ExitReason::cpuid, 0, 2), halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(exits_counted(), 2u);
}

TEST_F(Run, field_that_the_cpu_lacks)
{
	guest({});
	missing_fields().insert(field::guest_pdpte0.encoding);
	EXPECT_EQ(run(), -EIO);
	EXPECT_EQ(take_log().size(), 1u);
}

TEST_F(Run, exception_is_injected_once)
{
	guest({exits(ExitReason::rdpmc, 0, 2),
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding],
				 0x8000030du);
		       EXPECT_EQ(vmcs.fields[field::guest_rip.encoding], 0x1000u);
		       return exits(ExitReason::external_interrupt)(vmcs, gprs);
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(vmcs.fields[field::vm_entry_interruption_info.encoding] >> 31, 0u);
		       return halts()(vmcs, gprs);
	       }});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(entries, 3u);
}

/* A failed entry leaves the event in the VMCS; user space drops it with KVM_SET_REGS. */
TEST_F(Run, exception_dropped_after_a_failed_entry_is_not_delivered)
{
	expect_dropped_after([](Vmcs &vmcs, u64 *gprs) {
		exits(ExitReason::invalid_guest_state)(vmcs, gprs);
		vmcs.fields[field::exit_reason.encoding] |= u32{1} << 31;
		return false;
	});
}

/* The same of VMLAUNCH or VMRESUME that fails, perhaps because of that very event. */
TEST_F(Run, exception_dropped_after_a_vmfail_is_not_delivered)
{
	expect_dropped_after([](Vmcs &vmcs, u64 *) {
		vmcs.fields[field::vm_instruction_error.encoding] = 7;
		return true;
	});
}

TEST_F(Run, nmi_of_the_host_goes_to_linux)
{
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       exits(ExitReason::exception_or_nmi)(vmcs, gprs);
		       vmcs.fields[field::vm_exit_interruption_info.encoding] = 0x80000202;
		       return false;
	       },
	       halts()});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(nmis_delivered(), 1u);
}

TEST_F(Run, guests_msrs_are_in_the_cpu_only_while_it_runs)
{
	u64 host_lstar = processor(0).msrs[msr::lstar], host_aux = processor(0).msrs[msr::tsc_aux];
	auto write = [](u32 index, u64 value) {
		return [=](Vmcs &vmcs, u64 *gprs) {
			gprs[rcx] = index;
			gprs[rax] = static_cast<u32>(value);
			gprs[rdx] = value >> 32;
			return exits(ExitReason::wrmsr, 0, 2)(vmcs, gprs);
		};
	};

	guest({write(msr::lstar, 0x123456789), write(msr::tsc_aux, 42), write(msr::efer, efer::sce),
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(here().msrs[msr::lstar], 0x123456789u);
		       EXPECT_EQ(here().msrs[msr::tsc_aux], 42u);
		       here().msrs[msr::kernel_gs_base] = 0x6b; /* the guest's own */
		       reschedule_to(this_cpu());
		       (void)take_violations(); /* interrupts are off in the guest; the test knows */
		       return halts()(vmcs, gprs);
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(here().msrs[msr::lstar], 0x123456789u);
		       EXPECT_EQ(here().msrs[msr::kernel_gs_base], 0x6bu);
		       return halts()(vmcs, gprs);
	       }});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(processor(0).msrs[msr::lstar], host_lstar);
	EXPECT_EQ(processor(0).msrs[msr::tsc_aux], host_aux);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(processor(0).msrs[msr::lstar], host_lstar);
}

TEST_F(Run, cr2_and_xcr0_are_the_guests_while_it_runs)
{
	guest({[](Vmcs &vmcs, u64 *gprs) {
		       here().cr2 = 0x4711;
		       gprs[rcx] = 0;
		       gprs[rax] = 3;
		       gprs[rdx] = 0;
		       return exits(ExitReason::xsetbv, 0, 3)(vmcs, gprs);
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       gprs[rax] = cr4::osxsave;
		       return exits(ExitReason::control_register_access, 4, 3)(vmcs, gprs);
	       },
	       [](Vmcs &vmcs, u64 *gprs) {
		       EXPECT_EQ(here().cr2, 0x4711u);
		       EXPECT_EQ(here().xcr0, 3u);
		       return halts()(vmcs, gprs);
	       }});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(processor(0).xcr0, 7u);
}

/* CPUs that change under it */

TEST_F(Run, scheduled_away_between_entries)
{
	unsigned rounds = 0;

	/* Interrupts come after every exit; the scheduler moves the thread when one does. */
	set_guest([&](Vmcs &vmcs, u64 *gprs) {
		rounds++;
		return (rounds < 12 ? touches(0x1000 * (rounds % 16), true) : halts())(vmcs, gprs);
	});
	on_user_page_get([&] { reschedule_to(static_cast<int>(rounds % cpu_count)); });
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(rounds, 12u);
	unsigned active = 0;
	for (int cpu = 0; cpu < cpu_count; cpu++)
		active += active_vmcss(cpu);
	EXPECT_EQ(active, 1u);
}

TEST_F(Run, its_cpu_goes_offline_and_comes_back)
{
	guest({halts(), halts(), halts()});
	migrate_to(3);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(active_vmcss(3), 1u);
	take_offline(3);
	EXPECT_EQ(active_vmcss(3), 0u);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(bring_online(3), 0);
	migrate_to(3);
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(active_vmcss(3), 1u);
	EXPECT_EQ(regs().rip, 0x1003u);
}

TEST_F(Run, cpu_on_its_way_out_is_waited_for)
{
	guest({halts()});
	migrate_to(2);
	/* VMX is off here already, the thread not yet moved. */
	interrupt(2, [] { kvmpp_cpu_offline(2); });
	on_wait([] {
		if (ticks_waited() == 3)
			migrate_to(1);
	});
	EXPECT_EQ(run(), 0);
	EXPECT_EQ(ticks_waited(), 3u);
	EXPECT_EQ(active_vmcss(1), 1u);
	EXPECT_EQ(regs().rip, 0x1001u);
	EXPECT_EQ(bring_online(2), 0);
}

TEST_F(Run, signal_ends_the_wait_for_a_cpu)
{
	guest({});
	migrate_to(1);
	interrupt(1, [] { kvmpp_cpu_offline(1); });
	on_wait([] { set_signal_pending(true); });
	EXPECT_EQ(run(), -EINTR);
	set_signal_pending(false);
	EXPECT_EQ(bring_online(1), 0);
}

TEST_F(Run, registers_are_fetched_from_afar)
{
	guest({halts()});
	migrate_to(1);
	EXPECT_EQ(run(), 0);
	migrate_to(2);
	EXPECT_EQ(regs().rip, 0x1001u);
	kvm_sregs sregs{};
	EXPECT_EQ(vcpu_ioctl(vcpu, KVM_GET_SREGS, sregs), 0);
	EXPECT_EQ(active_vmcss(1) + active_vmcss(2), 1u);
}

TEST_F(Run, closed_from_another_cpu)
{
	guest({halts()});
	migrate_to(1);
	EXPECT_EQ(run(), 0);
	migrate_to(2);
	close_fd(vcpu);
	vcpu = -1;
	EXPECT_EQ(active_vmcss(1), 0u);
}

TEST_F(Run, two_vcpus_share_a_cpu)
{
	int other = create_vcpu(vm, 1);

	guest({halts(), halts(), halts(), halts()});
	for (int round = 0; round < 2; round++) {
		EXPECT_EQ(run(), 0);
		EXPECT_EQ(vcpu_ioctl(other, KVM_RUN, 0ul), 0);
	}
	EXPECT_EQ(active_vmcss(0), 2u);
	EXPECT_NE(vmcs_at(processor(0).current).fields[field::vpid.encoding], 0u);
	close_fd(other);
	EXPECT_EQ(active_vmcss(0), 1u);
}

TEST_F(RunNotExclusive, vmx_is_off_outside_kvm_run)
{
	expect_vmx_off();
	guest({exits(ExitReason::cpuid, 0, 2), halts()});
	EXPECT_EQ(run(), 0);
	expect_vmx_off();
	EXPECT_EQ(get_sregs(), 0);
	expect_vmx_off();
	EXPECT_EQ(VmxCpu::of({0}).enables(), 2u) << "for KVM_RUN and for KVM_GET_SREGS";
}

TEST_F(RunNotExclusive, another_hypervisor_has_the_cpu)
{
	guest({halts(), halts()});
	EXPECT_EQ(run(), 0);
	processor(0).vmxe = true;
	EXPECT_EQ(run(), -EBUSY);
	EXPECT_EQ(get_sregs(), -EBUSY);
	EXPECT_TRUE(processor(0).vmxe);
	processor(0).vmxe = false;
	EXPECT_EQ(get_sregs(), 0);
	EXPECT_EQ(run(), 0);
	expect_vmx_off();
}

TEST_F(RunNotExclusive, vmcs_that_cannot_be_loaded)
{
	guest({halts()});
	EXPECT_EQ(run(), 0);
	processor(0).fail_vmptrld = true;
	EXPECT_EQ(get_sregs(), -EIO);
	expect_vmx_off();
	processor(0).fail_vmptrld = true;
	EXPECT_EQ(run(), -EIO);
	expect_vmx_off();
}
