// SPDX-License-Identifier: GPL-2.0
#include <linux/err.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/poll.h>
#include <linux/wait.h>

#include <linux_glue/eventfd.h>

#include "compat.h"

static struct eventfd_ctx *to_context(struct glue_eventfd *eventfd)
{
	return (struct eventfd_ctx *)eventfd;
}

int glue_eventfd_get(int fd, struct glue_eventfd **eventfd)
{
	struct eventfd_ctx *context = eventfd_ctx_fdget(fd);

	if (IS_ERR(context))
		return PTR_ERR(context);
	*eventfd = (struct glue_eventfd *)context;
	return 0;
}

void glue_eventfd_put(struct glue_eventfd *eventfd)
{
	eventfd_ctx_put(to_context(eventfd));
}

void glue_eventfd_signal(struct glue_eventfd *eventfd)
{
	compat_eventfd_signal(to_context(eventfd));
}

static wait_queue_entry_t *to_entry(struct glue_eventfd_waiter *waiter)
{
	BUILD_BUG_ON(sizeof(wait_queue_entry_t) > sizeof(waiter->opaque));
	return (wait_queue_entry_t *)waiter->opaque;
}

static int woken(wait_queue_entry_t *entry, unsigned int mode, int flags, void *key)
{
	struct glue_eventfd_waiter *waiter =
		container_of((void *)entry, struct glue_eventfd_waiter, opaque);
	__poll_t events = key_to_poll(key);
	int taken = 0;

	if (events & EPOLLIN) {
		u64 count;

		eventfd_ctx_do_read(to_context(waiter->eventfd), &count);
		waiter->signalled(waiter);
		taken = 1;
	}
	if (events & EPOLLHUP)
		waiter->closed(waiter);
	return taken;
}

/* Polling is the one way to an eventfd's wait queue. */
struct waiter_poll {
	poll_table table;
	struct glue_eventfd_waiter *waiter;
};

static void add_waiter(struct file *file, wait_queue_head_t *queue, poll_table *table)
{
	struct waiter_poll *poll = container_of(table, struct waiter_poll, table);

	add_wait_queue_priority(queue, to_entry(poll->waiter));
}

int glue_eventfd_wait(int fd, struct glue_eventfd_waiter *waiter)
{
	struct waiter_poll poll = {.waiter = waiter};
	struct file *file = fget(fd);
	struct eventfd_ctx *context;
	int ret = -EBADF;

	if (!file)
		return ret;
	context = eventfd_ctx_fileget(file);
	if (IS_ERR(context))
		goto out;
	if (context == to_context(waiter->eventfd)) {
		init_waitqueue_func_entry(to_entry(waiter), woken);
		init_poll_funcptr(&poll.table, add_waiter);
		ret = !!(vfs_poll(file, &poll.table) & EPOLLIN);
	}
	eventfd_ctx_put(context);
out:
	/* Not before: it cannot be closed unseen. */
	fput(file);
	return ret;
}

void glue_eventfd_leave(struct glue_eventfd_waiter *waiter)
{
	u64 count;

	eventfd_ctx_remove_wait_queue(to_context(waiter->eventfd), to_entry(waiter), &count);
}
