/* SPDX-License-Identifier: GPL-2.0 */
/* Linux's system workqueue, which runs when the test says so. */
#pragma once

namespace kvmpp::host
{

void reset_workqueue();
/* Its thread has its turn: what is queued runs. How many that were. */
int run_workqueue();
/* How many wait for that. */
int work_queued();

} // namespace kvmpp::host
