/* SPDX-License-Identifier: GPL-2.0 */
/* Linux's timers, with a clock that the test moves. */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::host
{

/* At 1 s, no timer set. */
void reset_timers();
/* Runs, in order, what expires until then, interrupts off. */
void advance_timers(u64 ns);
/* The same, with interrupts held up until then. */
void advance_timers_late(u64 ns);
/* How many are set. */
int timers_set();

} // namespace kvmpp::host
