// SPDX-License-Identifier: GPL-2.0
//
// The command kvmpp (tools/kvmpp), which is to be beside this program, with a VMM that knows nothing
// of it: this one.

#include "dedicated.hpp"
#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <linux/kcmp.h>
#include <sstream>
#include <string>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
namespace real = guest::real;

// kvmpp with these arguments, its output in a pipe or on a terminal of its own.
class Command
{
public:
	explicit Command(const std::vector<std::string> &arguments, bool on_terminal = false)
	{
		int ends[2];
		if (on_terminal) {
			ends[0] = posix_openpt(O_RDWR | O_NOCTTY);
			that("a terminal", ends[0] >= 0 && !grantpt(ends[0]) && !unlockpt(ends[0]));
			ends[1] = open(ptsname(ends[0]), O_RDWR | O_NOCTTY);
			const winsize size{
				.ws_row = 8, .ws_col = 30, .ws_xpixel = 0, .ws_ypixel = 0};
			equal("its size", ioctl(ends[1], TIOCSWINSZ, &size), 0);
		} else {
			equal("pipe", pipe(ends), 0);
		}
		const std::string path = std::filesystem::read_symlink("/proc/self/exe").string();
		const std::string kvmpp = path.substr(0, path.rfind('/')) + "/kvmpp";
		std::vector<char *> words{const_cast<char *>("kvmpp")};
		for (const std::string &argument : arguments)
			words.push_back(const_cast<char *>(argument.c_str()));
		words.push_back(nullptr);
		pid_ = fork();
		if (pid_ == 0) {
			dup2(ends[1], 1);
			dup2(ends[1], 2);
			execv(kvmpp.c_str(), words.data());
			_exit(127);
		}
		close(ends[1]);
		out_ = ends[0];
	}

	// Until that has been printed so many times.
	void wait_for(const std::string &part, unsigned times = 1)
	{
		for (;;) {
			unsigned seen = 0;
			for (size_t at = 0; (at = text.find(part, at)) != text.npos; at++)
				seen++;
			if (seen >= times)
				return;
			if (!more())
				expect::fail("\"%s\" does not come: %s", part.c_str(),
					     text.c_str());
		}
	}

	void signal(int number) const { kill(pid_, number); }

	// Its status; all that it has printed is in text.
	int end()
	{
		while (more())
			;
		int status = 0;
		waitpid(pid_, &status, 0);
		return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}

	std::string text;

private:
	bool more()
	{
		char part[4096];
		// A terminal whose last user has gone gives EIO.
		const ssize_t length = read(out_, part, sizeof(part));
		if (length > 0)
			text.append(part, static_cast<size_t>(length));
		return length > 0;
	}

	pid_t pid_;
	int out_;
};

void has(const std::string &text, const std::string &part)
{
	if (text.find(part) == std::string::npos)
		expect::fail("\"%s\" is not in: %s", part.c_str(), text.c_str());
}

void fails(const std::vector<std::string> &arguments, const std::string &says, int status = 1)
{
	Command command(arguments);
	equal("its status", command.end(), status);
	has(command.text, says);
	that("it is one line", command.text.find('\n') == command.text.size() - 1);
}

// A guest that writes to ports on that CPU and halts, over and over.
class Busy
{
public:
	explicit Busy(unsigned cpu)
		: machine_(real::out_sizes), thread_([this, cpu] {
			  host::pin({cpu});
			  while (!stop_) {
				  machine_.vcpu.enter_real(real::out_sizes);
				  do
					  machine_.vcpu.try_run();
				  while (machine_.vcpu.state().exit_reason == KVM_EXIT_IO);
				  runs_++;
			  }
		  })
	{
		while (runs_ == 0)
			usleep(1'000);
	}
	~Busy()
	{
		stop_ = true;
		thread_.join();
	}

private:
	RealMachine machine_;
	std::atomic<bool> stop_ = false;
	std::atomic<unsigned> runs_ = 0;
	std::thread thread_;
};

// The words of the CPU's line in the last table.
std::vector<std::string> words_of(const std::string &text, unsigned cpu)
{
	std::istringstream lines(text.substr(text.rfind("CPU  LINUX")));
	std::string line;
	while (std::getline(lines, line)) {
		std::istringstream stream(line);
		std::vector<std::string> words;
		for (std::string word; stream >> word;)
			words.push_back(word);
		if (!words.empty() && words.front() == std::to_string(cpu))
			return words;
	}
	expect::fail("no line for CPU %u: %s", cpu, text.c_str());
}

void status_shows_a_guest()
{
	const unsigned cpu = host::online_cpus().back();
	const Busy guest(cpu);
	Command command({"status"});
	equal("its status", command.end(), 0);
	const auto words = words_of(command.text, cpu);
	that("it has all columns", words.size() >= 7);
	that("online, in VMX operation, one VMCS",
	     words[1] == "online" && words[2] == "on" && words[3] == "1");
	that("exits", std::stoul(words[4]) > 0);
	that("most are for ports", words[5] == "io");
	has(command.text, "hlt ");
	expect::note("%s", command.text.substr(0, command.text.find('\n')).c_str());
}

void status_of_a_cpu_that_is_offline()
{
	const auto cpus = host::online_cpus();
	if (cpus.size() < 2)
		ktap::skip("one CPU only");
	{
		const Busy guest(cpus.back());
	}
	equal("offline", host::set_online(cpus.back(), false), 0);
	Command command({"status"});
	equal("its status", command.end(), 0);
	equal("online", host::set_online(cpus.back(), true), 0);
	const auto words = words_of(command.text, cpus.back());
	that("offline, nothing known of VMX", words[1] == "offline" && words[2] == "-");
	that("no exits", words[4] == "0");
}

void watch_ends_at_sigint()
{
	const Busy guest(host::online_cpus().back());
	Command command({"status", "--watch", "0.2"});
	command.wait_for("io ");
	command.wait_for("CPU  LINUX", 4);
	command.signal(SIGINT);
	equal("its status", command.end(), 0);
	that("no terminal, no control characters", command.text.find('\033') == std::string::npos);
}

void watch_gives_the_terminal_back()
{
	for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
		Command command({"status", "--watch", "0.2"}, true);
		command.wait_for("CPU  LINUX", 3);
		command.signal(signal);
		equal("its status", command.end(), 0);
		that("another screen, first", command.text.starts_with("\033[?1049h\033[?25l"));
		that("and back, last", command.text.ends_with("\033[?25h\033[?1049l"));
		// 30 columns of it.
		that("lines are cut", command.text.find("EXITS/S") == std::string::npos);
	}
}

// A failure while it watches: the message is for who sees the terminal afterwards.
void watch_without_the_module()
{
	Command command({"status", "--watch", "0.2"}, true);
	command.wait_for("CPU  LINUX", 2);
	equal("rmmod", host::remove_unused_module("kvmpp"), 0);
	equal("its status", command.end(), 1);
	has(command.text, "\033[?1049lkvmpp: the module is not loaded: modprobe kvmpp");
	fails({"status"}, "kvmpp: the module is not loaded: modprobe kvmpp\n");
	equal("insert", host::insert_module("kvmpp"), 0);
}

void status_as_nobody()
{
	const pid_t child = fork();
	if (child == 0) {
		equal("setuid", setuid(65534), 0);
		fails({"status"}, "run it as root");
		_exit(0);
	}
	ktap::child_ok(child);
}

void vcpu_is_looked_for()
{
	const std::string self = std::to_string(getpid());
	fails({"dedicate", self, "0", "1"}, " has no vCPU of kvmpp's");
	fails({"dedicate", "999999", "0", "1"}, "there is no process 999999");
	fails({"release", self}, "usage: kvmpp release", 2);
	RealMachine machine(real::halt);
	fails({"dedicate", self, "7", "1"}, "command_test (" + self + ") has no vCPU 7");
	// The same file again is no other VM, where the kernel can tell.
	if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, 0, 0) == 0)
		that("dup", dup(machine.vcpu.fd().get()) >= 0);
	Command alone({"release", self, "0"});
	equal("its status", alone.end(), 1);
	that("it knows which", alone.text.find("--vm") == std::string::npos);

	RealMachine other(real::halt);
	fails({"release", self, "0"},
	      "has 2 VMs with a vCPU 0: say which with --vm 1 (descriptor " +
		      std::to_string(machine.vcpu.fd().get()) + "), --vm 2 (descriptor ");
	fails({"release", self, "0", "--vm", "3"}, "say which with");
	Command chosen({"release", self, "0", "--vm", "2"});
	equal("its status", chosen.end(), 1);
	that("it knows which", chosen.text.find("--vm") == std::string::npos);
	expect::note("%s", chosen.text.substr(0, chosen.text.size() - 1).c_str());

	const pid_t child = fork();
	if (child == 0) {
		equal("setuid", setuid(65534), 0);
		fails({"release", self, "0"}, "are not yours to take: run it as root");
		_exit(0);
	}
	ktap::child_ok(child);
}

void check_says_yes()
{
	equal("the msr module", host::insert_module("msr"), 0);
	{
		Command command({"check"});
		equal("its status", command.end(), 0);
		has(command.text, "VMX features      EPT, VPID, unrestricted guest: all ");
		that("the last line", command.text.ends_with("kvmpp can run on this machine.\n"));
	}
	// Also where only the module's presence tells.
	equal("rmmod msr", host::remove_module("msr"), 0);
	{
		Command command({"check"});
		equal("its status", command.end(), 0);
		has(command.text, "kvmpp has found all that it needs");
	}
	equal("rmmod", host::remove_unused_module("kvmpp"), 0);
	{
		Command command({"check"});
		equal("its status", command.end(), 0);
		has(command.text, "check again: modprobe msr");
		has(command.text, "as far as is known");
	}
	equal("insert", host::insert_module("kvmpp"), 0);
}

void check_of_dedicated_cpus()
{
	if (host::online_cpus().size() < 4)
		ktap::skip("fewer than four CPUs");
	Command command({"check"});
	equal("its status", command.end(), 0);
	// Where it is not there, and only there, it is what to do.
	equal("it asks for no_ipi_broadcast=1",
	      command.text.find("add no_ipi_broadcast=1 to the kernel's command line") !=
		      command.text.npos,
	      !dedicated::no_ipi_broadcast());
}

// A CPU for this VMM's vCPU, which is in its guest, and back: by a process that has nothing of it.
void dedicates_and_releases_from_outside()
{
	dedicated::begin();
	dedicated::ApicMachine m(guest::apic::cpuids);
	dedicated::Runner runner(m.vcpu);
	const std::string pid = std::to_string(getpid()), cpu = std::to_string(dedicated::last_cpu);

	Command taking({"dedicate", pid, "0", cpu});
	if (taking.end() != 0)
		expect::fail("kvmpp dedicate: %s", taking.text.c_str());
	equal("the vCPU's CPU", dedicated::get_cpu(m.vcpu), static_cast<int>(dedicated::last_cpu));
	dedicated::wait_for("it runs there",
			    [] { return dedicated::number_of(dedicated::last_cpu, "stay") > 10; });
	Command status({"status"});
	equal("kvmpp status", status.end(), 0);
	that("it names who has the CPU", status.text.find("command_test") != std::string::npos);

	Command again({"dedicate", pid, "0", cpu});
	equal("twice", again.end(), 1);
	Command zero({"dedicate", pid, "0", "0"});
	equal("CPU 0", zero.end(), 1);
	Command giving({"release", pid, "0"});
	if (giving.end() != 0)
		expect::fail("kvmpp release: %s", giving.text.c_str());
	that("Linux has the CPU", dedicated::is_online(dedicated::last_cpu));
	Command nothing({"release", pid, "0"});
	equal("nothing to release", nothing.end(), 1);
	expect::note("%s%s%s", again.text.c_str(), zero.text.c_str(), nothing.text.c_str());
	m.result(dedicated::stop) = 1;
	runner.join();
}

constexpr ktap::Case cases[] = {
	{"status_shows_a_guest", status_shows_a_guest},
	{"status_of_a_cpu_that_is_offline", status_of_a_cpu_that_is_offline},
	{"watch_ends_at_sigint", watch_ends_at_sigint},
	{"watch_gives_the_terminal_back", watch_gives_the_terminal_back},
	{"watch_without_the_module", watch_without_the_module},
	{"status_as_nobody", status_as_nobody},
	{"vcpu_is_looked_for", vcpu_is_looked_for},
	{"dedicates_and_releases_from_outside", dedicates_and_releases_from_outside},
	{"check_says_yes", check_says_yes},
	{"check_of_dedicated_cpus", check_of_dedicated_cpus},
};

} // namespace

int main(int argc, char **argv)
{
	host::have_debugfs();
	return ktap::run(cases, argc, argv);
}
