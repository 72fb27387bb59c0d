/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is explored: a machine set up at once, actors that go on in every order, and an end at once that
 * checks and tears down. All must be as it was before.
 */
#pragma once

namespace kvmpp
{
struct DedicatedMachine;
struct TrapFrame;
} // namespace kvmpp

namespace kvmpp::explore
{

struct Actor {
	const char *name;
	void (*run)();
	int pinned = -1; /* to the CPU */
};

struct Scenario {
	const char *name;
	int cpus;
	void (*setup)();
	Actor actors[4];
	void (*finish)();
	/* A crash is not tried: CPUs that Linux does not have would go on in it. */
	bool no_crashes = false;
};

/* Those of one area. */
struct Scenarios {
	const Scenario *first;
	int count;
	const Scenario *begin() const { return first; }
	const Scenario *end() const { return first + count; }
};

/* A build of the module, right or mutated: the scenarios in it, and what Linux calls. */
struct ScenarioList {
	const Scenarios *areas[7];
	int (*cpu_online)(int);
	int (*cpu_offline)(int);
	void (*invalidate_begin)(void *vm, unsigned long start, unsigned long end);
	void (*invalidate_end)(void *vm, unsigned long start, unsigned long end);
	void (*crash)();
	int (*cpu_prepare)(int);
	int (*nmi)(int);
	int (*unclaimed_nmi)(int);
	void (*dedicated_main)(DedicatedMachine *);
	void (*dedicated_nmi)(TrapFrame *);
};

/* The one that is loaded. */
extern const ScenarioList *variant;

} // namespace kvmpp::explore

extern "C" const kvmpp::explore::ScenarioList kvmpp_scenarios;
