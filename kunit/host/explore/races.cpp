// SPDX-License-Identifier: GPL-2.0
#include "races.hpp"

#include "crash.hpp"
#include "machine.hpp"
#include "memory.hpp"

#include <sys/mman.h>

#include <vector>

namespace kvmpp::explore
{

Clock seen[max_processes];

namespace
{

/* The accesses to what begins at one address, since the last write. */
struct Cell {
	u32 run;
	s8 writer;
	u16 write;
	u32 readers;
	u16 read[max_processes];
};

struct Published {
	u32 run;
	Clock clock;
};

constexpr u64 data_bytes = 64 << 10, granule = 64;
u32 run;
std::vector<Published> published;
const char *data_start;
u64 data_length;
/* One for each byte of the arena and of the module's variables; touched where they are used. */
Cell *cells;
/* Of each granule of the arena: when it was allocated, in this run, and who has used it since. */
struct Life {
	u32 run;
	s8 born_by;
	u16 born;
	u16 used[max_processes];
};
Life lives[arena_bytes / granule];

u16 now()
{
	return seen[running].last[running];
}

Life &life_at(u64 offset)
{
	Life &life = lives[offset / granule];

	if (life.run != run)
		life = {.run = run, .born_by = nobody, .born = 0, .used = {}};
	return life;
}

bool ordered(int process, u16 when)
{
	return seen[running].last[process] >= when;
}

[[noreturn]] void race(const void *address, bool write, int other)
{
	if (u64 offset = arena_offset(address); in_arena(offset))
		fail("data race: %s at +%#lx of the arena, not ordered after that of %s (process "
		     "%d)",
		     write ? "write" : "read", static_cast<unsigned long>(offset),
		     processes[other].name, other);
	fail("data race: %s of a variable at +%#lx of the module's data, not ordered after that of "
	     "%s (process %d)",
	     write ? "write" : "read",
	     static_cast<unsigned long>(static_cast<const char *>(address) - data_start),
	     processes[other].name, other);
}

} // namespace

void reset_races(unsigned objects)
{
	if (!cells)
		cells = static_cast<Cell *>(mmap(
			nullptr, sizeof(Cell) * (arena_bytes + data_bytes), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	published.resize(objects);
	run++;
}

Clock &published_by(u16 object)
{
	Published &p = published[object];

	if (p.run != run)
		p = {run, {}};
	return p.clock;
}

void watch_data(const char *start, u64 bytes)
{
	data_start = start;
	data_length = bytes < data_bytes ? bytes : data_bytes;
}

void memory_born(const void *memory, u64 bytes)
{
	u64 first = arena_offset(memory);

	if (exploring())
		for (u64 at = first; at < first + bytes; at += granule)
			lives[at / granule] = {.run = run,
					       .born_by = static_cast<s8>(running),
					       .born = now(),
					       .used = {}};
}

void memory_died(const void *memory, u64 bytes)
{
	u64 first = arena_offset(memory);

	if (!exploring())
		return;
	for (u64 at = first; at < first + bytes; at += granule) {
		const Life &life = life_at(at);
		for (int p = 0; p < process_count; p++)
			if (life.used[p] && !ordered(p, life.used[p]))
				fail("memory at +%#lx of the arena freed, not ordered after its "
				     "use by %s (process %d)",
				     static_cast<unsigned long>(at), processes[p].name, p);
	}
}

void atomic_access(const void *address)
{
	u64 offset = arena_offset(address);

	if (!in_arena(offset))
		return;
	check_alive(address);
	Life &life = life_at(offset);
	if (life.born_by != nobody && !ordered(life.born_by, life.born))
		race(address, false, life.born_by);
	life.used[running] = now();
}

Clock release_now()
{
	Clock clock = seen[running];

	seen[running].last[running]++;
	return clock;
}

bool watched(const void *address)
{
	return in_arena(arena_offset(address)) ||
	       static_cast<u64>(static_cast<const char *>(address) - data_start) < data_length;
}

void plain_access(const void *address, unsigned bytes, bool write)
{
	if (crashing())
		return crash_accesses(address, bytes, write);
	if (!exploring())
		return;
	if (write && watched(address))
		crash_may_come("store to %#llx", reinterpret_cast<u64>(address));
	u64 index = arena_offset(address);
	if (in_arena(index)) {
		atomic_access(address);
	} else {
		u64 offset = static_cast<u64>(static_cast<const char *>(address) - data_start);
		if (offset >= data_length)
			return;
		index = arena_bytes + offset;
	}

	Cell &cell = cells[index];
	if (cell.run != run) {
		cell.run = run;
		cell.writer = nobody;
		cell.readers = 0;
	}
	if (cell.writer != nobody && !ordered(cell.writer, cell.write))
		race(address, write, cell.writer);
	if (!write) {
		cell.readers |= u32{1} << running;
		cell.read[running] = now();
		return;
	}
	for (u32 rest = cell.readers; rest; rest &= rest - 1)
		if (int p = __builtin_ctz(rest); !ordered(p, cell.read[p]))
			race(address, write, p);
	cell.writer = static_cast<s8>(running);
	cell.write = now();
	cell.readers = 0;
}

} // namespace kvmpp::explore

using namespace kvmpp::explore;

/* What the compiler calls before each access when it instruments for "thread". */
extern "C" {
#define PLAIN(bytes)                                                                               \
	void __tsan_read##bytes(void *address)                                                     \
	{                                                                                          \
		plain_access(address, bytes, false);                                               \
	}                                                                                          \
	void __tsan_write##bytes(void *address)                                                    \
	{                                                                                          \
		plain_access(address, bytes, true);                                                \
	}                                                                                          \
	void __tsan_unaligned_read##bytes(void *address)                                           \
	{                                                                                          \
		plain_access(address, bytes, false);                                               \
	}                                                                                          \
	void __tsan_unaligned_write##bytes(void *address)                                          \
	{                                                                                          \
		plain_access(address, bytes, true);                                                \
	}
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)
#undef PLAIN

void __tsan_init(void)
{
}

/* A constructor or destructor of a class with virtual functions. */
void __tsan_vptr_update(void **address, void *value)
{
	if (*address != value)
		plain_access(address, sizeof(*address), true);
}

void __tsan_read_range(char *address, unsigned long bytes)
{
	for (unsigned long i = 0; i < bytes; i += 8)
		plain_access(address + i, 8, false);
}

void __tsan_write_range(char *address, unsigned long bytes)
{
	for (unsigned long i = 0; i < bytes; i += 8)
		plain_access(address + i, 8, true);
}
}
