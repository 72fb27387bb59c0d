/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Contexts that clang's analysis knows by name, as it knows locks. They hold nothing and cost
 * nothing; the guards of guards.hpp enter and leave them.
 */
#pragma once

#include "include/kvmpp/annotations.hpp"

namespace kvmpp
{

struct CAPABILITY("context") Context {
};

/* Neither another thread nor an interrupt nor an IPI comes in between; an NMI may. */
inline constexpr Context irqs_off;
/* The thread stays on its CPU and may not sleep; also inside a spin lock. */
inline constexpr Context preempt_off;
/* No CPU comes or goes. */
inline constexpr Context cpus_stay;
/* What was found under RCU stays in memory. */
inline constexpr Context rcu;

} // namespace kvmpp

/* What a function's declaration says of its context, in C++ and in the glue. */
#define MAY_SLEEP      EXCLUDES(kvmpp::irqs_off, kvmpp::preempt_off, kvmpp::rcu)
#define WAITS_FOR_IPIS EXCLUDES(kvmpp::irqs_off)
#define NEEDS_IRQS_OFF REQUIRES(kvmpp::irqs_off)
