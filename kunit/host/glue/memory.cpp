// SPDX-License-Identifier: GPL-2.0
#include "model/memory.hpp"

#include "model/cpus.hpp"
#include "model/thread.hpp"
#include "model/violation.hpp"

#include <linux_glue/entries.h>
#include <linux_glue/memory.h>

#include <asm/errno.h>

#include <cstring>
#include <map>
#include <utility>

namespace kvmpp::host
{

namespace
{

constexpr u64 end_of_user_space = 0x7ffffffff000;

struct UserRange {
	u64 bytes;
	bool writable;
};
std::map<u64, UserRange> ranges;
u64 mapping_frames = 1;
bool executed_pages_small, swapped_out, caller_is_32_bits;
std::function<void()> page_get_hook, compare_exchange_hook;
int pages_held, pages_ahead, page_get_error;
u64 lost_page;
unsigned pages_dirtied, pages_accessed;
int current_process;
bool notifier_interrupted;

const UserRange *range_of(u64 address, u64 bytes)
{
	auto it = ranges.upper_bound(address);

	if (it == ranges.begin())
		return nullptr;
	--it;
	u64 offset = address - it->first;
	return offset < it->second.bytes && bytes <= it->second.bytes - offset ? &it->second
									       : nullptr;
}

} // namespace

void add_user_memory(u64 address, u64 bytes, bool writable)
{
	ranges[address] = {bytes, writable};
}

void remove_user_memory(u64 address)
{
	ranges.erase(address);
}

void set_user_mapping_frames(u64 frames)
{
	mapping_frames = frames;
}

void set_executed_pages_must_be_small(bool small)
{
	executed_pages_small = small;
}

void on_user_page_get(std::function<void()> function)
{
	page_get_hook = std::move(function);
}

void set_user_pages_ahead(int pages)
{
	pages_ahead = pages;
}

void fail_next_user_page_get(int error)
{
	page_get_error = error;
}

u64 user_page_lost()
{
	return std::exchange(lost_page, 0);
}

void set_caller_is_32_bits(bool is)
{
	caller_is_32_bits = is;
}

void set_swapped_out(bool swapped)
{
	swapped_out = swapped;
}

void on_compare_exchange(std::function<void()> function)
{
	compare_exchange_hook = std::move(function);
}

int user_pages_held()
{
	return pages_held;
}

unsigned user_pages_dirtied()
{
	return std::exchange(pages_dirtied, 0);
}

unsigned user_pages_accessed()
{
	return std::exchange(pages_accessed, 0);
}

void interrupt_next_notifier_registration()
{
	notifier_interrupted = true;
}

void switch_process(int process)
{
	current_process = process;
}

} // namespace kvmpp::host

using namespace kvmpp::host;

struct glue_mmu_notifier {
	int process;
	void *context;
};

int glue_copy_from_user(void *to, glue_u64 from, glue_size bytes)
{
	might_sleep("copy_from_user()");
	if (!range_of(from, bytes))
		return -EFAULT;
	std::memcpy(to, reinterpret_cast<const void *>(from), bytes);
	return 0;
}

int glue_copy_to_user(glue_u64 to, const void *from, glue_size bytes)
{
	might_sleep("copy_to_user()");
	const UserRange *range = range_of(to, bytes);
	if (!range || !range->writable)
		return -EFAULT;
	std::memcpy(reinterpret_cast<void *>(to), from, bytes);
	return 0;
}

int glue_copy_to_user_nofault(glue_u64 to, const void *from, glue_size bytes)
{
	const UserRange *range = range_of(to, bytes);
	if (!range || !range->writable || swapped_out)
		return -EFAULT;
	std::memcpy(reinterpret_cast<void *>(to), from, bytes);
	return 0;
}

int glue_user_read(glue_u64 address, glue_u64 *value, glue_size bytes)
{
	if (address % bytes)
		violation("a read as one access that is not aligned");
	*value = 0;
	return glue_copy_from_user(value, address, bytes);
}

int glue_user_read_16(glue_u64 address, glue_u64 *to)
{
	return glue_copy_from_user(to, address, 16);
}

int glue_user_compare_exchange(glue_u64 address, glue_u64 expected, glue_u64 desired,
			       glue_size bytes)
{
	might_sleep("an access of user space");
	const UserRange *range = range_of(address, bytes);
	if (!range || !range->writable)
		return -EFAULT;
	if (address % bytes)
		violation("a locked access that is not aligned");
	if (auto hook = std::exchange(compare_exchange_hook, nullptr))
		hook();
	glue_u64 old = 0;
	std::memcpy(&old, reinterpret_cast<const void *>(address), bytes);
	if (old != expected)
		return 0;
	std::memcpy(reinterpret_cast<void *>(address), &desired, bytes);
	return 1;
}

glue_u64 glue_user_pointer(glue_u64 field)
{
	return caller_is_32_bits ? static_cast<glue_u32>(field) : field;
}

int glue_user_range_ok(glue_u64 address, glue_u64 bytes)
{
	return bytes <= end_of_user_space && address <= end_of_user_space - bytes;
}

int glue_user_pages_get(glue_u64 address, int count, int write, glue_u64 *frames, int *writable)
{
	might_sleep("get_user_pages()");
	const UserRange *range = range_of(address, 1);
	if (!range || (write && !range->writable))
		return -EFAULT;
	if (int error = std::exchange(page_get_error, 0))
		return error;
	*writable = range->writable;
	int got = 1;
	while (range->writable && got < count && got <= pages_ahead &&
	       range_of(address, (static_cast<glue_u64>(got) + 1) << kvmpp::page_shift))
		got++;
	for (int i = 0; i < got; i++)
		frames[i] = (address >> kvmpp::page_shift) + static_cast<glue_u64>(i);
	pages_held += got;
	/* A copy: it may replace itself. */
	if (auto hook = page_get_hook)
		hook();
	return got;
}

void glue_user_page_put(glue_u64, int dirty)
{
	pages_held--;
	pages_dirtied += dirty != 0;
}

void glue_user_page_lost(glue_u64 address)
{
	lost_page = address;
	set_signal_pending(true);
}

void glue_user_page_accessed(glue_u64)
{
	pages_accessed++;
}

glue_u64 glue_user_mapping_frames(glue_u64 address, glue_u64 frame)
{
	for (glue_u64 frames : {mapping_frames, mapping_frames > 512 ? 512 : glue_u64{1}}) {
		glue_u64 bytes = frames << kvmpp::page_shift;

		if (frame == address >> kvmpp::page_shift && range_of(address & -bytes, bytes))
			return frames;
	}
	return 1;
}

int glue_executed_pages_must_be_small(void)
{
	return executed_pages_small;
}

int glue_mmu_notifier_register(void *context, glue_mmu_notifier **notifier)
{
	might_sleep("mmu_notifier_register()");
	if (std::exchange(notifier_interrupted, false))
		return -EINTR;
	if (!may_allocate())
		return -ENOMEM;
	count_allocation(1);
	*notifier = new glue_mmu_notifier{current_process, context};
	return 0;
}

void glue_mmu_notifier_unregister(glue_mmu_notifier *notifier)
{
	might_sleep("mmu_notifier_unregister()");
	count_allocation(-1);
	delete notifier;
}

glue_u32 glue_process_id(void)
{
	return 100;
}

int glue_mmu_notifier_is_current(const glue_mmu_notifier *notifier)
{
	return notifier->process == current_process;
}
