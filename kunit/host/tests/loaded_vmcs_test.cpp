// SPDX-License-Identifier: GPL-2.0
/* Loaded VMCSs over the coming and going of CPUs, vCPUs and VMX, and in a crash. */
#include "arch/x86/vmcs_pool.hpp"
#include "arch/x86/x86.hpp"
#include "vmx_cpu_fixture.hpp"

#include <linux_glue/x86.h>

#include <memory>
#include <optional>
#include <sys/wait.h>
#include <unistd.h>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class LoadedVmcsTest : public VmxCpuTest
{
protected:
	/* And the thread is on CPU 0 again. */
	void load_on_cpu_1(LoadedVmcs &vmcs)
	{
		enable_all();
		ASSERT_TRUE(vmcs.create(config.revision, {}));
		migrate_to(1);
		EXPECT_EQ(load(vmcs), ok);
		migrate_to(0);
	}
};

} // namespace

TEST_F(LoadedVmcsTest, load_makes_it_active_here)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_TRUE(vmcs.cpu().is_none());
	EXPECT_EQ(load(vmcs), ok);
	EXPECT_EQ(vmcs.cpu(), CpuId{0});
	EXPECT_EQ(active_vmcss(0), 1u);
	EXPECT_EQ(VmxCpu::of({0}).loaded(), 1u);
	EXPECT_EQ(load(vmcs), ok) << "again";
	EXPECT_EQ(VmxCpu::of({0}).loaded(), 1u);
}

TEST_F(LoadedVmcsTest, several_on_one_cpu_take_turns)
{
	enable_all();
	LoadedVmcs a, b;
	ASSERT_TRUE(a.create(config.revision, {}));
	ASSERT_TRUE(b.create(config.revision, {}));
	EXPECT_EQ(load(a), ok);
	u64 current_a = processor(0).current;
	EXPECT_EQ(load(b), ok);
	EXPECT_NE(processor(0).current, current_a);
	EXPECT_EQ(active_vmcss(0), 2u);
	EXPECT_EQ(load(a), ok);
	EXPECT_EQ(processor(0).current, current_a);
	EXPECT_EQ(VmxCpu::of({0}).loaded(), 2u);
}

TEST_F(LoadedVmcsTest, what_one_taught_the_branch_predictor_is_not_for_the_next)
{
	enable_all();
	LoadedVmcs a, b;
	ASSERT_TRUE(a.create(config.revision, {}));
	ASSERT_TRUE(b.create(config.revision, {}));
	EXPECT_EQ(load(a), ok);
	EXPECT_EQ(branch_predictor_barriers(), 1u);
	EXPECT_EQ(load(a), ok);
	EXPECT_EQ(branch_predictor_barriers(), 1u) << "nobody else was there";
	EXPECT_EQ(load(b), ok);
	EXPECT_EQ(load(a), ok);
	EXPECT_EQ(branch_predictor_barriers(), 3u);
	migrate_to(1);
	EXPECT_EQ(load(b), ok);
	migrate_to(0);
	EXPECT_EQ(load(a), ok);
	EXPECT_EQ(branch_predictor_barriers(), 4u) << "b was only on CPU 1 since";
}

TEST_F(LoadedVmcsTest, move_clears_on_the_cpu_that_has_it)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	for (int round = 0; round < 3; round++) {
		for (int cpu = 0; cpu < cpu_count; cpu++) {
			migrate_to(cpu);
			EXPECT_EQ(load(vmcs), ok);
			EXPECT_EQ(vmcs.cpu().value, cpu);
			EXPECT_EQ(active_vmcss(cpu), 1u);
		}
	}
	EXPECT_EQ(clears(0, ClearCause::move), 3u);
	EXPECT_EQ(clears(3, ClearCause::move), 2u);
	EXPECT_EQ(clears(0, ClearCause::free), 0u);
}

TEST_F(LoadedVmcsTest, load_where_it_is_elsewhere_is_refused)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_EQ(load(vmcs), ok);
	migrate_to(1);
	EXPECT_EQ(load_only(vmcs), Errno::again);
	EXPECT_EQ(active_vmcss(0), 1u);
	EXPECT_EQ(active_vmcss(1), 0u);
}

TEST_F(LoadedVmcsTest, load_without_vmx_operation_is_refused)
{
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_EQ(load(vmcs), Errno::again);
	EXPECT_EQ(enable(0), ok);
	EXPECT_EQ(load(vmcs), ok);
}

TEST_F(LoadedVmcsTest, free_clears_from_afar)
{
	enable_all();
	{
		LoadedVmcs vmcs;
		ASSERT_TRUE(vmcs.create(config.revision, {}));
		migrate_to(2);
		EXPECT_EQ(load(vmcs), ok);
		migrate_to(0);
	}
	EXPECT_EQ(active_vmcss(2), 0u);
	EXPECT_EQ(clears(2, ClearCause::free), 1u);
	EXPECT_EQ(VmxCpu::of({2}).loaded(), 0u);
}

TEST_F(LoadedVmcsTest, free_of_one_never_loaded_or_never_made)
{
	enable_all();
	{
		LoadedVmcs made, not_made;
		ASSERT_TRUE(made.create(config.revision, {}));
	}
	EXPECT_EQ(ipis_sent(), 0u);
}

TEST_F(LoadedVmcsTest, off_sweeps_all)
{
	enable_all();
	LoadedVmcs vmcs[5];
	migrate_to(1);
	for (LoadedVmcs &v : vmcs) {
		ASSERT_TRUE(v.create(config.revision, {}));
		EXPECT_EQ(load(v), ok);
	}
	migrate_to(0);
	disable(1);
	EXPECT_EQ(clears(1, ClearCause::offline), 5u);
	EXPECT_EQ(VmxCpu::of({1}).loaded(), 0u);
	for (LoadedVmcs &v : vmcs) {
		EXPECT_TRUE(v.cpu().is_none());
		EXPECT_EQ(load(v), ok) << "they go on elsewhere";
	}
	EXPECT_EQ(ipis_sent(), 0u);
}

TEST_F(LoadedVmcsTest, on_again_on_the_same_cpu)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_EQ(load(vmcs), ok);
	disable(0);
	EXPECT_EQ(enable(0), ok);
	EXPECT_EQ(load(vmcs), ok);
	IrqOff irq;
	Result<ActiveVmcs> active = vmcs.load(irq);
	ASSERT_TRUE(active);
	active->write(field::guest_rip, 0x1234);
	EXPECT_EQ(active->read(field::guest_rip), 0x1234u);
	EXPECT_TRUE(active->ok());
}

TEST_F(LoadedVmcsTest, contents_survive_a_move)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	{
		IrqOff irq;
		Result<ActiveVmcs> active = vmcs.load(irq);
		active->write(field::guest_rip, 0x1234);
		active->set_launched();
		EXPECT_TRUE(active->launched());
	}
	migrate_to(1);
	EXPECT_EQ(load(vmcs), ok);
	IrqOff irq;
	Result<ActiveVmcs> active = vmcs.load(irq);
	EXPECT_EQ(active->read(field::guest_rip), 0x1234u);
	EXPECT_FALSE(active->launched()) << "VMCLEAR made it \"clear\": VMLAUNCH is next";
}

TEST_F(LoadedVmcsTest, swept_while_the_ipi_was_on_its_way)
{
	LoadedVmcs vmcs;
	load_on_cpu_1(vmcs);
	before_next_ipi([&] { disable(1); });
	vmcs.clear(ClearCause::move);
	EXPECT_EQ(clears(1, ClearCause::offline), 1u);
	EXPECT_EQ(clears(1, ClearCause::move), 0u) << "whoever comes late does nothing";
	EXPECT_EQ(load(vmcs), ok);
}

TEST_F(LoadedVmcsTest, moved_while_the_ipi_was_on_its_way)
{
	LoadedVmcs vmcs;
	load_on_cpu_1(vmcs);
	before_next_ipi([&] {
		/* Its thread moves it to CPU 2 in between. */
		migrate_to(2);
		EXPECT_EQ(load(vmcs), ok);
		migrate_to(0);
	});
	vmcs.clear(ClearCause::free);
	EXPECT_EQ(vmcs.cpu(), CpuId{2}) << "as clear() says: unless somebody loaded it meanwhile";
	EXPECT_EQ(active_vmcss(2), 1u);
	EXPECT_EQ(clears(1, ClearCause::move), 1u);
	EXPECT_EQ(clears(1, ClearCause::free), 0u);
}

TEST_F(LoadedVmcsTest, cpu_went_offline_while_the_ipi_was_on_its_way)
{
	enable_all();
	auto vmcs = std::make_unique<LoadedVmcs>();
	ASSERT_TRUE(vmcs->create(config.revision, {}));
	migrate_to(3);
	EXPECT_EQ(load(*vmcs), ok);
	migrate_to(0);
	before_next_ipi([&] {
		disable(3);
		take_offline(3);
	});
	vmcs.reset();
	EXPECT_EQ(clears(3, ClearCause::offline), 1u);
	EXPECT_EQ(clears(3, ClearCause::free), 0u);
}

TEST_F(LoadedVmcsTest, new_one_at_the_address_of_a_freed_one)
{
	enable_all();
	std::optional<LoadedVmcs> vmcs;
	for (int round = 0; round < 4; round++) {
		vmcs.emplace();
		ASSERT_TRUE(vmcs->create(config.revision, {}));
		migrate_to(0);
		EXPECT_EQ(load(*vmcs), ok);
		EXPECT_NE(processor(0).current, Processor::no_vmcs)
			<< "it is loaded, whatever was there before";
		{
			IrqOff irq;
			Result<ActiveVmcs> active = vmcs->load(irq);
			active->write(field::guest_rip, 1);
			EXPECT_TRUE(active->ok());
			EXPECT_FALSE(active->launched());
		}
		migrate_to(1 + round % 3);
		vmcs.reset();
	}
}

TEST_F(LoadedVmcsTest, freed_in_any_order_from_any_cpu)
{
	enable_all();
	std::unique_ptr<LoadedVmcs> pool[cpu_count];
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		migrate_to(cpu);
		pool[cpu] = std::make_unique<LoadedVmcs>();
		ASSERT_TRUE(pool[cpu]->create(config.revision, {}));
		EXPECT_EQ(load(*pool[cpu]), ok);
	}
	disable(2);
	migrate_to(1);
	for (int cpu : {3, 0, 2, 1})
		pool[cpu].reset();
	for (int cpu = 0; cpu < cpu_count; cpu++)
		EXPECT_EQ(active_vmcss(cpu), 0u);
}

TEST_F(LoadedVmcsTest, failing_instructions_are_errors)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	processor(0).fail_vmclear = true;
	EXPECT_EQ(load(vmcs), Errno::io);
	EXPECT_TRUE(vmcs.cpu().is_none());
	processor(0).fail_vmptrld = true;
	EXPECT_EQ(load(vmcs), Errno::io);
	EXPECT_EQ(vmcs.cpu(), CpuId{0}) << "it may be active here: to be cleared";
	EXPECT_EQ(VmxCpu::of({0}).loaded(), 1u);
	EXPECT_EQ(load(vmcs), ok);
}

TEST_F(LoadedVmcsTest, wrong_revision_is_an_error)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision + 1, {}));
	EXPECT_EQ(load(vmcs), Errno::io);
}

TEST_F(LoadedVmcsTest, no_memory)
{
	LoadedVmcs vmcs;

	fail_allocation_after(0);
	Result<> r = vmcs.create(config.revision, {});
	ASSERT_FALSE(r);
	EXPECT_EQ(r.error(), Errno::nomem);
}

TEST_F(LoadedVmcsTest, failed_access_is_remembered_and_logged)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	missing_fields().insert(field::guest_ia32_pat.encoding);
	IrqOff irq;
	Result<ActiveVmcs> active = vmcs.load(irq);
	active->write(field::guest_ia32_pat, 1);
	active->write(field::guest_rip, 1);
	EXPECT_EQ(active->read(field::guest_ia32_pat), 0u);
	Result<> r = active->ok();
	ASSERT_FALSE(r);
	EXPECT_EQ(r.error(), Errno::io);
	std::vector<std::string> log = take_log();
	ASSERT_EQ(log.size(), 1u);
	EXPECT_NE(log[0].find("0x2804"), std::string::npos);
}

TEST_F(LoadedVmcsTest, vpid_is_a_field_too)
{
	/* Its encoding is 0: a failed access to it must count as well. */
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	missing_fields().insert(field::vpid.encoding);
	IrqOff irq;
	Result<ActiveVmcs> active = vmcs.load(irq);
	active->write(field::vpid, 1);
	EXPECT_FALSE(active->ok());
	(void)take_log();
}

/* Several VMCSs of one vCPU */

TEST_F(LoadedVmcsTest, pool_with_each_on_another_cpu)
{
	enable_all();
	VmcsPool pool;
	unsigned index[VmcsPool::capacity];
	for (unsigned &i : index) {
		Result<unsigned> added = pool.add(config.revision, {});
		ASSERT_TRUE(added);
		i = *added;
	}
	Result<unsigned> full = pool.add(config.revision, {});
	ASSERT_FALSE(full);
	EXPECT_EQ(full.error(), Errno::busy);
	for (int cpu = 0; cpu < cpu_count; cpu++) {
		migrate_to(cpu);
		pool.make_current(index[cpu]);
		EXPECT_EQ(load(pool.current()), ok);
	}
	for (int cpu = 0; cpu < cpu_count; cpu++)
		EXPECT_EQ(active_vmcss(cpu), 1u);
	/* One CPU goes; the others' are freed in another order than they came. */
	migrate_to(0);
	disable(1);
	pool.make_current(index[0]);
	for (int i : {3, 1, 2})
		pool.remove(index[i]);
	EXPECT_EQ(active_vmcss(0), 1u);
	for (int cpu = 1; cpu < cpu_count; cpu++)
		EXPECT_EQ(active_vmcss(cpu), 0u);
	Result<unsigned> again = pool.add(config.revision, {});
	ASSERT_TRUE(again) << "there is room again";
	pool.make_current(*again);
	EXPECT_EQ(load(pool.current()), ok);
	EXPECT_EQ(VmxCpu::of({0}).loaded(), 2u);
}

TEST_F(LoadedVmcsTest, pool_without_memory)
{
	VmcsPool pool;

	for (unsigned n = 0; n < 2; n++) {
		fail_allocation_after(n);
		Result<unsigned> r = pool.add(config.revision, {});
		ASSERT_FALSE(r);
		EXPECT_EQ(r.error(), Errno::nomem);
	}
	fail_allocation_after(~0u);
}

/* Not exclusive */

TEST_F(LoadedVmcsTest, not_exclusive_on_while_loaded)
{
	be_not_exclusive();
	EXPECT_FALSE(processor(0).vmx || processor(0).vmxe);
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_EQ(load(vmcs), ok);
	EXPECT_TRUE(processor(0).vmx && processor(0).vmxe && processor(0).pt_knows);
	EXPECT_FALSE(processor(1).vmx);
	{
		IrqOff irq;
		Result<ActiveVmcs> active = vmcs.load(irq);
		active->write(field::guest_rip, 0x1234);
		active->set_launched();
	}
	put();
	EXPECT_EQ(active_vmcss(0), 0u);
	EXPECT_FALSE(processor(0).vmx || processor(0).vmxe || processor(0).pt_knows);
	EXPECT_TRUE(vmcs.cpu().is_none());
	EXPECT_EQ(clears(0, ClearCause::put), 1u);
	migrate_to(1);
	EXPECT_EQ(load(vmcs), ok);
	{
		IrqOff irq;
		Result<ActiveVmcs> active = vmcs.load(irq);
		EXPECT_EQ(active->read(field::guest_rip), 0x1234u);
		EXPECT_FALSE(active->launched()) << "the next entry is a VMLAUNCH";
	}
	put();
	put();
	EXPECT_EQ(ipis_sent(), 0u);
	EXPECT_EQ(VmxCpu::of({1}).enables(), 1u);
	EXPECT_EQ(VmxCpu::of({1}).disables(), 1u);
}

TEST_F(LoadedVmcsTest, not_exclusive_in_turn_with_another)
{
	be_not_exclusive();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	processor(0).vmxe = true;
	EXPECT_EQ(load(vmcs), Errno::busy);
	EXPECT_TRUE(processor(0).vmxe) << "it is still theirs";
	EXPECT_TRUE(vmcs.cpu().is_none());
	processor(0).vmxe = false;
	EXPECT_EQ(load(vmcs), ok);
	put();
	processor(0).fail_vmxon = true;
	EXPECT_EQ(load(vmcs), Errno::io);
	EXPECT_FALSE(processor(0).vmxe);
}

TEST_F(LoadedVmcsTest, not_exclusive_another_hypervisors_guest_had_the_msrs)
{
	u64 linuxs = processor(0).msrs[msr::lstar];

	/* Its guest's value stays in the CPU until its thread returns to user space. */
	processor(0).vmxe = true;
	processor(0).msrs[msr::lstar] = 0x6666;
	be_not_exclusive();
	processor(0).msrs[msr::lstar] = linuxs;
	processor(0).vmxe = false;
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_EQ(load(vmcs), ok);
	VmxCpu::of({0}).restore_host_msrs(true, true);
	EXPECT_EQ(processor(0).msrs[msr::lstar], linuxs);
	put();
}

TEST_F(LoadedVmcsTest, not_exclusive_on_a_cpu_that_goes)
{
	be_not_exclusive();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	disable(0);
	EXPECT_EQ(load(vmcs), Errno::again);
	EXPECT_EQ(enable(0), ok);
	EXPECT_EQ(load(vmcs), ok);
	disable(0);
	EXPECT_FALSE(processor(0).vmx);
	EXPECT_EQ(load(vmcs), Errno::again);
}

TEST_F(LoadedVmcsTest, exclusive_stays_on)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_EQ(load(vmcs), ok);
	put();
	EXPECT_TRUE(processor(0).vmx);
	EXPECT_EQ(active_vmcss(0), 1u);
}

/* The crash hook */

TEST_F(LoadedVmcsTest, crash_clears_all_and_leaves_vmx)
{
	enable_all();
	LoadedVmcs vmcs[3];
	migrate_to(1);
	for (LoadedVmcs &v : vmcs) {
		ASSERT_TRUE(v.create(config.revision, {}));
		EXPECT_EQ(load(v), ok);
	}
	interrupt(1, VmxCpu::crash_here);
	EXPECT_EQ(active_vmcss(1), 0u);
	EXPECT_FALSE(processor(1).vmx || processor(1).vmxe);
	EXPECT_EQ(clears(1, ClearCause::crash), 3u);
	EXPECT_TRUE(processor(0).vmx) << "each CPU has an NMI of its own";
	interrupt(1, VmxCpu::crash_here);
	EXPECT_EQ(clears(1, ClearCause::crash), 3u) << "once more is nothing";
	/* Nothing goes on after a crash; this test's own cleaning up does. */
	interrupt(1, [] {
		EXPECT_EQ(glue_vmxe_set(), 0);
		EXPECT_TRUE(insn::vmxon({here().vmxon_region}));
	});
}

/*
 * The NMIs come before and after each VMX instruction in the life of two VMCSs, each time in a process
 * of its own, which ends there.
 */
TEST_F(LoadedVmcsTest, crash_at_each_vmx_instruction)
{
	enum { clean, left_behind, not_reached };

	auto life = [&](unsigned moment) {
		unsigned moments = 0;

		at_vmx_instructions([&] {
			if (moments++ != moment)
				return;
			at_vmx_instructions(nullptr);
			int status = clean;
			for (int cpu = 0; cpu < cpu_count; cpu++) {
				interrupt(cpu, VmxCpu::crash_here);
				if (active_vmcss(cpu) || processor(cpu).vmx || processor(cpu).vmxe)
					status = left_behind;
			}
			std::_Exit(status);
		});
		enable_all();
		LoadedVmcs a;
		auto b = std::make_unique<LoadedVmcs>();
		EXPECT_TRUE(a.create(config.revision, {}) && b->create(config.revision, {}));
		EXPECT_EQ(load(a), ok);
		EXPECT_EQ(load(*b), ok);
		migrate_to(1);
		EXPECT_EQ(load(a), ok);
		b.reset();
		disable(1);
		EXPECT_EQ(enable(1), ok);
		EXPECT_EQ(load(a), ok);
		std::_Exit(not_reached);
	};
	for (unsigned moment = 0;; moment++) {
		pid_t child = fork();
		if (child == 0)
			life(moment);
		int status;
		ASSERT_EQ(waitpid(child, &status, 0), child);
		ASSERT_TRUE(WIFEXITED(status));
		if (WEXITSTATUS(status) == not_reached) {
			EXPECT_GT(moment, 20u);
			break;
		}
		EXPECT_EQ(WEXITSTATUS(status), clean) << "at moment " << moment;
	}
}

/* The model itself: it must see what it is there for. */

TEST_F(LoadedVmcsTest, model_sees_vmptrld_of_one_active_elsewhere)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_EQ(load(vmcs), ok);
	u64 address = processor(0).current;
	interrupt(1, [&] { EXPECT_TRUE(insn::vmptrld({address})); });
	EXPECT_EQ(take_violations().size(), 1u);
	vmcs_at(address).active_on = 0;
	processor(1).current = Processor::no_vmcs;
}

TEST_F(LoadedVmcsTest, model_sees_vmxoff_with_an_active_vmcs)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_EQ(load(vmcs), ok);
	interrupt(0, [&] { EXPECT_TRUE(insn::vmxoff()); });
	EXPECT_EQ(take_violations().size(), 1u);
	processor(0).vmx = true;
}

TEST_F(LoadedVmcsTest, model_sees_a_vmcs_freed_while_active)
{
	enable_all();
	Page page = Page::create();
	*page.as<u32>() = config.revision;
	u64 address = page.phys().value;
	EXPECT_TRUE(insn::vmclear({address}));
	EXPECT_TRUE(insn::vmptrld({address}));
	page = Page();
	EXPECT_EQ(take_violations().size(), 1u);
}

TEST_F(LoadedVmcsTest, model_sees_an_ipi_waited_for_with_interrupts_off)
{
	enable_all();
	LoadedVmcs vmcs;
	ASSERT_TRUE(vmcs.create(config.revision, {}));
	EXPECT_EQ(load(vmcs), ok);
	migrate_to(1);
	{
		IrqOff irq;
		vmcs.clear(ClearCause::move);
	}
	EXPECT_EQ(take_violations().size(), 1u);
}
