/* SPDX-License-Identifier: GPL-2.0 */
/* Numbers from 1 to 65535, each had by one vCPU at a time. */
#ifndef LINUX_GLUE_VPID_H
#define LINUX_GLUE_VPID_H

#include "base.h"

GLUE_BEGIN

/* The lowest that nobody has; negative when there is none, or no memory. May sleep. */
int glue_vpid_alloc(void) MAY_SLEEP;
/* Any context but NMI. */
void glue_vpid_free(glue_u16 vpid);

GLUE_END

#endif
