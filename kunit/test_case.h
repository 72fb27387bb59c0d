/* SPDX-License-Identifier: GPL-2.0 */
/* The border between KUnit, which only C can read, and the test cases in C++. */
#ifndef KUNIT_TEST_CASE_H
#define KUNIT_TEST_CASE_H

#include <linux_glue/base.h>

GLUE_BEGIN

struct kunit;

/* The case has failed at @file:@line, and goes on; @expected says what should have been. */
void test_failed(struct kunit *test, const char *file, int line, const char *expected);
/* Likewise, with the two values that should have been as @expected says. */
void test_failed_values(struct kunit *test, const char *file, int line, const char *expected,
			glue_u64 left, glue_u64 right);

/* The case does not apply here, for this reason; it is to return. */
void test_skip(struct kunit *test, const char *reason);

/* The thread stays on @cpu from now on; or, if -1, goes where it likes. */
void test_pin(int cpu);
/* Offline and online again. 0 or a negative errno. */
int test_set_online(int cpu, int online);

GLUE_END

#endif
