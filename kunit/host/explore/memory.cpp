// SPDX-License-Identifier: GPL-2.0
#include "memory.hpp"

#include "machine.hpp"
#include "races.hpp"
#include "vmx.hpp"

#include <linux_glue/alloc.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace kvmpp::explore
{

char *const arena = reinterpret_cast<char *>(0x200000000000);

namespace
{

constexpr u64 granule = 64;
/* One area for each process and a larger one for what is done at once. */
constexpr u64 area_bytes = 64 << 10, common_area = max_processes * area_bytes;
constexpr unsigned sizes = 64, most_freed = 8;

enum class Granule : u8 { never, alive, freed };

struct Area {
	u64 used;
	/* By size in granules; larger ones are not had again. */
	u8 freed[sizes + 1];
	u32 again[sizes + 1][most_freed];
};

struct State {
	Area areas[max_processes + 1];
	unsigned live;
};
State state;
/* Of each granule; and in the first of an allocation, its size in granules. */
Granule granules[arena_bytes / granule];
u16 lengths[arena_bytes / granule];

struct Region {
	char *state;
	std::vector<char> kept;
};
std::vector<Region> regions;

u64 area_start(int id)
{
	return id == max_processes ? common_area : static_cast<u64>(id) * area_bytes;
}

void *allocate(u64 bytes, u64 alignment)
{
	might_sleep("allocation");
	int id = exploring() ? running : max_processes;
	Area &area = state.areas[id];
	u64 length = (bytes + granule - 1) / granule, offset;

	if (length <= sizes && area.freed[length]) {
		offset = area.again[length][--area.freed[length]];
	} else {
		u64 start = area_start(id);
		offset = (start + area.used + alignment - 1) & ~(alignment - 1);
		area.used = offset + length * granule - start;
		if (offset + length * granule >
		    (id == max_processes ? arena_bytes : start + area_bytes))
			fail("the model has too little memory");
	}
	std::fill_n(&granules[offset / granule], length, Granule::alive);
	lengths[offset / granule] = static_cast<u16>(length);
	std::memset(arena + offset, 0, length * granule);
	memory_born(arena + offset, length * granule);
	state.live++;
	return arena + offset;
}

void release(void *memory)
{
	if (!memory)
		return;
	u64 offset = arena_offset(memory);
	if (!in_arena(offset) || granules[offset / granule] != Granule::alive)
		fail("freed twice, or never allocated");
	u64 length = lengths[offset / granule];
	Area &area = state.areas[exploring() ? running : max_processes];

	memory_freed(offset, length * granule);
	memory_died(memory, length * granule);
	std::fill_n(&granules[offset / granule], length, Granule::freed);
	if (length <= sizes && area.freed[length] < most_freed)
		area.again[length][area.freed[length]++] = static_cast<u32>(offset);
	state.live--;
}

} // namespace

void map_arena()
{
	if (mmap(arena, arena_bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != arena)
		fail("no memory at %p", static_cast<void *>(arena));
}

void check_alive(const void *address)
{
	if (u64 offset = arena_offset(address);
	    in_arena(offset) && granules[offset / granule] != Granule::alive)
		fail("memory used after it was freed");
}

unsigned live_allocations()
{
	return state.live;
}

void keep(void *what, u64 bytes)
{
	regions.push_back({static_cast<char *>(what), std::vector<char>(bytes)});
}

void forget_kept()
{
	regions.clear();
}

void take_snapshot()
{
	u64 common = state.areas[max_processes].used;

	keep(&state, sizeof(state));
	keep(arena + common_area, common);
	keep(&granules[common_area / granule], common / granule);
	for (Region &r : regions)
		std::copy_n(r.state, r.kept.size(), r.kept.begin());
}

void restore_snapshot()
{
	for (Region &r : regions)
		std::copy_n(r.kept.begin(), r.kept.size(), r.state);
}

} // namespace kvmpp::explore

using namespace kvmpp::explore;

void *glue_zalloc(glue_size bytes)
{
	return allocate(bytes, 64);
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

/* The machine's physical memory is the arena, at 0x100000000. */
static constexpr kvmpp::u64 physical_start = 0x100000000;

glue_u64 glue_virt_to_phys(const void *address)
{
	return arena_offset(address) + physical_start;
}

void *glue_phys_to_virt(glue_u64 address)
{
	return arena + (address - physical_start);
}
