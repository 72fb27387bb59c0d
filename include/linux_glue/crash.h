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
 * While the hook is in use, kvm_intel is not let in. With @may_lack it is let in and has the hook
 * then; it is taken again, or after -EBUSY for the first time, when kvm_intel goes. May sleep.
 */
int glue_crash_hook_take(int may_lack) MAY_SLEEP;
/* Whether kvmpp_crash() would be called now. May sleep. */
int glue_crash_hook_held(void) MAY_SLEEP;
/* It is in use no more. May sleep. */
void glue_crash_hook_give_back(void) MAY_SLEEP;

GLUE_END

#endif
