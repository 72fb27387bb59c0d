// SPDX-License-Identifier: GPL-2.0
/* Names of threads, and yielding to one. A name, as all memory, must not be used after its end. */
#include "dedicated.hpp"
#include "machine.hpp"

#include <linux_glue/alloc.h>
#include <linux_glue/sched.h>

#include "races.hpp"

using namespace kvmpp::explore;
using kvmpp::u64;

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

/* As rcuwait_wait_event() without signals: it says that it sleeps, looks, and sleeps until it is woken. */
int glue_sleep_until(glue_sleeper *sleeper, int (*condition)(void *context), void *context)
{
	might_sleep("schedule()");
	for (;;) {
		step(Op{.what = "says that it sleeps", .fence = true}.write(object_at(sleeper)));
		sleeper->opaque = sleeper;
		if (condition(context))
			return 0;
		step(Op{.what = "sleeps"}
			     .read(object_at(sleeper))
			     .when(
				     [](u64 s) {
					     return !reinterpret_cast<glue_sleeper *>(s)->opaque;
				     },
				     reinterpret_cast<u64>(sleeper)));
	}
}

void glue_wake(glue_sleeper *sleeper)
{
	step(Op{.what = "wakes who sleeps", .fence = true}.write(object_at(sleeper)));
	sleeper->opaque = nullptr;
}

glue_u64 glue_run_delay(void)
{
	return 0;
}

int glue_counts_run_delay(void)
{
	return 1;
}
