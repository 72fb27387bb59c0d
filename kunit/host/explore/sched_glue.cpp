// SPDX-License-Identifier: GPL-2.0
/* Names of threads, and yielding to one. A name, as all memory, must not be used after its end. */
#include "dedicated.hpp"
#include "machine.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/sched.h>

#include "races.hpp"

using namespace kvmpp::explore;

struct glue_pid {
	int thread;
};

struct glue_task {
	int thread;
};

namespace
{

int thread_of(const glue_pid *pid)
{
	plain_access(&pid->thread, sizeof(pid->thread), false);
	return pid->thread;
}

} // namespace

glue_pid *glue_pid_of_current(void)
{
	auto *pid = static_cast<glue_pid *>(glue_zalloc(sizeof(glue_pid)));

	plain_access(&pid->thread, sizeof(pid->thread), true);
	pid->thread = running;
	return pid;
}

void glue_pid_put(glue_pid *pid)
{
	glue_free(pid);
}

int glue_pid_is_current(const glue_pid *pid)
{
	return thread_of(pid) == running;
}

/* All live. */
glue_task *glue_task_of(glue_pid *pid)
{
	static glue_task tasks[max_processes + 1];
	glue_task &task = tasks[thread_of(pid) + 1];

	task.thread = pid->thread;
	return &task;
}

void glue_task_put(glue_task *)
{
}

/* Those that were there from the start are of no use, so that it goes on; others are. */
int glue_yield_to(glue_task *task)
{
	might_sleep("yield_to()");
	return task->thread != nobody;
}

void glue_sleeper_init(glue_sleeper *sleeper)
{
	sleeper->opaque = nullptr;
}

/* Who looks after it can be woken misses nothing: as any condition that others make true. */
int glue_sleep_until(glue_sleeper *, int (*condition)(void *context), void *context)
{
	might_sleep("schedule()");
	while (!condition(context)) {
		if (signal_is_pending())
			return -4;
		wait_for_change("sleeps");
	}
	return 0;
}

void glue_wake(glue_sleeper *)
{
}

glue_u64 glue_run_delay(void)
{
	return 0;
}

int glue_counts_run_delay(void)
{
	return 1;
}
