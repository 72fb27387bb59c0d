// SPDX-License-Identifier: GPL-2.0
/* The VMM's pages and files. */
#include "linux.hpp"

#include "machine.hpp"
#include "memory.hpp"
#include "scenario.hpp"
#include "vmx.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/eventfd.h>
#include <linux_glue/memory.h>

#include <asm/errno.h>

#include <utility>

namespace kvmpp::explore
{

namespace
{

constexpr int pages = 4;
constexpr u64 first_frame = 0x100, frames_a_time = 0x100;
constexpr u64 large_frame = 0x200, frames_of_large = 512;

struct State {
	/* The VMM's page table. */
	u64 frame_of[pages];
	/* It began with one entry for all of them and more; and has it still. */
	bool began_large, large;
	int pages_held;
	/* How many are there after one that is looked up. */
	int ahead;
	/* Of the module to the only eventfd. */
	int eventfd_references;
	/* It is known of the page's frame that it may have been written to. */
	bool dirty[pages];
	void *notified;
	void *file;
};
State state;

} // namespace

void reset_linux()
{
	state = {};
	for (int i = 0; i < pages; i++)
		state.frame_of[i] = first_frame + static_cast<u64>(i);
	keep(&state, sizeof(state));
}

void check_linux_at_rest()
{
	if (state.eventfd_references)
		fail("%d references to an eventfd are left behind", state.eventfd_references);
	if (state.pages_held)
		fail("references to %d pages are left behind", state.pages_held);
}

void make_memory_large()
{
	state.began_large = state.large = true;
	for (int i = 0; i < pages; i++)
		state.frame_of[i] = large_frame + static_cast<u64>(i);
}

void look_ahead()
{
	state.ahead = 1;
}

u64 frame_of_page(u64 page)
{
	return state.frame_of[page];
}

void take_page_away(u64 page, u64 bytes)
{
	void *vm = state.notified;
	u64 address = user_memory + (page << page_shift);

	variant->invalidate_begin(vm, address, address + bytes);
	step(Op{.what = "Linux gives page %llu another frame", .argument = page}
		     .write(object_at(&state.frame_of[page]))
		     .write(object_at(&state.large)));
	state.large = false;
	u64 old = std::exchange(state.frame_of[page], state.frame_of[page] + frames_a_time);
	take_frame_away(old);
	if (writes_to_frame(old) && !state.dirty[page] && !state.pages_held)
		fail("Linux drops a page that it takes for clean, and the guest wrote to");
	state.dirty[page] = false;
	variant->invalidate_end(vm, address, address + bytes);
}

void *new_file()
{
	return state.file;
}

} // namespace kvmpp::explore

using namespace kvmpp::explore;
using kvmpp::u64;

glue_u64 glue_user_pointer(glue_u64 field)
{
	return field;
}

int glue_user_range_ok(glue_u64, glue_u64)
{
	return 1;
}

int glue_user_pages_get(glue_u64 address, int count, int, glue_u64 *frames, int *writable)
{
	u64 page = (address - user_memory) >> kvmpp::page_shift;

	might_sleep("get_user_pages()");
	if (page >= pages)
		return -EFAULT;
	int got = 0;
	/* Each entry at its own time. */
	do {
		u64 next = page + static_cast<u64>(got);

		step(Op{.what = "looks page %llu up", .argument = next}.read(
			object_at(&state.frame_of[next])));
		frames[got] = state.frame_of[next];
		state.pages_held++;
	} while (++got < count && got <= state.ahead);
	*writable = 1;
	return got;
}

void glue_user_page_put(glue_u64 frame, int dirty)
{
	for (int i = 0; dirty && i < pages; i++)
		if (state.frame_of[i] == frame)
			state.dirty[i] = true;
	state.pages_held--;
}

void glue_user_page_lost(glue_u64)
{
	fail("no page is lost");
}

void glue_user_page_accessed(glue_u64)
{
}

glue_u64 glue_user_mapping_frames(glue_u64, glue_u64)
{
	if (!state.began_large)
		return 1;
	step(Op{.what = "looks how much one entry maps"}.read(object_at(&state.large)));
	return state.large ? frames_of_large : 1;
}

int glue_eventfd_get(int, glue_eventfd **eventfd)
{
	state.eventfd_references++;
	*eventfd = reinterpret_cast<glue_eventfd *>(&state.eventfd_references);
	return 0;
}

void glue_eventfd_put(glue_eventfd *)
{
	step(Op{.what = "gives an eventfd back"}.write(object_at(&state.eventfd_references)));
	state.eventfd_references--;
}

void glue_eventfd_signal(glue_eventfd *)
{
	step(Op{.what = "signals an eventfd"}.read(object_at(&state.eventfd_references)));
	if (!state.eventfd_references)
		fail("an eventfd is signalled that nobody holds");
}

int glue_executed_pages_must_be_small(void)
{
	return 0;
}

struct glue_mmu_notifier {
	int unused;
};

int glue_mmu_notifier_register(void *context, glue_mmu_notifier **notifier)
{
	state.notified = context;
	*notifier = static_cast<glue_mmu_notifier *>(glue_zalloc(sizeof(glue_mmu_notifier)));
	return 0;
}

void glue_mmu_notifier_unregister(glue_mmu_notifier *notifier)
{
	glue_free(notifier);
}

glue_u32 glue_process_id(void)
{
	return 100;
}

int glue_mmu_notifier_is_current(const glue_mmu_notifier *)
{
	return 1;
}

int glue_vm_fd_prepare(glue_new_fd *fd, void *vm)
{
	state.file = vm;
	fd->fd = 3;
	return 0;
}

int glue_vcpu_fd_prepare(glue_new_fd *fd, void *vcpu, int)
{
	state.file = vcpu;
	fd->fd = 4;
	return 0;
}

void glue_fd_install(glue_new_fd *)
{
}
