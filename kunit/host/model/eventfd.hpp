/* SPDX-License-Identifier: GPL-2.0 */
/* eventfds of the VMM. */
#pragma once

#include "include/kvmpp/types.hpp"

#include <functional>

namespace kvmpp::host
{

void reset_eventfds();

/* eventfd(2); write(2) of a 1 to one, or whatever else signals it, in an interrupt; close(2) of the last file. */
int create_eventfd();
void signal_eventfd(int fd);
void close_eventfd(int fd);
/* How often it was signalled since it was asked last, if nobody was there to take it. Also of one that is closed. */
u64 take_signals(int fd);
/* References that glue_eventfd_get() gave and glue_eventfd_put() has not taken back. */
int eventfds_held();
/* Called once, as the module is about to begin, or to cease, to wait for one. */
void before_next_wait(std::function<void()> function);
void before_next_leave(std::function<void()> function);

} // namespace kvmpp::host
