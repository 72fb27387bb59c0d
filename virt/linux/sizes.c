// SPDX-License-Identifier: GPL-2.0
/* Compiled to assembly only: the sizes of Linux's types that C++ holds as opaque storage, and flags of Linux's. */
#include <linux/kbuild.h>
#include <linux/entry-kvm.h>
#include <linux/hrtimer.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/workqueue.h>

int main(void);
int main(void)
{
	DEFINE(GLUE_MUTEX_SIZE, sizeof(struct mutex));
	DEFINE(GLUE_SPINLOCK_SIZE, sizeof(spinlock_t));
	DEFINE(GLUE_RWLOCK_SIZE, sizeof(rwlock_t));
	DEFINE(GLUE_SRCU_SIZE, sizeof(struct srcu_struct));
	DEFINE(GLUE_HRTIMER_SIZE, sizeof(struct hrtimer));
	DEFINE(GLUE_WORK_SIZE, sizeof(struct work_struct));
	DEFINE(GLUE_RCU_HEAD_SIZE, sizeof(struct rcu_head));
	DEFINE(GLUE_WORK_FLAGS, XFER_TO_GUEST_MODE_WORK);
	return 0;
}
