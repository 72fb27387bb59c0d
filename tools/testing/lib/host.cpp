// SPDX-License-Identifier: GPL-2.0
#include "host.hpp"

#include "expect.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sched.h>
#include <sstream>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace host
{
namespace
{

constexpr const char *debugfs = "/sys/kernel/debug";

} // namespace

std::string read_file(const std::string &path)
{
	std::ifstream file(path);
	std::ostringstream text;
	text << file.rdbuf();
	return text.str();
}

int write_file(const std::string &path, const std::string &text)
{
	const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	const ssize_t length = write(fd, text.data(), text.size());
	const int result = length < 0 ? -errno : 0;
	close(fd);
	return result;
}

std::vector<unsigned> online_cpus()
{
	// "0-2,5"
	std::istringstream text(read_file("/sys/devices/system/cpu/online"));
	std::vector<unsigned> cpus;
	unsigned first;
	while (text >> first) {
		unsigned last = first;
		if (text.peek() == '-') {
			text.get();
			text >> last;
		}
		for (unsigned cpu = first; cpu <= last; cpu++)
			cpus.push_back(cpu);
		if (text.peek() == ',')
			text.get();
	}
	return cpus;
}

int set_online(unsigned cpu, bool online)
{
	return write_file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/online",
			  online ? "1" : "0");
}

void pin(const std::vector<unsigned> &cpus, int tid)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	for (const unsigned cpu : cpus)
		CPU_SET(cpu, &set);
	expect::equal("sched_setaffinity", sched_setaffinity(tid, sizeof(set), &set), 0);
}

unsigned current_cpu()
{
	return static_cast<unsigned>(sched_getcpu());
}

int insert_module(const std::string &name)
{
	// modprobe knows where modules are; its status says only whether it worked.
	const pid_t pid = fork();
	if (pid == 0) {
		for (const char *path : {"/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"})
			execl(path, "modprobe", name.c_str(), nullptr);
		_exit(127);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ENOEXEC;
}

int remove_module(const std::string &name)
{
	return syscall(SYS_delete_module, name.c_str(), O_NONBLOCK) ? -errno : 0;
}

bool module_loaded(const std::string &name)
{
	return access(("/sys/module/" + name + "/initstate").c_str(), F_OK) == 0;
}

bool have_debugfs()
{
	const std::string directory = std::string(debugfs) + "/kvmpp";
	if (access(directory.c_str(), F_OK) == 0)
		return true;
	// Fails where it is mounted; the second look tells.
	mount("debugfs", debugfs, "debugfs", 0, nullptr);
	return access(directory.c_str(), F_OK) == 0;
}

std::map<unsigned, CpuState> cpu_states()
{
	// cpu 0 vmx on loaded 1
	expect::that("kvmpp has a directory in debugfs", have_debugfs());
	std::istringstream text(read_file(std::string(debugfs) + "/kvmpp/cpus"));
	std::map<unsigned, CpuState> states;
	std::string cpu_word, vmx_word, vmx, loaded_word;
	unsigned cpu, loaded;
	while (text >> cpu_word >> cpu >> vmx_word >> vmx >> loaded_word >> loaded) {
		expect::that("a line of debugfs's cpus is as documented",
			     cpu_word == "cpu" && vmx_word == "vmx" && loaded_word == "loaded" &&
				     (vmx == "on" || vmx == "off"));
		states[cpu] = {vmx == "on", loaded};
	}
	expect::that("debugfs's cpus has a line per CPU", !states.empty());
	return states;
}

std::map<std::string, uint64_t> stats()
{
	expect::that("kvmpp has a directory in debugfs", have_debugfs());
	std::istringstream text(read_file(std::string(debugfs) + "/kvmpp/stats"));
	std::map<std::string, uint64_t> values;
	std::string name;
	uint64_t value;
	while (text >> name >> value)
		values[name] = value;
	expect::that("debugfs's stats has lines", !values.empty());
	return values;
}

} // namespace host
