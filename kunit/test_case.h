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

GLUE_END

#endif
