// SPDX-License-Identifier: GPL-2.0
#include "violation.hpp"

#include <cstdarg>
#include <cstdio>
#include <utility>

namespace kvmpp::host
{

namespace
{

std::vector<std::string> noted;

} // namespace

void violation(const char *format, ...)
{
	char line[200];
	va_list args;

	va_start(args, format);
	std::vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	noted.emplace_back(line);
}

std::vector<std::string> take_violations()
{
	return std::exchange(noted, {});
}

} // namespace kvmpp::host
