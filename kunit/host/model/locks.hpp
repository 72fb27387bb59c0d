/* SPDX-License-Identifier: GPL-2.0 */
/* Which locks the thread holds, checked against the order that ARCHITECTURE gives. */
#pragma once

#include <linux_glue/lock.h>

namespace kvmpp::host
{

void reset_locks();
bool is_held(glue_lock_class lock_class);
bool any_lock_held();
/* The next glue_mutex_lock_killable() is interrupted by a fatal signal. */
void kill_next_lock();

} // namespace kvmpp::host
