/* SPDX-License-Identifier: GPL-2.0 */
/* The host's stand-in for what Kbuild generates: the sizes of the locks in kunit/host/glue/lock.cpp,
   and the flags of kunit/host/glue/guest.cpp. */
#ifndef GENERATED_GLUE_SIZES_H
#define GENERATED_GLUE_SIZES_H

#define GLUE_MUTEX_SIZE    16
#define GLUE_SPINLOCK_SIZE 16
#define GLUE_RWLOCK_SIZE   16
#define GLUE_SRCU_SIZE     16
#define GLUE_RCU_HEAD_SIZE 16
#define GLUE_HRTIMER_SIZE  16
#define GLUE_WORK_SIZE     16

#define GLUE_WORK_FLAGS 3

#endif
