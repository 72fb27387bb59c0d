/* SPDX-License-Identifier: GPL-2.0 */
/* Which locks the thread holds, checked against the order that ARCHITECTURE gives. */
#pragma once

#include <linux_glue/lock.h>

#include <functional>

namespace kvmpp::host
{

void reset_locks();
bool is_held(glue_lock_class lock_class);
bool any_lock_held();
/* Runs @function in a thread that holds no lock; the ones that are held stay so. */
void in_another_thread(const std::function<void()> &function);
/* No RCU grace period ends from now on but by rcu_barrier(). */
void hold_grace_periods();
/* The next glue_mutex_lock_killable() is interrupted by a fatal signal. */
void kill_next_lock();

} // namespace kvmpp::host
