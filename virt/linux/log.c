// SPDX-License-Identifier: GPL-2.0
#include <linux/printk.h>
#include <linux/ratelimit.h>

#include <linux_glue/log.h>

#define LOG(level, format)                                                                         \
	do {                                                                                       \
		struct va_format vaf;                                                              \
		va_list args;                                                                      \
		va_start(args, format);                                                            \
		vaf.fmt = format;                                                                  \
		vaf.va = &args;                                                                    \
		printk(level "kvmpp: %pV\n", &vaf);                                                \
		va_end(args);                                                                      \
	} while (0)

void glue_log_err(const char *format, ...)
{
	LOG(KERN_ERR, format);
}

void glue_log_ratelimited(const char *format, ...)
{
	static DEFINE_RATELIMIT_STATE(limit, DEFAULT_RATELIMIT_INTERVAL, 3);

	if (__ratelimit(&limit))
		LOG(KERN_ERR, format);
}
