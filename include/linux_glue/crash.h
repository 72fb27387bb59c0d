/* SPDX-License-Identifier: GPL-2.0 */
/* The crash hook: Linux calls kvmpp_crash() on every CPU that it stops for good by NMI. */
#ifndef LINUX_GLUE_CRASH_H
#define LINUX_GLUE_CRASH_H

#include "base.h"

GLUE_BEGIN

/* Watches kvm_intel come and go. 0 or an errno. May sleep. */
int glue_crash_init(void) MAY_SLEEP;
/* From here on kvmpp_crash() is not called any more. May sleep. */
void glue_crash_exit(void) MAY_SLEEP;

/*
 * There is one hook, which kvm_intel takes without asking when it is loaded: -EBUSY while it is.
 * While the hook is in use, kvm_intel is not let in; or, with @may_lose, it is and has the hook from
 * then on. May sleep.
 */
int glue_crash_hook_take(int may_lose) MAY_SLEEP;
/* It is in use no more. May sleep. */
void glue_crash_hook_give_back(void) MAY_SLEEP;

GLUE_END

#endif
