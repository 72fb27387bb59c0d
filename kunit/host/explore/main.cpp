// SPDX-License-Identifier: GPL-2.0
#include "jobs.hpp"
#include "mutants.hpp"
#include "variant.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>

using namespace kvmpp;
using namespace kvmpp::explore;

namespace
{

constexpr const char *usage =
	"explore                        all schedules of all scenarios, and all mutants\n"
	"  --seconds N                  for about so long: the clock may stop a scenario, whose "
	"line "
	"says so\n"
	"  --scenario NAME              this scenario only, for as long as it takes, without "
	"mutants\n"
	"  --mutant NAME                this mutant only, and the schedule that shows it\n"
	"  --replay SCENARIO CHOICES    one schedule, step by step; with --mutant, of that one\n"
	"  --all-orders                 without the reduction: for comparison\n"
	"  --list                       scenarios and mutants\n";

constexpr u64 no_limit = ~u64{0};
/* After the first schedule that fails: so many more for a shorter one. */
constexpr u64 shorten = 20000;
constexpr double for_ever = 1e6;
/* No search takes as long unless it hangs. */
constexpr double most_seconds = 600;
/* For a mutant in one scenario; and to search one without the reduction. */
constexpr double most_hunted = 12, most_compared_seconds = 30;
/* Scenarios of so many schedules are searched once more without the reduction. */
constexpr u64 most_compared = 3000;

struct Options {
	double seconds = for_ever;
	std::string scenario, mutant, replay, choices;
	bool all_orders = false, list = false;
};

bool parse(int count, char **words, Options &o)
{
	for (int i = 1; i < count; i++) {
		std::string word = words[i];
		auto next = [&] { return i + 1 < count ? words[++i] : ""; };

		if (word == "--seconds")
			o.seconds = std::atof(next());
		else if (word == "--scenario")
			o.scenario = next();
		else if (word == "--mutant")
			o.mutant = next();
		else if (word == "--replay")
			o.replay = next(), o.choices = next();
		else if (word == "--all-orders")
			o.all_orders = true;
		else if (word == "--list")
			o.list = true;
		else
			return false;
	}
	return o.seconds > 0;
}

std::string variant_of(const std::string &mutant)
{
	return mutant.empty() ? "right" : "mutant_" + mutant;
}

/* In a process of its own: a schedule may end in a crash. */
bool show(const std::string &variant, const std::string &scenario,
	  const std::vector<Choice> &schedule)
{
	std::fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		Outcome o;
		if (const Scenario *s = load_scenario(variant, scenario)) {
			o = replay(*s, schedule);
			if (!o.failure.empty())
				std::printf("  then: %s\n", o.failure.c_str());
		}
		std::fflush(stdout);
		_exit(o.failure.empty() ? 0 : 1);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void show_failure(const std::string &mutant, const std::string &scenario, const Outcome &o)
{
	std::printf("# %s: %s\n# The shortest schedule found, %zu steps:\n", scenario.c_str(),
		    o.failure.c_str(), o.schedule.size());
	show(variant_of(mutant), scenario, o.schedule);
	std::printf("# again: explore%s%s --replay %s %s\n", mutant.empty() ? "" : " --mutant ",
		    mutant.c_str(), scenario.c_str(), to_string(o.schedule).c_str());
}

/* The rows, which are lines of TAP as well, and what they amount to. */
class Report
{
public:
	void scenario(const Scenario &s, const Outcome &o)
	{
		std::string actors;

		for (const Actor &a : s.actors)
			if (a.run)
				actors += std::string(actors.empty() ? "" : ", ") + a.name;
		row(o.failure.empty(), "scenario ");
		std::printf("%-28s %-28s %9llu schedules, %s, <= %llu steps, %.1f s\n", s.name,
			    actors.c_str(), static_cast<unsigned long long>(o.schedules),
			    o.complete ? "all" : "STOPPED BY THE CLOCK",
			    static_cast<unsigned long long>(o.longest), o.seconds);
		schedules_ += o.schedules;
		stopped_ += o.failure.empty() && !o.complete;
		if (!o.failure.empty()) {
			failing_.insert(s.name);
			show_failure("", s.name, o);
		}
	}
	/* With the module as it is: then it shows nothing about a mutant. */
	bool has_failed(const std::string &scenario) const { return failing_.contains(scenario); }
	/* The reduced search has found the classes of schedules that there are. */
	void reduction(const Scenario &s, const Outcome &reduced, const Outcome &all)
	{
		bool same =
			reduced.classes == all.classes && reduced.fingerprint == all.fingerprint;

		row(all.complete ? same : all.classes <= reduced.classes, "reduction");
		std::printf("%-27s %6llu classes of schedules in the reduced search, %6llu in %llu "
			    "schedules without%s\n",
			    s.name, static_cast<unsigned long long>(reduced.classes),
			    static_cast<unsigned long long>(all.classes),
			    static_cast<unsigned long long>(all.schedules + all.cut),
			    all.complete ? "" : ", STOPPED BY THE CLOCK");
	}
	void mutant(const Mutant &m, const std::string &killer, u64 schedules)
	{
		row(!killer.empty(), "mutant   ");
		if (killer.empty())
			std::printf("%-28s %-52s SURVIVES\n", m.name.c_str(), m.guard.c_str());
		else
			std::printf("%-28s %-52s killed by %s, schedule %llu\n", m.name.c_str(),
				    m.guard.c_str(), killer.c_str(),
				    static_cast<unsigned long long>(schedules));
	}
	int finish() const
	{
		std::printf("1..%u\n# %llu schedules of the module, %u scenarios stopped by the "
			    "clock, %u failures\n",
			    rows_, static_cast<unsigned long long>(schedules_), stopped_,
			    failures_);
		return failures_ != 0;
	}

private:
	void row(bool ok, const char *kind)
	{
		rows_++;
		failures_ += !ok;
		std::printf("%s %u - %s ", ok ? "ok" : "not ok", rows_, kind);
	}

	unsigned rows_ = 0, failures_ = 0, stopped_ = 0;
	u64 schedules_ = 0;
	std::set<std::string> failing_;
};

/* The search for one mutant's killer: the scenario that is named first, then all others. */
struct Hunt {
	Jobs &jobs;
	Report &report;
	const std::vector<Scenario> &scenarios;
	Mutant mutant;
	double seconds;
	bool verbose;
	u64 schedules = 0;
	size_t tried = 0;

	void go_on()
	{
		std::string name = tried == 0 ? mutant.scenario : scenarios[tried - 1].name;

		if (report.has_failed(name))
			return ended(name, {});

		jobs.add({variant_of(mutant.name),
			  name,
			  {.schedules = no_limit,
			   .seconds = seconds,
			   .shorten = verbose ? shorten : 0},
			  [this, name](const Outcome &o) { ended(name, o); }});
	}
	void ended(const std::string &name, const Outcome &o)
	{
		schedules += o.failure.empty() ? o.schedules : o.found_after;
		if (!o.failure.empty()) {
			report.mutant(mutant, name, schedules);
			if (verbose)
				show_failure(mutant.name, name, o);
		} else if (tried++ < scenarios.size()) {
			go_on();
		} else {
			report.mutant(mutant, "", 0);
		}
	}
};

/* With a search that leaves out only what sleep sets do. */
void compare(Jobs &jobs, Report &report, const Scenario &s, const Outcome &reduced)
{
	jobs.add({"right",
		  s.name,
		  {.schedules = no_limit,
		   .seconds = most_compared_seconds,
		   .all_orders = true,
		   .classes = true},
		  [&, reduced](const Outcome &all) { report.reduction(s, reduced, all); }});
}

int run_all(const Options &o, const std::vector<Scenario> &scenarios,
	    const std::vector<Mutant> &mutants)
{
	auto end =
		std::chrono::steady_clock::now() + std::chrono::duration<double>(o.seconds * 0.85);
	unsigned at_a_time = std::max(1u, std::thread::hardware_concurrency());
	Report report;

	std::printf("TAP version 14\n# %u scenarios, of the module as it is\n",
		    static_cast<unsigned>(scenarios.size()));
	{
		Jobs jobs(at_a_time);
		size_t next = 0;
		std::function<void()> start = [&] {
			/* What is left of the time, shared by those that are left; most take none of it. */
			double seconds = std::chrono::duration<double>(
						 end - std::chrono::steady_clock::now())
						 .count();
			double share = std::max(1.0, seconds) * at_a_time * 1.5 /
				       static_cast<double>(scenarios.size() - next);
			const Scenario &s = scenarios[next++];

			jobs.add({"right",
				  s.name,
				  {.schedules = no_limit,
				   .seconds =
					   std::max(1.0, std::min({share, seconds, most_seconds})),
				   .classes = true,
				   .shorten = shorten},
				  [&](const Outcome &outcome) {
					  report.scenario(s, outcome);
					  if (outcome.complete &&
					      outcome.schedules <= most_compared)
						  compare(jobs, report, s, outcome);
					  if (next < scenarios.size())
						  start();
				  }});
		};
		while (next < at_a_time && next < scenarios.size())
			start();
		jobs.run();
	}
	std::printf("# %u mutants: the guard that each lacks, and who shows it\n",
		    static_cast<unsigned>(mutants.size()));
	{
		Jobs jobs(at_a_time);
		std::deque<Hunt> hunts;
		for (const Mutant &m : mutants)
			hunts.push_back({jobs, report, scenarios, m,
					 std::min(most_hunted, o.seconds * 0.25), false});
		for (Hunt &h : hunts)
			h.go_on();
		jobs.run();
	}
	return report.finish();
}

int run_scenario(const Options &o, const std::vector<Scenario> &scenarios)
{
	Report report;
	Jobs jobs(1);

	for (const Scenario &s : scenarios)
		if (o.scenario == s.name)
			jobs.add({"right",
				  s.name,
				  {.schedules = no_limit,
				   .seconds = for_ever,
				   .all_orders = o.all_orders,
				   .shorten = shorten},
				  [&](const Outcome &outcome) { report.scenario(s, outcome); }});
	jobs.run();
	return report.finish();
}

int run_mutant(const Options &o, const std::vector<Scenario> &scenarios,
	       const std::vector<Mutant> &mutants)
{
	Report report;
	Jobs jobs(1);
	std::deque<Hunt> hunts;

	for (const Mutant &m : mutants)
		if (o.mutant == m.name)
			hunts.push_back({jobs, report, scenarios, m,
					 std::min(most_seconds, o.seconds), true});
	for (Hunt &h : hunts)
		h.go_on();
	jobs.run();
	return report.finish();
}

} // namespace

int main(int count, char **words)
{
	Options options;

	if (!parse(count, words, options)) {
		std::fputs(usage, stderr);
		return 2;
	}
	if (!options.replay.empty()) {
		std::vector<Choice> schedule;
		if (!from_string(options.choices, schedule)) {
			std::fputs("explore: these are no choices\n", stderr);
			return 2;
		}
		return !show(variant_of(options.mutant), options.replay, schedule);
	}
	std::vector<Mutant> mutants = read_mutants(MUTANTS);
	std::vector<Scenario> scenarios = list_scenarios();
	if (scenarios.empty())
		return 2;
	if (options.list) {
		for (const Scenario &s : scenarios)
			std::printf("scenario %s\n", s.name);
		for (const Mutant &m : mutants)
			std::printf("mutant %s: %s\n", m.name.c_str(), m.guard.c_str());
		return 0;
	}
	if (!options.scenario.empty())
		return run_scenario(options, scenarios);
	if (!options.mutant.empty())
		return run_mutant(options, scenarios, mutants);
	return run_all(options, scenarios, mutants);
}
