// SPDX-License-Identifier: GPL-2.0
/* Waiting for a CPU that Linux does not have, and that can send no more than an NMI. */
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include <linux_glue/dedicated.h>

struct glue_bell {
	wait_queue_head_t waiting;
	struct irq_work ring;
};

static void ring(struct irq_work *work)
{
	wake_up_all(&container_of(work, struct glue_bell, ring)->waiting);
}

struct glue_bell *glue_bell_create(void)
{
	/* Of a CPU, whoever had it first. */
	struct glue_bell *bell = kzalloc(sizeof(*bell), GFP_KERNEL);

	if (bell) {
		init_waitqueue_head(&bell->waiting);
		init_irq_work(&bell->ring, ring);
	}
	return bell;
}

void glue_bell_destroy(struct glue_bell *bell)
{
	irq_work_sync(&bell->ring);
	kfree(bell);
}

void glue_bell_ring(struct glue_bell *bell)
{
	/* An NMI cannot take the lock of who waits. */
	irq_work_queue(&bell->ring);
}

int glue_bell_wait(struct glue_bell *bell, int (*done)(void *), void *argument, int interruptible,
		   unsigned int ms)
{
	long timeout = ms ? msecs_to_jiffies(ms) : MAX_SCHEDULE_TIMEOUT;

	if (interruptible)
		timeout = wait_event_interruptible_timeout(bell->waiting, done(argument), timeout);
	else
		timeout = wait_event_timeout(bell->waiting, done(argument), timeout);
	if (timeout < 0)
		return -EINTR;
	return timeout ? 0 : -ETIMEDOUT;
}
