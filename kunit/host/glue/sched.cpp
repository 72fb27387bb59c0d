// SPDX-License-Identifier: GPL-2.0
#include "model/cpus.hpp"
#include "model/memory.hpp"
#include "model/thread.hpp"
#include "model/violation.hpp"

#include <asm/errno.h>
#include <linux_glue/guest.h>
#include <linux_glue/sched.h>

#include <set>
#include <utility>

/* A thread is its number; both kinds of references are to that. */
struct glue_pid {
	int thread;
};
struct glue_task {
	int thread;
};

namespace kvmpp::host
{

namespace
{

int current_thread;
u64 run_delay;
std::set<int> ended;
std::function<int(int)> yield_hook;
std::function<void()> sleep_hook;
unsigned slept;

} // namespace

void reset_threads()
{
	current_thread = 0;
	run_delay = 0;
	ended.clear();
	yield_hook = nullptr;
	sleep_hook = nullptr;
	slept = 0;
}

void switch_thread(int thread)
{
	current_thread = thread;
}

void end_thread(int thread)
{
	ended.insert(thread);
}

void add_run_delay(u64 ns)
{
	run_delay += ns;
}

void on_yield(std::function<int(int)> function)
{
	yield_hook = std::move(function);
}

void on_sleep(std::function<void()> function)
{
	sleep_hook = std::move(function);
}

unsigned times_slept()
{
	return slept;
}

} // namespace kvmpp::host

using namespace kvmpp::host;

glue_pid *glue_pid_of_current(void)
{
	count_allocation(1);
	return new glue_pid{current_thread};
}

void glue_pid_put(glue_pid *pid)
{
	count_allocation(-1);
	delete pid;
}

int glue_pid_is_current(const glue_pid *pid)
{
	return pid->thread == current_thread;
}

glue_task *glue_task_of(glue_pid *pid)
{
	if (ended.contains(pid->thread))
		return nullptr;
	count_allocation(1);
	return new glue_task{pid->thread};
}

void glue_task_put(glue_task *task)
{
	count_allocation(-1);
	delete task;
}

int glue_yield_to(glue_task *task)
{
	might_sleep("yield_to()");
	return yield_hook ? yield_hook(task->thread) : 0;
}

void glue_sleeper_init(glue_sleeper *sleeper)
{
	sleeper->opaque = nullptr;
}

int glue_sleep_until(glue_sleeper *sleeper, int (*condition)(void *context), void *context)
{
	might_sleep("a sleep");
	for (;;) {
		/* Others see it here from now on. */
		sleeper->opaque = sleeper;
		if (condition(context)) {
			sleeper->opaque = nullptr;
			return 0;
		}
		if (glue_signal_pending()) {
			sleeper->opaque = nullptr;
			return -EINTR;
		}
		slept++;
		if (sleep_hook)
			sleep_hook();
		if (sleeper->opaque && !glue_signal_pending()) {
			violation("a sleep that nobody ends");
			sleeper->opaque = nullptr;
			return -EINTR;
		}
	}
}

void glue_wake(glue_sleeper *sleeper)
{
	sleeper->opaque = nullptr;
}

glue_u64 glue_run_delay(void)
{
	return run_delay;
}

int glue_counts_run_delay(void)
{
	return 1;
}
