// SPDX-License-Identifier: GPL-2.0
#include "ktap.hpp"

#include "expect.hpp"

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace ktap
{
namespace
{

// Also expect::fail()'s.
constexpr int exit_failed = 1;
constexpr int exit_skipped = 4;

// The skipping case's reason reaches the parent through this pipe.
int reason_pipe[2] = {-1, -1};

enum class Outcome { passed, failed, skipped };

struct Result {
	Outcome outcome;
	std::string reason;
};

// Waits for the case's process for at most the given time, then kills its whole process group:
// the case may have forked VMMs of its own.
int wait_bounded(pid_t pid, unsigned seconds, bool &timed_out)
{
	timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		int status;
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec >= static_cast<time_t>(seconds)) {
			timed_out = true;
			kill(-pid, SIGKILL);
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			return status;
		}
		usleep(5'000);
	}
}

Result run_one(const Case &test)
{
	if (pipe(reason_pipe) != 0)
		return {Outcome::failed, "pipe"};
	const pid_t pid = fork();
	if (pid < 0)
		return {Outcome::failed, "fork"};
	if (pid == 0) {
		setpgid(0, 0);
		close(reason_pipe[0]);
		test.run();
		std::fflush(stdout);
		_exit(0);
	}
	setpgid(pid, pid);
	close(reason_pipe[1]);

	bool timed_out = false;
	const int status = wait_bounded(pid, test.timeout_s, timed_out);
	// What the case left behind in its process group must not disturb the next one.
	kill(-pid, SIGKILL);

	Result result{Outcome::passed, {}};
	if (timed_out) {
		expect::note("timed out after %u s", test.timeout_s);
		result.outcome = Outcome::failed;
	} else if (WIFSIGNALED(status)) {
		expect::note("killed by signal %d (%s)", WTERMSIG(status),
			     strsignal(WTERMSIG(status)));
		result.outcome = Outcome::failed;
	} else if (WEXITSTATUS(status) == exit_skipped) {
		char reason[256];
		const ssize_t length = read(reason_pipe[0], reason, sizeof(reason));
		result.outcome = Outcome::skipped;
		if (length > 0)
			result.reason.assign(reason, static_cast<size_t>(length));
	} else if (WEXITSTATUS(status) != 0) {
		result.outcome = Outcome::failed;
	}
	close(reason_pipe[0]);
	return result;
}

} // namespace

void skip(const char *format, ...)
{
	char text[256];
	va_list args;
	va_start(args, format);
	const int length = std::vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (write(reason_pipe[1], text, static_cast<size_t>(length)) < 0)
		_exit(exit_failed);
	_exit(exit_skipped);
}

void child_ok(int pid, const std::source_location &where)
{
	int status = 0;
	if (waitpid(pid, &status, 0) != pid)
		expect::fail_condition("child can be waited for", where);
	if (WIFEXITED(status) && WEXITSTATUS(status) == exit_skipped)
		_exit(exit_skipped);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		expect::fail("%s:%u: child ended with wait status %#x", expect::file_name(where),
			     where.line(), static_cast<unsigned>(status));
}

int run(std::span<const Case> cases, int argc, char **argv)
{
	std::vector<const Case *> chosen;
	for (const Case &test : cases) {
		bool wanted = argc < 2;
		for (int i = 1; i < argc; i++)
			wanted = wanted || std::string_view(argv[i]) == test.name;
		if (wanted)
			chosen.push_back(&test);
	}
	if (chosen.empty()) {
		std::fprintf(stderr, "%s: no such test; there are:", argv[0]);
		for (const Case &test : cases)
			std::fprintf(stderr, " %s", test.name);
		std::fprintf(stderr, "\n");
		return 2;
	}

	std::printf("KTAP version 1\n1..%zu\n", chosen.size());
	std::fflush(stdout);
	bool all_passed = true;
	for (size_t i = 0; i < chosen.size(); i++) {
		const Result result = run_one(*chosen[i]);
		const bool failed = result.outcome == Outcome::failed;
		std::printf("%s %zu %s%s%s\n", failed ? "not ok" : "ok", i + 1, chosen[i]->name,
			    result.outcome == Outcome::skipped ? " # SKIP " : "",
			    result.reason.c_str());
		std::fflush(stdout);
		all_passed = all_passed && !failed;
	}
	return all_passed ? 0 : 1;
}

} // namespace ktap
