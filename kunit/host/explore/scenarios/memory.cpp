// SPDX-License-Identifier: GPL-2.0
/* Guest memory. */
#include "linux.hpp"
#include "machine.hpp"
#include "setup.hpp"
#include "vmx.hpp"

#include "virt/dirty_log.hpp"
#include "virt/logged_run.hpp"

#include <linux/kvm.h>
#include <linux_glue/parameters.h>

namespace kvmpp::explore
{

namespace
{

/* The guest has one page of the VMM, at guest-physical 0. */
constexpr u32 slot = 0;
constexpr u64 large_bytes = u64{1} << 21;

Result<> set_slot(u64 bytes, u64 page = 0, u32 flags = 0)
{
	Result<SlotRequest> request =
		check_slot_request(slot, flags, 0, bytes, user_memory + (page << page_shift), 39);

	if (!request)
		return request.error();
	return vm->set_memory(*request);
}

void set_up_memory()
{
	set_up_guest();
	expect(!!set_slot(page_size), "memory is added");
}

void touch_page(u64 page)
{
	guest_touches(page);
	for (int tries = 0; tries < 3 && !enter(0); tries++)
		;
}

void touch_memory()
{
	touch_page(0);
}

void touch_memory_twice()
{
	touch_memory();
	enter(0);
}

void take_first_page()
{
	take_page_away(0);
}

void take_other_page()
{
	take_page_away(1);
}

void remove_slot()
{
	expect(!!set_slot(0), "the slot goes");
	/* From here on the VMM may use the memory as it likes. */
	take_frame_away(frame_of_page(0));
}

void add_slot()
{
	expect(!!set_slot(page_size), "memory is added");
}

/* An exit for it has been before. */
void fault_and_touch(int i)
{
	{
		SrcuRead read(vm->srcu());
		expect(!!vm->mmu().fault(vm->slots(read), {0}, {.write = true},
					 guests[i]->table_pages),
		       "the fault is answered");
	}
	guest_touches(0);
	enter(i);
}

void fault_and_touch_first()
{
	fault_and_touch(0);
}

void touch_first()
{
	guest_touches(0);
	enter(0);
}

void touch_second()
{
	guest_touches(0);
	enter(1);
}

void set_up_mapped_memory()
{
	set_up_memory();
	SrcuRead read(vm->srcu());
	expect(!!vm->mmu().fault(vm->slots(read), {0}, {.write = true}, guests[0]->table_pages),
	       "the page is mapped");
}

void make_second_and_touch()
{
	make_guest(1);
	touch_second();
}

void set_up_memory_and_two_guests()
{
	set_up_two_guests();
	expect(!!set_slot(page_size), "memory is added");
}

/* VMX stays on, and the new VM's tables are where the old one's were, in the same order. */
void vm_after_vm()
{
	touch_memory();
	guests[0] = {};
	vm->put();
	take_frame_away(frame_of_page(0));
	make_vm();
	make_guest(0);
	expect(!!set_slot(page_size, 1), "memory is added");
	touch_memory();
}

void set_up_memory_and_use()
{
	load_module();
	expect(!!hardware_get(), "VMX goes on");
	uses = 1;
}

void make_vm_twice()
{
	make_vm();
	make_guest(0);
	expect(!!set_slot(page_size), "memory is added");
	vm_after_vm();
}

/* 2 MiB for the guest, which Linux has in one entry. */
void set_up_large_memory()
{
	make_memory_large();
	set_up_guest();
	expect(!!set_slot(large_bytes), "memory is added");
}

void map_page(u64 page)
{
	SrcuRead read(vm->srcu());
	expect(!!vm->mmu().fault(vm->slots(read), {page << page_shift}, {.write = true},
				 guests[0]->table_pages),
	       "the fault is answered");
}

void set_up_large_mapped_memory()
{
	set_up_large_memory();
	map_page(0);
}

/* The same of pages of 4 KiB, so that there is a table that is for nothing else. */
void set_up_mapped_table()
{
	set_up_guest();
	expect(!!set_slot(large_bytes), "memory is added");
	map_page(0);
}

/* What one page is mapped by may be what another one, which it touches, is mapped by, too. */
void fault_second_touch_first()
{
	map_page(1);
	guest_touches(0);
	enter(0);
}

/* Two pages, of which a fault at the first maps the second as well. */
void set_up_two_pages()
{
	look_ahead();
	set_up_guest();
	expect(!!set_slot(2 * page_size), "memory is added");
}

void fault_first_touch_second()
{
	map_page(0);
	touch_page(1);
}

// ---- Pages whose writes are logged

/* What a migration has of the page. */
u64 copied;

/* What the log has of the page is taken, and the page copied if it is in there. */
void take_log_and_copy()
{
	SrcuRead read(vm->srcu());
	const Memslot *logged = vm->slots(read).find_id(slot);

	vm->mmu().take_log(*logged);
	if (logged->log->taken()[0] & 1)
		copied = copy_of_frame(frame_of_page(0));
}

void take_log_twice()
{
	take_log_and_copy();
	take_log_and_copy();
}

/* The first page is mapped read-only, which a write may change without the MMU's lock. */
void set_up_logged(u64 bytes)
{
	set_up_two_guests();
	expect(!!set_slot(bytes, 0, KVM_MEM_LOG_DIRTY_PAGES), "memory is added, with a log");
	SrcuRead read(vm->srcu());
	expect(!!vm->mmu().fault(vm->slots(read), {0}, {}, guests[0]->table_pages),
	       "the page is mapped");
	copied = 0;
}

void set_up_logged_page()
{
	set_up_logged(page_size);
}

/* Pages enough for a table of their own, which goes with them. */
void set_up_logged_table()
{
	set_up_logged(large_bytes);
}

/* One that the log has as well, as after a write of the module's own. */
void set_up_reported_page()
{
	set_up_logged_page();
	SrcuRead read(vm->srcu());
	vm->slots(read).find_id(slot)->log->add(0);
}

void take_table()
{
	take_page_away(0, large_bytes);
}

/* Writes @times, whatever exits that takes. */
void write_page(int i, int times)
{
	guest_writes(0);
	for (int tries = 0; tries < 4 && times; tries++)
		times -= enter(i);
}

void write_once()
{
	write_page(0, 1);
}

void write_twice()
{
	write_page(0, 2);
}

// ---- Pages that the CPU logs

/* As Vcpu::step(), without its handlers. False: it was asked to come out, or has to try again. */
bool enter_logged()
{
	Guest &g = *guests[0];
	LoggedRun logged(*vm, *g.entry, g.vmx, g.state);
	Exit exit;
	Result<Entry> entry = g.enter(exit);

	expect(!!entry, "the VMCS can be used");
	return *entry == Entry::interrupted ||
	       (*entry == Entry::exited && exit.reason() != ExitReason::ept_violation);
}

void write_logged(int times)
{
	guest_writes(0);
	for (int tries = 0; tries < 6 && times; tries++)
		times -= enter_logged();
}

/* The page is mapped, and not written to. */
void set_up_page_log()
{
	glue_parameters.pml = true;
	set_up_logged_page();
}

/* Once in the guest nothing brings it out but who wants the log. */
void set_up_page_log_of_computing_guest()
{
	set_up_page_log();
	guests_wait(Waits::computing);
}

void write_once_logged()
{
	write_logged(1);
}

void write_twice_logged()
{
	write_logged(2);
}

void read_log_after_write()
{
	wait_for_write(frame_of_page(0));
	vm->collect_page_logs();
	take_log_and_copy();
	expect(copied == 1, "the log has what was written before it was read");
}

void read_log()
{
	vm->collect_page_logs();
	take_log_and_copy();
}

/* The guest has stopped: what the log has now is the last that is copied. */
void finish_migration()
{
	take_log_and_copy();
	expect(copied == writes_to_frame(frame_of_page(0)), "the log has all that was written");
	finish();
}

constexpr Scenario all[] = {
	{"part_of_large_page_goes",
	 2,
	 set_up_large_memory,
	 {{"vcpu", fault_second_touch_first}, {"notifier", take_first_page}},
	 finish},
	{"large_page_goes",
	 2,
	 set_up_large_mapped_memory,
	 {{"vcpu", touch_first}, {"notifier", take_first_page}},
	 finish},
	{"table_goes",
	 2,
	 set_up_mapped_table,
	 {{"vcpu", touch_first}, {"slots", remove_slot}},
	 finish},
	{"page_ahead_goes",
	 2,
	 set_up_two_pages,
	 {{"vcpu", fault_first_touch_second}, {"notifier", take_other_page}},
	 finish},
	{"slot_comes_during_invalidation",
	 2,
	 set_up_guest,
	 {{"slots", add_slot}, {"notifier", take_first_page}},
	 finish},
	{"fast_fault_page_goes",
	 2,
	 set_up_logged_page,
	 {{"vcpu", write_once}, {"notifier", take_first_page}},
	 finish},
	{"fast_fault_table_goes",
	 2,
	 set_up_logged_table,
	 {{"vcpu", write_once}, {"notifier", take_table}},
	 finish},
	{"fast_fault_as_log_is_taken",
	 2,
	 set_up_reported_page,
	 {{"vcpu", write_twice, 1}, {"log", take_log_twice, 0}},
	 finish_migration},
	{"log_is_read_as_guest_computes",
	 2,
	 set_up_page_log_of_computing_guest,
	 {{"vcpu", write_once_logged, 1}, {"log", read_log_after_write, 0}},
	 finish},
	{"log_is_read_as_guest_writes",
	 2,
	 set_up_page_log,
	 {{"vcpu", write_twice_logged, 1}, {"log", read_log, 0}},
	 finish_migration},
	{"slot_goes_page_goes",
	 2,
	 set_up_mapped_memory,
	 {{"vcpu", touch_first}, {"slots", remove_slot}, {"notifier", take_first_page}},
	 finish},
	{"slot_comes_page_goes",
	 2,
	 set_up_guest,
	 {{"slots", add_slot}, {"vcpu", fault_and_touch_first}, {"notifier", take_first_page}},
	 finish},
	{"two_vcpus_fault",
	 2,
	 set_up_memory_and_two_guests,
	 {{"vcpu 0", fault_and_touch_first}, {"vcpu 1", touch_second}},
	 finish},
	{"vcpu_made_as_page_goes",
	 2,
	 set_up_mapped_memory,
	 {{"vcpu", make_second_and_touch}, {"notifier", take_first_page}},
	 finish},
	{"vm_at_the_same_address", 2, set_up_memory_and_use, {{"thread", make_vm_twice}}, finish},
	/* The long ones, the longest first. */
	{"page_of_two_vcpus",
	 2,
	 set_up_memory_and_two_guests,
	 {{"vcpu 0", fault_and_touch_first},
	  {"vcpu 1", touch_second},
	  {"notifier", take_first_page}},
	 finish},
	{"slot_goes",
	 2,
	 set_up_memory,
	 {{"vcpu", touch_memory_twice}, {"slots", remove_slot}},
	 finish},
	{"page_taken_away_twice",
	 2,
	 set_up_mapped_memory,
	 {{"vcpu", touch_first}, {"notifier", take_first_page}, {"other", take_first_page}},
	 finish},
	{"page_taken_away",
	 2,
	 set_up_memory,
	 {{"vcpu", touch_memory_twice}, {"notifier", take_first_page}},
	 finish},
	{"two_pages_taken_away",
	 2,
	 set_up_memory,
	 {{"vcpu", fault_and_touch_first},
	  {"notifier", take_first_page},
	  {"other", take_other_page}},
	 finish},
};

} // namespace

const Scenarios memory_scenarios = {all, sizeof(all) / sizeof(all[0])};

} // namespace kvmpp::explore
