// SPDX-License-Identifier: GPL-2.0
#include <linux_glue/debugfs.h>

#include <cstdarg>
#include <cstdio>
#include <string>

/* A read in progress is a string. */
void glue_text_print(glue_text *text, const char *format, ...)
{
	char line[200];
	va_list args;

	va_start(args, format);
	std::vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	*reinterpret_cast<std::string *>(text) += line;
}

void glue_debugfs_create(void)
{
}

void glue_debugfs_remove(void)
{
}
