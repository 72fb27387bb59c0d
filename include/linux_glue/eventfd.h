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

/*
 * Who is told of an eventfd first, and alone: what comes is taken out of it before anybody reads it. Both are
 * called by whoever signals or closes it, under the lock of its wait queue, interrupts off.
 */
struct glue_eventfd_waiter {
	glue_u64 opaque[5];
	struct glue_eventfd *eventfd;
	void (*signalled)(struct glue_eventfd_waiter *waiter);
	/* Its last file is closed: it is not signalled any more by user space. */
	void (*closed)(struct glue_eventfd_waiter *waiter);
};
/*
 * Begins to wait for @waiter->eventfd, to which the caller has a reference. Positive if it has been signalled
 * before, of which nobody is told; 0; or -EBADF if @fd of the current process is not that eventfd (any more).
 */
int glue_eventfd_wait(int fd, struct glue_eventfd_waiter *waiter);
/* Nobody is told any more, or is in the middle of it, when this returns. Not inside one of the two. */
void glue_eventfd_leave(struct glue_eventfd_waiter *waiter);

GLUE_END

#endif
