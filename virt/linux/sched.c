// SPDX-License-Identifier: GPL-2.0
#include <linux/pid.h>
#include <linux/rcuwait.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <linux/sched/task.h>

#include <linux_glue/sched.h>

struct glue_pid *glue_pid_of_current(void)
{
	return (struct glue_pid *)get_task_pid(current, PIDTYPE_PID);
}

void glue_pid_put(struct glue_pid *pid)
{
	put_pid((struct pid *)pid);
}

int glue_pid_is_current(const struct glue_pid *pid)
{
	return (const struct pid *)pid == task_pid(current);
}

struct glue_task *glue_task_of(struct glue_pid *pid)
{
	return (struct glue_task *)get_pid_task((struct pid *)pid, PIDTYPE_PID);
}

void glue_task_put(struct glue_task *task)
{
	put_task_struct((struct task_struct *)task);
}

int glue_yield_to(struct glue_task *task)
{
	return yield_to((struct task_struct *)task, true);
}

static struct rcuwait *to_rcuwait(struct glue_sleeper *sleeper)
{
	BUILD_BUG_ON(sizeof(struct rcuwait) > sizeof(sleeper->opaque));
	return (struct rcuwait *)&sleeper->opaque;
}

void glue_sleeper_init(struct glue_sleeper *sleeper)
{
	rcuwait_init(to_rcuwait(sleeper));
}

int glue_sleep_until(struct glue_sleeper *sleeper, int (*condition)(void *context), void *context)
{
	return rcuwait_wait_event(to_rcuwait(sleeper), condition(context), TASK_INTERRUPTIBLE);
}

void glue_wake(struct glue_sleeper *sleeper)
{
	rcuwait_wake_up(to_rcuwait(sleeper));
}

glue_u64 glue_run_delay(void)
{
#ifdef CONFIG_SCHED_INFO
	return current->sched_info.run_delay;
#else
	return 0;
#endif
}

int glue_counts_run_delay(void)
{
	return sched_info_on();
}
