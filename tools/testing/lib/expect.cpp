// SPDX-License-Identifier: GPL-2.0
#include "expect.hpp"

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <unistd.h>

namespace expect
{
namespace
{

FailureHandler failure_handler;

} // namespace

void note(const char *format, ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	std::vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	std::printf("# %s\n", text);
	std::fflush(stdout);
}

void fail(const char *format, ...)
{
	char text[512];
	va_list args;
	va_start(args, format);
	std::vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (failure_handler)
		failure_handler(text);
	else
		note("%s", text);
	_exit(1);
}

const char *file_name(const std::source_location &where)
{
	const char *slash = std::strrchr(where.file_name(), '/');
	return slash ? slash + 1 : where.file_name();
}

void set_failure_handler(FailureHandler handler)
{
	failure_handler = handler;
}

void fail_compare(const char *what, unsigned long long seen, unsigned long long wanted,
		  const std::source_location &where)
{
	fail("%s:%u: %s is %#llx, expected %#llx", file_name(where), where.line(), what, seen,
	     wanted);
}

void fail_condition(const char *what, const std::source_location &where)
{
	fail("%s:%u: not so: %s (errno %d, %s)", file_name(where), where.line(), what, errno,
	     std::strerror(errno));
}

void wait_for(const char *what, const std::function<bool()> &condition, unsigned seconds)
{
	for (unsigned i = 0; i < seconds * 200; i++) {
		if (condition())
			return;
		usleep(5'000);
	}
	fail("not within %u s: %s", seconds, what);
}

} // namespace expect
