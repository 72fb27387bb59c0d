/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The memory that the module allocates: at the same addresses in every run, and each process's
 * allocations apart, so that allocating is no step. What a process freed it is given again first.
 */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::explore
{

inline constexpr u64 arena_bytes = 16 << 20;
extern char *const arena;

constexpr bool in_arena(u64 offset)
{
	return offset < arena_bytes;
}
inline u64 arena_offset(const void *address)
{
	return static_cast<u64>(static_cast<const char *>(address) - arena);
}

void map_arena();
/* Fails when it was freed. */
void check_alive(const void *address);
unsigned live_allocations();

/*
 * All that a scenario's setup may have changed: the module's variables, the arena, the model. Taken
 * once, put back before each run.
 */
void keep(void *state, u64 bytes);
void forget_kept();
void take_snapshot();
void restore_snapshot();

} // namespace kvmpp::explore
