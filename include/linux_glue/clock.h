/* SPDX-License-Identifier: GPL-2.0 */
/* Linux's clocks. */
#ifndef LINUX_GLUE_CLOCK_H
#define LINUX_GLUE_CLOCK_H

#include "base.h"

GLUE_BEGIN

/* Clocks at one moment. */
struct glue_clock {
	glue_u64 tsc;
	/* Nanoseconds since boot that nobody adjusts, the time asleep included; and since 1970. */
	glue_u64 boot_ns, real_ns;
};
void glue_clock_read(struct glue_clock *clock);
/* The TSCs of all CPUs agree and go at one rate, glue_tsc_khz(), as far as Linux knows. */
int glue_tsc_stable(void);

GLUE_END

#endif
