/* SPDX-License-Identifier: GPL-2.0 */
#pragma once

namespace kvmpp::explore
{

/* Nobody is inside. */
void reset_rcu();
/* The running process is. */
bool inside_rcu();
/* Anybody is. */
bool any_inside_rcu();

} // namespace kvmpp::explore
