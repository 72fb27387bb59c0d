/* SPDX-License-Identifier: GPL-2.0 */
/* Threads as the scheduler has them: who runs a vCPU, giving one's CPU to another, waiting for one. */
#ifndef LINUX_GLUE_SCHED_H
#define LINUX_GLUE_SCHED_H

#include "base.h"

GLUE_BEGIN

/* Names a thread, and outlives it. Linux's struct pid. */
struct glue_pid;
/* With a reference. Any context but interrupts. */
struct glue_pid *glue_pid_of_current(void);
/* Softirqs, too; not while anybody may look at it under RCU. */
void glue_pid_put(struct glue_pid *pid);
int glue_pid_is_current(const struct glue_pid *pid);

struct glue_task;
/* The thread, with a reference, or null when it has ended. */
struct glue_task *glue_task_of(struct glue_pid *pid);
void glue_task_put(struct glue_task *task);
/*
 * Has the scheduler run @task in place of the calling thread, soon. Positive when it will; 0 when
 * @task runs already or waits for something; -ESRCH when neither has a reason to yield: both are
 * alone on their CPUs. May sleep.
 */
int glue_yield_to(struct glue_task *task) MAY_SLEEP;

/* Where one thread sleeps until others have something for it. Linux's struct rcuwait. */
struct glue_sleeper {
	void *opaque;
};
void glue_sleeper_init(struct glue_sleeper *sleeper);
/*
 * Sleeps until @condition, which is looked at after it can be woken: a full barrier is in between. 0, or -EINTR
 * when a signal came, or something else for a thread that is about to return to user space. One thread at a time.
 */
int glue_sleep_until(struct glue_sleeper *sleeper, int (*condition)(void *context), void *context) MAY_SLEEP;
/* Wakes who sleeps there: a full barrier, then the look whether somebody does. Any context but NMI. */
void glue_wake(struct glue_sleeper *sleeper);

/* Nanoseconds for which the calling thread has waited for a CPU so far; and whether Linux counts them. */
glue_u64 glue_run_delay(void);
int glue_counts_run_delay(void);

GLUE_END

#endif
