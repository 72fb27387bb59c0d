// SPDX-License-Identifier: GPL-2.0
#include <linux/err.h>
#include <linux/eventfd.h>

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
