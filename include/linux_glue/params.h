/* SPDX-License-Identifier: GPL-2.0 */
/* The module's parameters, as they were given when it was inserted. */
#ifndef LINUX_GLUE_PARAMS_H
#define LINUX_GLUE_PARAMS_H

#include "base.h"

GLUE_BEGIN

/* Of PAUSE-loop exiting, in ticks of the TSC. A gap of 0: none is wanted. */
glue_u32 glue_ple_gap(void);
glue_u32 glue_ple_window(void);

GLUE_END

#endif
