// SPDX-License-Identifier: GPL-2.0
#include "model/timer.hpp"

#include "model/violation.hpp"

#include <linux_glue/cpu.h>
#include <linux_glue/timer.h>

#include <map>

namespace kvmpp::host
{

namespace
{

constexpr u64 start = 1'000'000'000;
u64 now = start;
std::map<glue_timer *, u64> set;

} // namespace

void reset_timers()
{
	now = start;
	set.clear();
}

void advance_timers(u64 ns)
{
	u64 end = now + ns;

	for (;;) {
		auto first = set.end();
		for (auto it = set.begin(); it != set.end(); ++it)
			if (it->second <= end && (first == set.end() || it->second < first->second))
				first = it;
		if (first == set.end())
			break;
		glue_timer *timer = first->first;
		if (first->second > now)
			now = first->second;
		set.erase(first);
		glue_u64 flags = glue_irq_save();
		glue_u64 next = timer->expired(timer);
		glue_irq_restore(flags);
		if (next && !set.count(timer))
			set[timer] = next;
	}
	now = end;
}

void advance_timers_late(u64 ns)
{
	now += ns;
	advance_timers(0);
}

int timers_set()
{
	return static_cast<int>(set.size());
}

} // namespace kvmpp::host

using namespace kvmpp::host;

glue_u64 glue_timer_now(void)
{
	return now;
}

void glue_timer_init(glue_timer *timer, glue_u64 (*expired)(glue_timer *timer))
{
	timer->expired = expired;
}

void glue_timer_start(glue_timer *timer, glue_u64 when)
{
	if (!timer->expired)
		violation("a timer started that was not initialised");
	set[timer] = when;
}

void glue_timer_cancel(glue_timer *timer)
{
	set.erase(timer);
}
