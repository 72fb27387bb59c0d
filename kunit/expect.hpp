/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What test cases for KUnit are written with in C++. A case is a function in the anonymous namespace;
 * cases.h has its name. File, line and expression go into the KTAP output: hence macros.
 */
#pragma once

#include "cases.h"
#include "include/kvmpp/types.hpp"

#include <type_traits>

namespace kvmpp::kunit
{

template <class T> constexpr u64 as_number(const T &value)
{
	if constexpr (std::is_pointer_v<T>)
		return reinterpret_cast<u64>(value);
	else
		return static_cast<u64>(value);
}

} // namespace kvmpp::kunit

#define TEST_CASE(name) void name(struct kunit *test)

#define EXPECT(expression)                                                                         \
	do {                                                                                       \
		if (!(expression))                                                                 \
			test_failed(test, __FILE__, __LINE__, #expression);                        \
	} while (0)

#define EXPECT_EQ(left, right)                                                                     \
	do {                                                                                       \
		auto l = kvmpp::kunit::as_number(left);                                            \
		auto r = kvmpp::kunit::as_number(right);                                           \
		if (l != r)                                                                        \
			test_failed_values(test, __FILE__, __LINE__, #left " == " #right, l, r);   \
	} while (0)

/* The rest of the case makes no sense without. */
#define ASSERT(expression)                                                                         \
	do {                                                                                       \
		if (!(expression)) {                                                               \
			test_failed(test, __FILE__, __LINE__, #expression);                        \
			return;                                                                    \
		}                                                                                  \
	} while (0)
