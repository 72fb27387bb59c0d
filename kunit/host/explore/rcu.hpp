/* SPDX-License-Identifier: GPL-2.0 */
#pragma once

namespace kvmpp::explore
{

/* Nobody is inside; nobody waits for a count. */
void reset_rcu();
void reset_waits();
/* The running process is. */
bool inside_rcu();
/* Anybody is. */
bool any_inside_rcu();

} // namespace kvmpp::explore
