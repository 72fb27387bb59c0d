// SPDX-License-Identifier: GPL-2.0
//
// Checks that end the program with a message saying where, what was expected and what was seen.
#pragma once

#include <concepts>
#include <functional>
#include <source_location>
#include <type_traits>

namespace expect
{

// A diagnostic line, "# ...".
[[gnu::format(printf, 1, 2)]] void note(const char *format, ...);

// Ends the process, good from every thread of it.
[[noreturn, gnu::format(printf, 1, 2)]] void fail(const char *format, ...);

// What fail() does with its text, by default note it and exit(1). It must not return.
using FailureHandler = void (*)(const char *text);
void set_failure_handler(FailureHandler handler);

// The file's name without its directories.
const char *file_name(const std::source_location &where);

[[noreturn]] void fail_compare(const char *what, unsigned long long seen, unsigned long long wanted,
			       const std::source_location &where);
[[noreturn]] void fail_condition(const char *what, const std::source_location &where);

template <typename T>
concept Comparable = std::integral<T> || std::is_enum_v<T> || std::is_pointer_v<T>;

template <Comparable T> constexpr unsigned long long printable(T value)
{
	if constexpr (std::is_pointer_v<T>)
		return reinterpret_cast<unsigned long long>(value);
	else
		return static_cast<unsigned long long>(value);
}

// Compares as 64-bit numbers, so that the sides' types need not agree in sign and width.
template <Comparable A, Comparable B>
void equal(const char *what, A seen, B wanted,
	   const std::source_location &where = std::source_location::current())
{
	if (printable(seen) != printable(wanted))
		fail_compare(what, printable(seen), printable(wanted), where);
}

inline void that(const char *what, bool condition,
		 const std::source_location &where = std::source_location::current())
{
	if (!condition)
		fail_condition(what, where);
}

// Looks every few milliseconds; fails after so many seconds.
void wait_for(const char *what, const std::function<bool()> &condition, unsigned seconds = 20);

} // namespace expect
