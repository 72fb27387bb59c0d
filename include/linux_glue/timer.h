/* SPDX-License-Identifier: GPL-2.0 */
/* High-resolution timers of Linux, for the timers of guests. */
#ifndef LINUX_GLUE_TIMER_H
#define LINUX_GLUE_TIMER_H

#include "base.h"
#include <generated/glue_sizes.h>

GLUE_BEGIN

struct glue_timer {
	glue_u64 opaque[(GLUE_HRTIMER_SIZE + 7) / 8];
	/*
	 * Called in an interrupt, interrupts off. Returns when to be called again, as glue_timer_now(), if nobody
	 * may start it meanwhile; 0 for not, or where it has started it itself.
	 */
	glue_u64 (*expired)(struct glue_timer *timer);
};

/* Nanoseconds of CLOCK_MONOTONIC. Any context. */
glue_u64 glue_timer_now(void);
/* Once. @expired is called on the CPU that starts it. */
void glue_timer_init(struct glue_timer *timer, glue_u64 (*expired)(struct glue_timer *timer));
/* In place of whatever was set before. Any context but NMI. */
void glue_timer_start(struct glue_timer *timer, glue_u64 when);
/* Nobody is in expired() when it returns, and nothing is set. Interrupts on. May sleep (PREEMPT_RT). */
void glue_timer_cancel(struct glue_timer *timer) MAY_SLEEP;

GLUE_END

#endif
