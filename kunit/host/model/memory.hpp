/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory as the module gets it from Linux: what it has allocated, which allocation is to fail, and
 * which parts of the VMM's address space exist.
 */
#pragma once

#include "include/kvmpp/types.hpp"

#include <functional>

namespace kvmpp::host
{

void reset_memory();

/* Every allocation of any kind the module makes passes here: false is "no memory". */
bool may_allocate();
void count_allocation(int by);
/* How many allocations there are that were not freed. */
int live_allocations();
/* How many were asked for since the machine was reset. */
unsigned allocations_made();
/* The allocation after @count more fails, once. */
void fail_allocation_after(unsigned count);
bool allocation_failed();

/* [address, address + bytes) of the VMM is there; its bytes are this process's own. */
void add_user_memory(u64 address, u64 bytes, bool writable = true);
void remove_user_memory(u64 address);
/* The entries of Linux's page tables are for @frames frames there from now on, where that fits. */
void set_user_mapping_frames(u64 frames);
/* This is a CPU where a guest may not execute large pages. */
void set_executed_pages_must_be_small(bool small);
/* Called in the middle of each look-up of a page, when its frame is known. */
void on_user_page_get(std::function<void()> function);
/* So many pages after one that is looked up are there as well. */
void set_user_pages_ahead(int pages);
/* The next look-up of a page that is there fails with @error all the same. */
void fail_next_user_page_get(int error);
/* What glue_user_page_lost() was called with since it was asked last, or 0. */
u64 user_page_lost();
/* ioctls are a 32-bit program's from now on. */
void set_caller_is_32_bits(bool is);
/* The VMM's memory is there, but only for who can wait for it. */
void set_swapped_out(bool swapped);
/* Called once, before the next glue_user_compare_exchange() looks at what is there. */
void on_compare_exchange(std::function<void()> function);
/* References that glue_user_pages_get() gave and glue_user_page_put() has not taken back. */
int user_pages_held();
unsigned user_pages_dirtied();
unsigned user_pages_accessed();

/* A signal comes while the next MMU notifier is registered. */
void interrupt_next_notifier_registration();

/* The next thing asked for as "the current process" is another one than before. */
void switch_process(int process);

} // namespace kvmpp::host
