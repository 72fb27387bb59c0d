// SPDX-License-Identifier: GPL-2.0
#include "model/workqueue.hpp"

#include "model/cpus.hpp"
#include "model/locks.hpp"
#include "model/violation.hpp"

#include <linux_glue/workqueue.h>

#include <algorithm>
#include <vector>

namespace kvmpp::host
{

namespace
{

std::vector<glue_work *> queued;

} // namespace

void reset_workqueue()
{
	queued.clear();
}

int work_queued()
{
	return static_cast<int>(queued.size());
}

int run_workqueue()
{
	AnotherThread thread;
	int ran = 0;

	for (; !queued.empty(); ran++) {
		glue_work *work = queued.front();

		queued.erase(queued.begin());
		work->function(work);
		if (any_lock_held())
			violation("work leaves a lock behind");
	}
	return ran;
}

} // namespace kvmpp::host

using namespace kvmpp::host;

void glue_work_init(glue_work *work, void (*function)(glue_work *work))
{
	work->function = function;
}

void glue_work_queue(glue_work *work)
{
	if (!work->function)
		violation("work queued that was not initialised");
	if (std::find(queued.begin(), queued.end(), work) == queued.end())
		queued.push_back(work);
}

void glue_work_cancel(glue_work *work)
{
	might_sleep("cancel_work_sync()");
	if (any_lock_held())
		violation("work waited for with a lock held");
	std::erase(queued, work);
}
