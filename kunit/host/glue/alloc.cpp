// SPDX-License-Identifier: GPL-2.0
#include "model/memory.hpp"

#include "model/cpus.hpp"
#include "model/vmx.hpp"

#include <linux_glue/alloc.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>

namespace kvmpp::host
{

namespace
{

int live;
unsigned made;
std::optional<unsigned> failing;
bool failed;
std::map<void *, glue_size> sizes;

void *allocate(glue_size bytes, glue_size alignment)
{
	might_sleep("allocation");
	if (!may_allocate())
		return nullptr;
	void *memory;
	if (::posix_memalign(&memory, alignment, bytes))
		std::abort();
	std::memset(memory, 0, bytes);
	sizes[memory] = bytes;
	count_allocation(1);
	return memory;
}

void release(void *memory)
{
	if (!memory)
		return;
	auto it = sizes.find(memory);
	if (it != sizes.end()) {
		memory_freed(reinterpret_cast<u64>(memory), it->second);
		sizes.erase(it);
		count_allocation(-1);
	}
	/* ASan has the word about what was never allocated. */
	std::free(memory);
}

} // namespace

void reset_memory()
{
	made = 0;
	failing.reset();
	failed = false;
}

bool may_allocate()
{
	made++;
	if (failing && (*failing)-- == 0) {
		failing.reset();
		failed = true;
		return false;
	}
	return true;
}

void count_allocation(int by)
{
	live += by;
}

int live_allocations()
{
	return live;
}

unsigned allocations_made()
{
	return made;
}

void fail_allocation_after(unsigned count)
{
	failing = count;
	failed = false;
}

bool allocation_failed()
{
	return failed;
}

} // namespace kvmpp::host

using namespace kvmpp::host;

void *glue_zalloc(glue_size bytes)
{
	/* As kvmalloc() aligns what is not small. */
	return allocate(bytes, bytes >= kvmpp::page_size ? kvmpp::page_size
			       : bytes >= 64             ? 64
							 : 16);
}

void *glue_zalloc_kept(glue_size bytes)
{
	return glue_zalloc(bytes);
}

void glue_free(void *memory)
{
	release(memory);
}

void *glue_page_alloc(void)
{
	return allocate(kvmpp::page_size, kvmpp::page_size);
}

void glue_page_free(void *page)
{
	release(page);
}

/* The host's "physical" memory is the process's. */
glue_u64 glue_virt_to_phys(const void *address)
{
	return reinterpret_cast<glue_u64>(address);
}

void *glue_phys_to_virt(glue_u64 address)
{
	return reinterpret_cast<void *>(address);
}
