/* SPDX-License-Identifier: GPL-2.0 */
/* eventfds of user space, held beyond the descriptor's end. */
#ifndef LINUX_GLUE_EVENTFD_H
#define LINUX_GLUE_EVENTFD_H

#include "base.h"

GLUE_BEGIN

struct glue_eventfd;
/* The one behind @fd of the current process, with a reference. 0, -EBADF, or -EINVAL where it is none. */
int glue_eventfd_get(int fd, struct glue_eventfd **eventfd);
void glue_eventfd_put(struct glue_eventfd *eventfd);
/* Adds 1. Any context but NMI. */
void glue_eventfd_signal(struct glue_eventfd *eventfd);

GLUE_END

#endif
