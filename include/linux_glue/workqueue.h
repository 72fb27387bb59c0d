/* SPDX-License-Identifier: GPL-2.0 */
/* Work for Linux's system workqueue: what an interrupt finds to be done by who may sleep. */
#ifndef LINUX_GLUE_WORKQUEUE_H
#define LINUX_GLUE_WORKQUEUE_H

#include "base.h"
#include <generated/glue_sizes.h>

GLUE_BEGIN

struct glue_work {
	glue_u64 opaque[(GLUE_WORK_SIZE + 7) / 8];
	/* Called in a thread of Linux's, no lock held. May sleep. */
	void (*function)(struct glue_work *work);
};

/* Once, before the first use. */
void glue_work_init(struct glue_work *work, void (*function)(struct glue_work *work));
/* Has function() called once more, if it does not wait for that already. Any context but NMI. */
void glue_work_queue(struct glue_work *work);
/*
 * Nobody is in function() when it returns, and nothing is queued. Not inside it, nor with a lock that it
 * takes. Sleeps.
 */
void glue_work_cancel(struct glue_work *work) MAY_SLEEP;

GLUE_END

#endif
