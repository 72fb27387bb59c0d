/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel log. Every line starts with "kvmpp: ". */
#ifndef LINUX_GLUE_LOG_H
#define LINUX_GLUE_LOG_H

#include "base.h"

GLUE_BEGIN

/* printk formats; no newline at the end. Any context. */
void glue_log_err(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* As glue_log_err(), at most a few lines in some seconds: for what user space can provoke. */
void glue_log_ratelimited(const char *format, ...) __attribute__((format(printf, 1, 2)));

GLUE_END

#endif
