/* SPDX-License-Identifier: GPL-2.0 */
/* What Linux does to the module besides hotplug: it takes pages away; and what it holds. */
#pragma once

#include "include/kvmpp/types.hpp"

#include <linux_glue/file.h>

namespace kvmpp::explore
{

/* Where the VMM's few pages are. */
inline constexpr u64 user_memory = 0x7f0000000000;

void reset_linux();
void check_linux_at_rest();
/* One entry of Linux's page table maps them, and all of the 2 MiB around, to frames that are neighbours. */
void make_memory_large();
/* Who looks a page up gets the next one as well. */
void look_ahead();
u64 frame_of_page(u64 page);
/*
 * The MMU notifier's user: the page gets another frame, in an entry of its own, and the old one another owner.
 * It tells of @bytes.
 */
void take_page_away(u64 page, u64 bytes = page_size);
/* The object behind the file made last. */
void *new_file();

} // namespace kvmpp::explore
