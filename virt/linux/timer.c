// SPDX-License-Identifier: GPL-2.0
#include <linux/hrtimer.h>

#include <linux_glue/timer.h>

static struct hrtimer *to_hrtimer(struct glue_timer *timer)
{
	return (struct hrtimer *)timer->opaque;
}

static enum hrtimer_restart expired(struct hrtimer *hrtimer)
{
	struct glue_timer *timer = container_of((void *)hrtimer, struct glue_timer, opaque);
	u64 next = timer->expired(timer);

	if (!next)
		return HRTIMER_NORESTART;
	hrtimer_set_expires(hrtimer, ns_to_ktime(next));
	return HRTIMER_RESTART;
}

glue_u64 glue_timer_now(void)
{
	return ktime_get_ns();
}

void glue_timer_init(struct glue_timer *timer, glue_u64 (*function)(struct glue_timer *timer))
{
	hrtimer_init(to_hrtimer(timer), CLOCK_MONOTONIC, HRTIMER_MODE_ABS_HARD);
	to_hrtimer(timer)->function = expired;
	timer->expired = function;
}

void glue_timer_start(struct glue_timer *timer, glue_u64 when)
{
	hrtimer_start(to_hrtimer(timer), ns_to_ktime(when), HRTIMER_MODE_ABS_HARD);
}

void glue_timer_cancel(struct glue_timer *timer)
{
	hrtimer_cancel(to_hrtimer(timer));
}
