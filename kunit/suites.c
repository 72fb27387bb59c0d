// SPDX-License-Identifier: GPL-2.0
/* The suites as KUnit wants them, and what its output says of an expectation that C++ had. */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/cpu.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "cases.h"

#define LIST_CASE(suite, case_name) { .run_case = test_##suite##_##case_name, .name = #case_name },
#define DEFINE_SUITE(suite, CASES)                                                                 \
	static struct kunit_case suite##_cases[] = { CASES(LIST_CASE) {} };                        \
	static struct kunit_suite suite##_suite = {                                                \
		.name = "kvmpp_" #suite,                                                           \
		.test_cases = suite##_cases,                                                       \
	};
TEST_SUITES(DEFINE_SUITE)

#define LIST_SUITE(suite, CASES) &suite##_suite,
kunit_test_suites(TEST_SUITES(LIST_SUITE));

/* As KUnit's own macros put it. */
void test_failed(struct kunit *test, const char *file, int line, const char *expected)
{
	kunit_err(test, "EXPECTATION FAILED at kunit/%s:%d\n    Expected %s", kbasename(file), line,
		  expected);
	kunit_set_failure(test);
}

void test_failed_values(struct kunit *test, const char *file, int line, const char *expected,
			glue_u64 left, glue_u64 right)
{
	kunit_err(test, "EXPECTATION FAILED at kunit/%s:%d\n    Expected %s, but", kbasename(file),
		  line, expected);
	kunit_err(test, "    %lld (0x%llx) and %lld (0x%llx)", (long long)left,
		  (unsigned long long)left, (long long)right, (unsigned long long)right);
	kunit_set_failure(test);
}

void test_skip(struct kunit *test, const char *reason)
{
	kunit_mark_skipped(test, "%s", reason);
}

struct test_thread {
	void (*function)(void *argument);
	void *argument;
	struct completion done;
};

static int thread_main(void *data)
{
	struct test_thread *thread = data;

	thread->function(thread->argument);
	kthread_complete_and_exit(&thread->done, 0);
}

struct test_thread *test_thread_start(void (*function)(void *), void *argument)
{
	struct test_thread *thread = kmalloc(sizeof(*thread), GFP_KERNEL);

	if (!thread)
		return NULL;
	thread->function = function;
	thread->argument = argument;
	init_completion(&thread->done);
	if (IS_ERR(kthread_run(thread_main, thread, "kvmpp_kunit"))) {
		kfree(thread);
		return NULL;
	}
	return thread;
}

void test_thread_stop(struct test_thread *thread)
{
	wait_for_completion(&thread->done);
	kfree(thread);
}

void test_relax(void)
{
	usleep_range(1, 20);
}

void test_pin(int cpu)
{
	set_cpus_allowed_ptr(current, cpu < 0 ? cpu_possible_mask : cpumask_of(cpu));
}

int test_set_online(int cpu, int online)
{
	return online ? add_cpu(cpu) : remove_cpu(cpu);
}

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("KUnit suites of kvmpp");
