// SPDX-License-Identifier: GPL-2.0
#include "search.hpp"

#include "crash.hpp"
#include "dedicated.hpp"
#include "hotplug.hpp"
#include "linux.hpp"
#include "machine.hpp"
#include "memory.hpp"
#include "past.hpp"
#include "races.hpp"
#include "rcu.hpp"
#include "vmx.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <set>

namespace kvmpp::explore
{

namespace
{

constexpr u16 most_steps = 3000;
/* More are not told apart. */
constexpr size_t most_classes = 5000;

/* A step that need not be taken at a node: it was explored from there, or commutes with one that was. */
struct Sleeper {
	Choice choice;
	Accesses accesses;
};

struct Node {
	Parties enabled = 0;
	u8 cpus[max_parties];
	Parties backtrack = 0;
	std::vector<Sleeper> sleep;
	Choice chosen;

	bool asleep(Choice c) const
	{
		for (const Sleeper &s : sleep)
			if (s.choice == c)
				return true;
		return false;
	}
	/* One of @parties' choices that is awake, into `chosen`. */
	bool choose(Parties parties)
	{
		for (parties &= enabled; parties; parties &= parties - 1) {
			int p = __builtin_ctzll(parties);
			for (u8 cpu = 0; cpu < max_cpus; cpu++) {
				Choice c{static_cast<u8>(p), cpu};
				if ((cpus[p] >> cpu & 1) && !asleep(c)) {
					chosen = c;
					return true;
				}
			}
		}
		return false;
	}
};

/* What runs outside of exploration. */
Fiber at_once;
bool at_once_active, at_once_done;
void (*at_once_function)();
alignas(4096) char at_once_stack[256 * 1024];

void at_once_main()
{
	at_once_function();
	at_once_done = true;
	at_once.suspend();
}

bool run_at_once(void (*function)())
{
	at_once_function = function;
	at_once_done = false;
	at_once.start(at_once_stack, sizeof(at_once_stack), at_once_main);
	at_once_active = true;
	at_once.resume();
	at_once_active = false;
	return at_once_done;
}

void on_crash(int)
{
	fail("crash: an access to memory that is not there");
}

class Search
{
public:
	Search(const Scenario &scenario, const Limits &limits)
		: scenario_(scenario), limits_(limits)
	{
	}
	Outcome all();
	Outcome one(const std::vector<Choice> &schedule);

private:
	bool set_up();
	void run();
	void end_run(bool nobody_left);
	void look_around(Node &node);
	void choose_first(Node &node);
	bool next();

	void note_races(Choice next, const Accesses &accesses, const Clock &before);
	void add_backtrack(u16 step, Choice next, const Clock &after);
	void note_ways_barred(Node &node, int party);

	const Scenario &scenario_;
	const Limits limits_;
	Outcome outcome_;
	std::vector<Node> nodes_;
	unsigned depth_ = 0; /* nodes in use */
	unsigned fresh_ = 0; /* the first node whose step has not been taken before */
	Past past_;
	bool cut_ = false;
};

bool Search::set_up()
{
	std::signal(SIGSEGV, SIG_DFL);
	reset_machine(scenario_.cpus);
	reset_fences();
	for (Cpu &cpu : cpus)
		cpu = {};
	reset_vmx();
	reset_hotplug();
	reset_linux();
	reset_rcu();
	reset_waits();
	reset_dedicated();
	keep(cpus, sizeof(cpus));
	if (!run_at_once(scenario_.setup)) {
		outcome_.failure = std::string("setup: ") + failure;
		return false;
	}
	take_snapshot();
	struct sigaction action {
	};
	action.sa_handler = on_crash;
	action.sa_flags = SA_NODEFER;
	sigaction(SIGSEGV, &action, nullptr);
	sigaction(SIGFPE, &action, nullptr);
	return true;
}

/*
 * @next could come before step number n, which it does not commute with. Of the steps since then, those
 * that need not follow that one, and @next: whichever is first of its party's, needs none of the
 * others and can be taken there, is a way ("initials", Abdulla and others, 2014). One is enough.
 */
void Search::add_backtrack(u16 n, Choice next, const Clock &after)
{
	Node &node = nodes_[n - 1u];
	int party_of_n = past_.step(n).party;
	u16 first[max_parties] = {};
	Parties ways = 0;

	auto look_at = [&](Choice c, const Clock &clock) {
		for (int r = 0; r < max_parties; r++)
			if (r != c.party && first[r] && clock.last[r] >= first[r])
				return;
		if ((node.enabled & party(c.party)) && (node.cpus[c.party] >> c.cpu & 1))
			ways |= party(c.party);
	};
	for (unsigned i = n + 1u; i <= past_.taken(); i++) {
		const Step &s = past_.step(i);
		if (first[s.party] || s.clock.last[party_of_n] >= n)
			continue;
		look_at({s.party, s.cpu_choice}, s.clock);
		first[s.party] = s.number;
	}
	if (!first[next.party])
		look_at(next, after);
	if (!ways)
		node.backtrack |= node.enabled;
	else if (!(node.backtrack & ways))
		node.backtrack |= ways & party(next.party) ? party(next.party) : ways & -ways;
}

/* The last steps that @next could have come before. */
void Search::note_races(Choice next, const Accesses &accesses, const Clock &before)
{
	int p = next.party;
	Clock after = past_.after(accesses, before);

	for (const Access &a : accesses) {
		if (a.kind != Kind::read && a.kind != Kind::write)
			continue;
		const History &h = past_.of(a.object);
		if (h.writer != nobody && h.writer != p && before.last[h.writer] < h.written)
			add_backtrack(h.written, next, after);
		if (a.kind != Kind::write)
			continue;
		for (Parties rest = h.readers; rest; rest &= rest - 1)
			if (int q = __builtin_ctzll(rest); q != p && before.last[q] < h.read[q])
				add_backtrack(h.read[q], next, after);
	}
}

/* CPUs that @p would take if they were free: once it has gone elsewhere, it could not wait for them. */
void Search::note_ways_barred(Node &node, int p)
{
	u8 barred = imaginable_choices(p) & static_cast<u8>(~choices(p));
	Clock before = past_.before(p);

	for (int cpu = 0; cpu < max_cpus; cpu++) {
		if (!(barred >> cpu & 1))
			continue;
		note_races({static_cast<u8>(p), static_cast<u8>(cpu)}, accesses_of(p, cpu), before);
		node.backtrack |= node.enabled;
	}
}

Accesses accesses_of_party(int p, int cpu)
{
	if (p < max_processes)
		return accesses_of(p, cpu);
	const Store &store = processes[p - max_processes].buffer[0];
	Accesses a;
	a.add(store.object, store.kind);
	a.add(object_of(Fixed::buffer, p - max_processes), Kind::publish);
	return a;
}

void Search::look_around(Node &node)
{
	node.enabled = 0;
	for (int p = 0; p < process_count; p++) {
		if (processes[p].state == Process::State::ready && (node.cpus[p] = choices(p)))
			node.enabled |= party(p);
		if (processes[p].buffered) {
			node.cpus[buffer_of(p)] = 1;
			node.enabled |= party(buffer_of(p));
		}
	}
}

/* Whoever went last goes on, if he can: schedules of few switches come first and are read with ease. */
void Search::choose_first(Node &node)
{
	Parties last = past_.taken() ? party(past_.step(past_.taken()).party) : 0;

	cut_ = !node.choose(last) && !node.choose(node.enabled);
	node.backtrack = limits_.all_orders ? node.enabled : cut_ ? 0 : party(node.chosen.party);
}

/* One schedule: the nodes in use are followed, then the first way is taken that is open. */
void Search::run()
{
	past_.begin();
	cut_ = false;
	reset_machine(scenario_.cpus);
	reset_fences();
	restore_snapshot();
	for (const Actor &a : scenario_.actors)
		if (a.run)
			add_thread(a.name, a.run, a.pinned);
	go_on_with_dedicated();

	for (;;) {
		if (past_.taken() == depth_) {
			if (depth_ == nodes_.size())
				nodes_.emplace_back();
			Node &node = nodes_[depth_];
			look_around(node);
			node.sleep.clear();
			node.backtrack = 0;
			if (!node.enabled)
				return end_run(true);
			if (past_.taken() == most_steps)
				fail("no end after %u steps", past_.taken());
			if (past_.taken())
				for (const Sleeper &s : nodes_[depth_ - 1].sleep)
					if (s.choice.party != past_.step(past_.taken()).party &&
					    !s.accesses.conflict_with(
						    past_.step(past_.taken()).accesses))
						node.sleep.push_back(s);
			choose_first(node);
			if (cut_)
				return end_run(false);
			depth_++;
		}
		Node &node = nodes_[past_.taken()];
		Choice c = node.chosen;
		Clock before = past_.before(c.party);
		Accesses accesses = accesses_of_party(c.party, c.cpu);
		if (past_.taken() >= fresh_ && !limits_.all_orders) {
			note_races(c, accesses, before);
			if (c.party < max_processes)
				note_ways_barred(node, c.party);
		}
		current_step = {.party = c.party,
				.cpu_choice = c.cpu,
				.cpu = nobody,
				.number = static_cast<u16>(past_.taken() + 1),
				.what = "",
				.argument = 0,
				.accesses = accesses,
				.clock = {}};
		if (c.party < max_processes) {
			current_step.what = processes[c.party].next.what;
			current_step.argument = processes[c.party].next.argument;
			crashes_come = past_.taken() >= fresh_ && !scenario_.no_crashes;
			go(c.party, c.cpu);
		} else {
			Process &p = processes[c.party - max_processes];
			current_step.cpu = static_cast<s8>(p.last_cpu);
			current_step.what = p.buffer[0].kind == Kind::write
						    ? "store to %#llx reaches memory"
						    : "lock given back, seen by all";
			current_step.argument = reinterpret_cast<u64>(p.buffer[0].address);
			drain_one(c.party - max_processes);
		}
		past_.add(current_step, before);
		if (failure)
			return end_run(false);
	}
}

void Search::end_run(bool nobody_left)
{
	if (!limits_.all_orders && !failure)
		for (int p = 0; p < process_count; p++)
			if (processes[p].state == Process::State::ready)
				for (int cpu = 0; cpu < max_cpus; cpu++)
					if (imaginable_choices(p) >> cpu & 1)
						note_races(
							{static_cast<u8>(p), static_cast<u8>(cpu)},
							accesses_of(p, cpu), past_.before(p));
	if (failure || cut_)
		return;
	static std::string waiting;
	waiting.clear();
	for (int p = 0; p < process_count; p++)
		if (processes[p].state == Process::State::ready && !processes[p].daemon)
			waiting += std::string(waiting.empty() ? "" : ", ") + processes[p].name;
	if (!waiting.empty()) {
		waiting = "deadlock: nobody can go on; " + waiting + " wait";
		failure = waiting.c_str();
		return;
	}
	run_at_once([] {});
	if (!run_at_once(scenario_.finish))
		return;
}

/* The deepest node from which something is left to explore. */
bool Search::next()
{
	while (depth_ > 0) {
		Node &node = nodes_[depth_ - 1];
		node.sleep.push_back({node.chosen, depth_ <= past_.taken()
							   ? past_.step(depth_).accesses
							   : Accesses{}});
		if (node.choose(node.backtrack)) {
			fresh_ = depth_ - 1;
			return true;
		}
		depth_--;
	}
	return false;
}

Outcome Search::all()
{
	auto begin = std::chrono::steady_clock::now();
	auto elapsed = [&] {
		return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
			.count();
	};
	u64 until = limits_.schedules;
	std::set<u64> classes;

	if (!set_up())
		return outcome_;
	for (;;) {
		run();
		(cut_ && !failure ? outcome_.cut : outcome_.schedules)++;
		if (limits_.classes && !cut_ && classes.size() <= most_classes)
			if (u64 c = past_.class_of_schedule(); classes.insert(c).second)
				outcome_.fingerprint ^= c;
		if (past_.taken() > outcome_.longest)
			outcome_.longest = past_.taken();
		if (failure &&
		    (outcome_.failure.empty() || past_.taken() < outcome_.schedule.size())) {
			if (outcome_.failure.empty()) {
				outcome_.found_after = outcome_.schedules;
				until = outcome_.schedules + limits_.shorten;
			}
			outcome_.failure = failure;
			outcome_.schedule.clear();
			for (unsigned i = 0; i < past_.taken(); i++)
				outcome_.schedule.push_back(nodes_[i].chosen);
		}
		if (!outcome_.failure.empty() && outcome_.schedules >= until)
			break;
		if (!next()) {
			outcome_.complete = true;
			break;
		}
		if (outcome_.schedules >= until || elapsed() > limits_.seconds)
			break;
	}
	outcome_.classes = classes.size();
	outcome_.seconds = elapsed();
	return outcome_;
}

Outcome Search::one(const std::vector<Choice> &schedule)
{
	if (!set_up())
		return outcome_;
	for (Choice c : schedule) {
		nodes_.emplace_back();
		nodes_.back().chosen = c;
		nodes_.back().enabled = ~Parties{0};
	}
	depth_ = static_cast<unsigned>(schedule.size());
	run();
	if (failure)
		outcome_.failure = failure;
	std::printf("  %4s  %-10s %-3s  %s\n", "step", "actor", "CPU", "what");
	for (unsigned i = 1; i <= past_.taken(); i++) {
		const Step &s = past_.step(i);
		char what[120], name[40], cpu[8] = "-";
		int p = s.party % max_processes;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		std::snprintf(what, sizeof(what), s.what,
			      static_cast<unsigned long long>(s.argument));
#pragma GCC diagnostic pop
		if (processes[p].handler)
			std::snprintf(name, sizeof(name), "IPI %d", p);
		else
			std::snprintf(name, sizeof(name), "%s", processes[p].name);
		if (s.cpu >= 0)
			std::snprintf(cpu, sizeof(cpu), "%d", s.cpu);
		std::printf("  %4u  %-10s %-3s  %s\n", i, name, cpu, what);
	}
	return outcome_;
}

} // namespace

void abandon()
{
	if (exploring()) {
		for (;;)
			self().fiber.suspend();
	}
	if (at_once_active) {
		for (;;)
			at_once.suspend();
	}
	std::fprintf(stderr, "explore: the model is at fault: %s\n", failure);
	std::abort();
}

Outcome search(const Scenario &scenario, const Limits &limits)
{
	return Search(scenario, limits).all();
}

Outcome replay(const Scenario &scenario, const std::vector<Choice> &schedule)
{
	return Search(scenario, {.schedules = 1, .seconds = 1, .all_orders = true}).one(schedule);
}

} // namespace kvmpp::explore
