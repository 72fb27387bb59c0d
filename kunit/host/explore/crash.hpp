/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel crashes: an NMI has every CPU call kvmpp_crash(), wherever it is, and nothing goes on. No
 * actor of the search, for that would take as many schedules again for each step. It is tried on the
 * spot and undone: before each store that the module makes, each step and each change of CR4.
 *
 * Those are all there are. The hook reads what is its own CPU's. Changes of that come in the same order
 * in all schedules of a class, or they are a data race; so one schedule of each class shows every state
 * that the NMI could find.
 */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::explore
{

/* Whether crashes come at all: not where the schedule is still one that was explored before. */
extern bool crashes_come;
/* The crash is under way, and all is the hook's doing. */
bool crashing();

/* Before @what, a printf format for @argument. */
void crash_may_come(const char *what, u64 argument);
/* The hook is about to access memory: fails when it must not. */
void crash_accesses(const void *address, unsigned bytes, bool write);
/* The hook has failed: who was interrupted is the one that runs again. Of @text, says where it was. */
void crash_fails(char *text, unsigned bytes);

} // namespace kvmpp::explore
