// SPDX-License-Identifier: GPL-2.0
#include "watch.hpp"

#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <sys/ioctl.h>
#include <unistd.h>

namespace
{

// The signals that are taken between two frames, and at no other time.
class Signals
{
public:
	Signals()
	{
		sigemptyset(&set_);
		for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH})
			sigaddset(&set_, signal);
		sigprocmask(SIG_BLOCK, &set_, &before_);
	}
	~Signals() { sigprocmask(SIG_SETMASK, &before_, nullptr); }

	// The signal that came before that time did, or 0.
	int wait_until(const timespec &end) const
	{
		timespec now;
		clock_gettime(CLOCK_MONOTONIC, &now);
		timespec left{end.tv_sec - now.tv_sec, end.tv_nsec - now.tv_nsec};
		if (left.tv_nsec < 0) {
			left.tv_sec--;
			left.tv_nsec += 1'000'000'000;
		}
		if (left.tv_sec < 0)
			left = {};
		for (;;) {
			const int signal = sigtimedwait(&set_, nullptr, &left);
			if (signal > 0)
				return signal;
			if (errno != EINTR)
				return 0;
		}
	}

private:
	sigset_t set_, before_;
};

// The alternate screen, without a cursor; all that was on the terminal comes back.
class Screen
{
public:
	Screen() : terminal_(isatty(STDOUT_FILENO)) { enter(); }
	~Screen() { leave(); }

	bool is_terminal() const { return terminal_; }

	void enter() const
	{
		if (terminal_)
			put("\033[?1049h\033[?25l");
	}
	void leave() const
	{
		if (terminal_)
			put("\033[?25h\033[?1049l");
	}

	void show(const std::vector<std::string> &lines)
	{
		std::string text;
		if (!terminal_) {
			text = first_ ? "" : "\n";
			first_ = false;
			for (const std::string &line : lines)
				text += line + "\n";
			put(text);
			return;
		}
		// Each line is cut: a wrapped one would move the others.
		winsize size{};
		ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
		const size_t columns = size.ws_col ? size.ws_col : 80;
		const size_t rows = size.ws_row ? size.ws_row : 24;
		text = "\033[H";
		for (size_t i = 0; i < lines.size() && i < rows; i++)
			text += (i ? "\r\n" : "") + lines[i].substr(0, columns) + "\033[K";
		put(text + "\033[J");
	}

private:
	static void put(const std::string &text)
	{
		std::fwrite(text.data(), 1, text.size(), stdout);
		std::fflush(stdout);
	}

	const bool terminal_;
	bool first_ = true;
};

timespec in(double seconds)
{
	timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	const double whole = std::floor(seconds);
	time.tv_sec += static_cast<time_t>(whole);
	time.tv_nsec += static_cast<long>((seconds - whole) * 1e9);
	if (time.tv_nsec >= 1'000'000'000) {
		time.tv_sec++;
		time.tv_nsec -= 1'000'000'000;
	}
	return time;
}

} // namespace

void watch(double seconds, const std::function<std::vector<std::string>()> &frame)
{
	const Signals signals;
	Screen screen;
	for (;;) {
		const auto lines = frame();
		screen.show(lines);
		const timespec next = in(seconds);
		while (const int signal = signals.wait_until(next)) {
			if (signal == SIGTSTP) {
				// Back comes who is continued.
				screen.leave();
				raise(SIGSTOP);
				screen.enter();
			} else if (signal != SIGWINCH) {
				return;
			}
			if (screen.is_terminal())
				screen.show(lines);
		}
	}
}
