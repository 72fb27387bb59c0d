/* SPDX-License-Identifier: GPL-2.0 */
/* What Linux does against attacks by speculation where a guest begins and ends: Documentation/security.rst. */
#ifndef LINUX_GLUE_SPECULATION_H
#define LINUX_GLUE_SPECULATION_H

#include "base.h"

GLUE_BEGIN

/* As the kernel's l1tf= has it; 0 or -ENOMEM. At the module's load; may sleep. */
int glue_speculation_init(void) MAY_SLEEP;
void glue_speculation_exit(void);

/* What one vCPU has taught the branch predictor is not for the next ("IBPB"). */
void glue_branch_predictor_barrier(void) NEEDS_IRQS_OFF;
/*
 * Right before VM entry: the guest finds nothing of the host's in the L1 data cache, on a processor where it
 * could look (L1TF). @due: the thread has been at what is not the guest's since the last entry; interrupts
 * say so themselves. Whether it was flushed.
 */
int glue_l1d_flush(int due) NEEDS_IRQS_OFF;
/* It is to be asked before each entry, also of those between which interrupts have stayed off. */
int glue_flushes_l1d_each_time(void);

GLUE_END

#endif
