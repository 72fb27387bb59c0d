// SPDX-License-Identifier: GPL-2.0
#include "snapshot.hpp"

#include "failure.hpp"
#include "files.hpp"

#include <cerrno>
#include <cstring>
#include <sstream>

namespace
{

std::string path_of(const std::string &root, const char *name)
{
	return root + "/sys/kernel/debug/kvmpp/" + name;
}

[[noreturn]] void explain(const std::string &root, const char *name, int error)
{
	const std::string path = path_of(root, name);
	if (!module_loaded(root, "kvmpp"))
		throw Failure("the module is not loaded: modprobe kvmpp");
	if (error == EACCES)
		throw Failure("only root may read " + path + ": run it as root");
	if (error == EPERM)
		throw Failure("the kernel is locked down, and lets nobody read " + path);
	if (error == ENOENT && std::strcmp(name, "cpus") == 0)
		throw Failure("debugfs is not mounted: mount -t debugfs none /sys/kernel/debug");
	if (error == ENOENT)
		throw Failure("the module that is loaded is older than this command: no " + path);
	throw Failure(path + ": " + std::strerror(error));
}

std::string read_debugfs(const std::string &root, const char *name)
{
	if (auto text = read_file(path_of(root, name)))
		return *text;
	explain(root, name, errno);
}

[[noreturn]] void unexpected(const char *name, const std::string &line)
{
	throw Failure("a line of debugfs's " + std::string(name) +
		      " is not one this command knows: " + line);
}

template <class Visit> void for_each_line(const std::string &text, Visit visit)
{
	std::istringstream lines(text);
	std::string line;
	while (std::getline(lines, line))
		visit(line);
}

// cpu 0 vmx on loaded 1
//   vm 3 process 174 vcpu 0 launched
void parse_cpus(const std::string &text, Snapshot &snapshot)
{
	for_each_line(text, [&](const std::string &line) {
		if (line.starts_with("  "))
			return;
		std::istringstream words(line);
		std::string cpu_word, vmx_word, vmx, loaded_word;
		unsigned cpu, loaded;
		words >> cpu_word >> cpu >> vmx_word >> vmx >> loaded_word >> loaded;
		if (!words || cpu_word != "cpu" || vmx_word != "vmx" || loaded_word != "loaded")
			unexpected("cpus", line);
		snapshot.cpus[cpu].vmx = vmx == "on";
		snapshot.cpus[cpu].vmcss = loaded;
	});
}

// cpu 0 io 4711
void parse_exits(const std::string &text, Snapshot &snapshot)
{
	for_each_line(text, [&](const std::string &line) {
		std::istringstream words(line);
		std::string cpu_word, reason;
		unsigned cpu;
		uint64_t count;
		words >> cpu_word >> cpu >> reason >> count;
		if (!words || cpu_word != "cpu")
			unexpected("exits", line);
		snapshot.cpus[cpu].exits[reason] = count;
	});
}

// Names and values: a later module may have more of them.
std::map<unsigned, Dedicated> parse_dedicated(const std::string &root, const std::string &text)
{
	std::map<unsigned, Dedicated> all;
	for_each_line(text, [&](const std::string &line) {
		std::map<std::string, std::string> values;
		std::istringstream words(line);
		std::string name, value;
		while (words >> name >> value)
			values[name] = value;
		const auto get = [&](const char *wanted) {
			const auto found = number(values[wanted]);
			if (!found)
				unexpected("dedicated", line);
			return *found;
		};
		Dedicated &one = all[static_cast<unsigned>(get("cpu"))];
		one.process = static_cast<unsigned>(get("process"));
		one.process_name = process_name(root, one.process);
		one.vm = static_cast<unsigned>(get("vm"));
		one.vcpu = static_cast<unsigned>(get("vcpu"));
		one.state = values["state"];
		one.passthrough = values["passthrough"] == "yes";
		one.kicks = get("kicks");
		one.unknown_nmis = get("unknown_nmis");
		one.strays = get("strays");
		if (one.state.empty())
			unexpected("dedicated", line);
	});
	return all;
}

} // namespace

Snapshot take_snapshot(const std::string &root)
{
	Snapshot snapshot;
	for (const unsigned cpu : present_cpus(root))
		snapshot.cpus[cpu];
	for (const unsigned cpu : online_cpus(root))
		snapshot.cpus[cpu].online = true;
	parse_cpus(read_debugfs(root, "cpus"), snapshot);
	for (const auto &[cpu, dedicated] : read_dedicated(root))
		snapshot.cpus[cpu].dedicated = dedicated;
	// Last, and the time at once: rates are of these.
	parse_exits(read_debugfs(root, "exits"), snapshot);
	snapshot.when = std::chrono::steady_clock::now();
	return snapshot;
}

std::map<unsigned, Dedicated> read_dedicated(const std::string &root)
{
	return parse_dedicated(root, read_file(path_of(root, "dedicated")).value_or(""));
}

std::string owner_of(const Dedicated &dedicated)
{
	return dedicated.process_name + " (" + std::to_string(dedicated.process) + "), VM " +
	       std::to_string(dedicated.vm) + ", vCPU " + std::to_string(dedicated.vcpu);
}
