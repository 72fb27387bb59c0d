// SPDX-License-Identifier: GPL-2.0
#include <linux/workqueue.h>

#include <linux_glue/workqueue.h>

static struct work_struct *to_work(struct glue_work *work)
{
	return (struct work_struct *)work->opaque;
}

static void work_runs(struct work_struct *work)
{
	struct glue_work *glue = container_of((void *)work, struct glue_work, opaque);

	glue->function(glue);
}

void glue_work_init(struct glue_work *work, void (*function)(struct glue_work *work))
{
	INIT_WORK(to_work(work), work_runs);
	work->function = function;
}

void glue_work_queue(struct glue_work *work)
{
	schedule_work(to_work(work));
}

void glue_work_cancel(struct glue_work *work)
{
	cancel_work_sync(to_work(work));
}
