/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Plain memory: each access that the module's C++ makes must be ordered, by what the language and the
 * kernel guarantee, after every conflicting one of another process. That is what allows a plain access
 * to be no step of its own, and it is stricter than any processor: a dropped release or acquire shows
 * although x86 would forgive it.
 */
#pragma once

#include "access.hpp"

namespace kvmpp::explore
{

/*
 * How much of each process's past process @p knows of. A process's own time goes on with each of its
 * steps, and whenever it publishes: what it does next is not part of that.
 */
extern Clock seen[max_processes];
/* What whoever acquires @object learns. */
Clock &published_by(u16 object);
/* What the running process has to publish now. */
Clock release_now();

void reset_races(unsigned objects);
/* The module's own variables. */
void watch_data(const char *start, u64 bytes);
/* Memory of the module, allocated or its variables. */
bool watched(const void *address);
void plain_access(const void *address, unsigned bytes, bool write);
/* An atomic access: in no race with others of its kind, but with the memory's beginning and end. */
void atomic_access(const void *address);
/* The memory changed hands with the allocator. */
void memory_born(const void *memory, u64 bytes);
void memory_died(const void *memory, u64 bytes);

} // namespace kvmpp::explore
