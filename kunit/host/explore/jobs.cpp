// SPDX-License-Identifier: GPL-2.0
#include "jobs.hpp"

#include "memory.hpp"
#include "variant.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <sstream>

namespace kvmpp::explore
{

namespace
{

using Clock_ = std::chrono::steady_clock;

struct Child {
	Job job;
	pid_t pid;
	int pipe;
	Clock_::time_point deadline;
	std::string output;
};

/* More than a search takes when it looks at the clock between schedules: the child hangs in one. */
constexpr auto grace = std::chrono::seconds(5);

std::string to_text(const Outcome &o)
{
	std::ostringstream text;

	text << o.classes << ' ' << o.fingerprint << ' ' << o.schedules << ' ' << o.cut << ' '
	     << o.longest << ' ' << o.complete << ' ' << o.found_after << ' ' << o.seconds << '\n'
	     << to_string(o.schedule) << '\n'
	     << o.failure << '\n';
	return text.str();
}

Outcome from_text(const std::string &output)
{
	std::istringstream text(output);
	std::string line;
	Outcome o;

	if (!(text >> o.classes >> o.fingerprint >> o.schedules >> o.cut >> o.longest >>
	      o.complete >> o.found_after >> o.seconds)) {
		o.failure = "the search ended early: a hang or a crash of the model";
		return o;
	}
	text.ignore();
	std::getline(text, line);
	from_string(line, o.schedule);
	std::getline(text, o.failure);
	return o;
}

[[noreturn]] void search_and_exit(const Job &job, int pipe)
{
	Outcome outcome;

	if (const Scenario *scenario = load_scenario(job.variant, job.scenario))
		outcome = search(*scenario, job.limits);
	else
		outcome.failure = "no such scenario or variant";
	std::string text = to_text(outcome);
	_exit(write(pipe, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
}

Child start(Job job)
{
	int ends[2];

	if (pipe(ends))
		std::perror("explore: pipe");
	std::fflush(stdout);
	pid_t pid = fork();
	if (pid == 0)
		search_and_exit(job, ends[1]);
	close(ends[1]);
	auto limit = std::chrono::duration_cast<Clock_::duration>(
		std::chrono::duration<double>(job.limits.seconds));
	return {std::move(job), pid, ends[0], Clock_::now() + limit + grace, {}};
}

/* False at its end. */
bool read_some(Child &child)
{
	char buffer[4096];
	ssize_t bytes = read(child.pipe, buffer, sizeof(buffer));

	if (bytes > 0)
		child.output.append(buffer, static_cast<size_t>(bytes));
	return bytes > 0;
}

} // namespace

void Jobs::run()
{
	std::vector<Child> children;

	while (!waiting_.empty() || !children.empty()) {
		while (!waiting_.empty() && children.size() < at_a_time_) {
			children.push_back(start(std::move(waiting_.front())));
			waiting_.pop_front();
		}
		std::vector<pollfd> ready;
		for (const Child &c : children)
			ready.push_back({c.pipe, POLLIN, 0});
		poll(ready.data(), ready.size(), 200);
		for (size_t i = children.size(); i-- > 0;) {
			Child &c = children[i];
			if (Clock_::now() > c.deadline)
				kill(c.pid, SIGKILL);
			if (!ready[i].revents || read_some(c))
				continue;
			close(c.pipe);
			waitpid(c.pid, nullptr, 0);
			Child ended = std::move(c);
			children.erase(children.begin() + static_cast<long>(i));
			ended.job.done(from_text(ended.output));
		}
	}
}

} // namespace kvmpp::explore
