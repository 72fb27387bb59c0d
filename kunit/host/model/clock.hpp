/* SPDX-License-Identifier: GPL-2.0 */
/* Linux's clocks, which stand still until they are told to go on. */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::host
{

void reset_clock();

/* Nanoseconds pass; the TSC counts a thousand ticks each millisecond, for each kHz. */
void pass_time(u64 ns);
/* The machine sleeps that long: TSCs begin anew, and the module is told. */
void sleep_for(u64 ns);
void set_tsc_stable(bool stable);
u64 real_time();

} // namespace kvmpp::host
