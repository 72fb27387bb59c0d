/* SPDX-License-Identifier: GPL-2.0 */
/* eventfds of the VMM. */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::host
{

void reset_eventfds();

/* eventfd(2), and close(2) of one. */
int create_eventfd();
void close_eventfd(int fd);
/* How often it was signalled since it was asked last. Also of one that is closed. */
u64 take_signals(int fd);
/* References that glue_eventfd_get() gave and glue_eventfd_put() has not taken back. */
int eventfds_held();

} // namespace kvmpp::host
