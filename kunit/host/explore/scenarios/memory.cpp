// SPDX-License-Identifier: GPL-2.0
/* Guest memory. */
#include "linux.hpp"
#include "machine.hpp"
#include "setup.hpp"
#include "vmx.hpp"

namespace kvmpp::explore
{

namespace
{

/* The guest has one page of the VMM, at guest-physical 0. */
constexpr u32 slot = 0;
constexpr u64 large_bytes = u64{1} << 21;

Result<> set_slot(u64 bytes, u64 page = 0)
{
	Result<SlotRequest> request =
		check_slot_request(slot, 0, 0, bytes, user_memory + (page << page_shift), 39);

	if (!request)
		return request.error();
	return vm->set_memory(*request);
}

void set_up_memory()
{
	set_up_guest();
	expect(!!set_slot(page_size), "memory is added");
}

void touch_memory()
{
	guest_touches(0);
	for (int tries = 0; tries < 3 && !enter(0); tries++)
		;
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
		expect(!!vm->mmu().fault(vm->slots(read), {0}, {.write = true}),
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
	expect(!!vm->mmu().fault(vm->slots(read), {0}, {.write = true}), "the page is mapped");
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
	expect(!!vm->mmu().fault(vm->slots(read), {page << page_shift}, {.write = true}),
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
	{"slot_comes_during_invalidation",
	 2,
	 set_up_guest,
	 {{"slots", add_slot}, {"notifier", take_first_page}},
	 finish},
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
