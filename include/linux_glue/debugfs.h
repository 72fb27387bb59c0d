/* SPDX-License-Identifier: GPL-2.0 */
/* Text files below debugfs' kvmpp/, each written by the kvmpp_show_*() of its name. */
#ifndef LINUX_GLUE_DEBUGFS_H
#define LINUX_GLUE_DEBUGFS_H

#include "base.h"

GLUE_BEGIN

/* A read in progress. */
struct glue_text;
void glue_text_print(struct glue_text *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

void glue_debugfs_create(void);
void glue_debugfs_remove(void);

GLUE_END

#endif
