// SPDX-License-Identifier: GPL-2.0
/* Page-modification logging, as the CPU does it and user space sees it. */
#include "vm_fixture.hpp"

#include <algorithm>

using namespace kvmpp;
using namespace kvmpp::host;

namespace
{

class PageLog : public ModuleTest
{
protected:
	static constexpr u64 ram_bytes = 0x40000, first_frame = 0x100;
	static constexpr u64 user = 0x7f0000000000; /* never read */

	PageLog()
	{
		/* The module comes in anew, on such CPUs. */
		kvmpp_exit();
		VmxRegisters registers = capable_registers();
		registers.secondary |= u64{secondary::enable_pml} << 32;
		for (int cpu = 0; cpu < cpu_count; cpu++)
			set_registers(cpu, registers);
		EXPECT_EQ(kvmpp_init(), 0);
		add_user_memory(user, ram_bytes);
		make();
	}
	~PageLog() override
	{
		unmake();
		remove_user_memory(user);
	}
	void make()
	{
		vm = create_vm();
		EXPECT_EQ(set_memory(vm, 0, first_frame << 12, ram_bytes, user,
				     KVM_MEM_LOG_DIRTY_PAGES),
			  0);
		vcpu = create_vcpu(vm);
	}
	void unmake()
	{
		close_fd(vcpu);
		close_fd(vm);
	}

	static u64 &of(Vmcs &vmcs, auto f) { return vmcs.fields[f.encoding]; }
	/* The CPU logs a page as it sets its dirty bit. False: there is no room. */
	static bool logs(Vmcs &vmcs, u64 frame)
	{
		u64 &index = of(vmcs, field::guest_pml_index);

		if (index >= 512)
			return false;
		reinterpret_cast<u64 *>(of(vmcs, field::pml_address))[index] = frame << 12;
		index = (index - 1) & 0xffff;
		return true;
	}
	static void exits(Vmcs &vmcs, ExitReason reason, u64 qualification = 0)
	{
		of(vmcs, field::exit_reason) = static_cast<u64>(reason);
		of(vmcs, field::exit_qualification) = qualification;
		of(vmcs, field::vm_exit_instruction_length) = 1;
		of(vmcs, field::idt_vectoring_info) = 0;
	}
	void run() { EXPECT_EQ(vcpu_ioctl(vcpu, KVM_RUN, 0ul), 0); }
	/* Of the first 64 pages. */
	u64 dirty()
	{
		u64 bitmap = 0;
		kvm_dirty_log log{};

		log.dirty_bitmap = &bitmap;
		add_user_memory(reinterpret_cast<u64>(&bitmap), sizeof(bitmap));
		EXPECT_EQ(vm_ioctl(vm, KVM_GET_DIRTY_LOG, log), 0);
		remove_user_memory(reinterpret_cast<u64>(&bitmap));
		return bitmap;
	}

	int vm = -1, vcpu = -1;
};

} // namespace

TEST_F(PageLog, is_in_the_slots_log_after_the_exit)
{
	set_guest([&](Vmcs &vmcs, u64 *) {
		EXPECT_NE(of(vmcs, field::secondary_processor_based_controls) &
				  secondary::enable_pml,
			  0u);
		EXPECT_EQ(of(vmcs, field::guest_pml_index), 511u) << "empty at each entry";
		EXPECT_TRUE(logs(vmcs, first_frame + 3) && logs(vmcs, first_frame + 63));
		exits(vmcs, ExitReason::hlt);
		return false;
	});
	run();
	EXPECT_EQ(dirty(), u64{1} << 63 | 8);
	EXPECT_EQ(dirty(), 0u);
	run();
	EXPECT_EQ(dirty(), u64{1} << 63 | 8);
}

TEST_F(PageLog, nothing_is_there_that_was_not_logged)
{
	unsigned entries = 0;

	set_guest([&](Vmcs &vmcs, u64 *) {
		if (entries++ == 0)
			for (u64 i = 0; i < 8; i++)
				logs(vmcs, first_frame + i);
		else
			logs(vmcs, first_frame + 20);
		exits(vmcs, entries == 2 ? ExitReason::external_interrupt : ExitReason::hlt);
		return false;
	});
	run();
	EXPECT_EQ(dirty(), 0xffu);
	run(); /* with an exit on the way */
	EXPECT_EQ(entries, 3u);
	EXPECT_EQ(dirty(), u64{1} << 20);
}

TEST_F(PageLog, is_emptied_when_it_is_full)
{
	unsigned entries = 0;

	set_guest([&](Vmcs &vmcs, u64 *) {
		if (entries++) {
			EXPECT_EQ(of(vmcs, field::guest_pml_index), 511u);
			EXPECT_EQ(of(vmcs, field::guest_interruptibility) & 8, 8u)
				<< "the IRET that comes now was not done: NMIs are blocked";
			exits(vmcs, ExitReason::hlt);
			return false;
		}
		for (u64 i = 0; i < 512; i++)
			EXPECT_TRUE(logs(vmcs, first_frame + i % 62));
		EXPECT_FALSE(logs(vmcs, first_frame + 62));
		of(vmcs, field::guest_interruptibility) = 0;
		exits(vmcs, ExitReason::page_modification_log_full, 1 << 12);
		return false;
	});
	run();
	EXPECT_EQ(entries, 2u);
	EXPECT_EQ(shared(vcpu).exit_reason, u32{KVM_EXIT_HLT});
	EXPECT_EQ(dirty(), ~u64{0} >> 2);
}

TEST_F(PageLog, pages_of_no_log)
{
	EXPECT_EQ(set_memory(vm, 1, 0x200000, 0x1000, user), 0);
	set_guest([&](Vmcs &vmcs, u64 *) {
		for (u64 frame : {u64{0x200}, first_frame - 1, first_frame + 64, low_bits(40)})
			EXPECT_TRUE(logs(vmcs, frame));
		exits(vmcs, ExitReason::hlt);
		return false;
	});
	run();
	EXPECT_EQ(dirty(), 0u);
}

TEST_F(PageLog, what_was_logged_before_the_log_began)
{
	EXPECT_EQ(set_memory(vm, 0, first_frame << 12, ram_bytes, user), 0);
	set_guest([&](Vmcs &vmcs, u64 *) {
		EXPECT_TRUE(logs(vmcs, first_frame + 5));
		exits(vmcs, ExitReason::hlt);
		return false;
	});
	run();
	EXPECT_EQ(set_memory(vm, 0, first_frame << 12, ram_bytes, user, KVM_MEM_LOG_DIRTY_PAGES),
		  0);
	EXPECT_EQ(dirty(), 0u);
}

TEST_F(PageLog, is_a_parameter_and_wants_accessed_and_dirty_bits)
{
	for (bool glue_parameters::*parameter : {&glue_parameters::pml, &glue_parameters::eptad}) {
		unmake();
		glue_parameters.*parameter = false;
		make();
		glue_parameters.*parameter = true;
		set_guest([&](Vmcs &vmcs, u64 *) {
			EXPECT_EQ(of(vmcs, field::secondary_processor_based_controls) &
					  secondary::enable_pml,
				  0u);
			exits(vmcs, ExitReason::hlt);
			return false;
		});
		run();
	}
}
