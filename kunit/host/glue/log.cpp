// SPDX-License-Identifier: GPL-2.0
#include "model/log.hpp"

#include "model/dedicated.hpp"

#include <linux_glue/log.h>

#include <cstdarg>
#include <cstdio>
#include <utility>

namespace kvmpp::host
{

namespace
{

std::vector<std::string> lines;

void add_line(const char *format, va_list args)
{
	char line[200];

	forbid_bare("printk()");
	std::vsnprintf(line, sizeof(line), format, args);
	lines.emplace_back(line);
}

} // namespace

std::vector<std::string> take_log()
{
	return std::exchange(lines, {});
}

} // namespace kvmpp::host

#define DEFINE_LOG(name)                                                                           \
	void name(const char *format, ...)                                                         \
	{                                                                                          \
		va_list args;                                                                      \
		va_start(args, format);                                                            \
		kvmpp::host::add_line(format, args);                                               \
		va_end(args);                                                                      \
	}

DEFINE_LOG(glue_log_err)
DEFINE_LOG(glue_log_ratelimited)
