// SPDX-License-Identifier: GPL-2.0
#include "host.hpp"

#include "expect.hpp"

#include <algorithm>
#include <cerrno>
#include <cpuid.h>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <fstream>
#include <sched.h>
#include <sstream>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
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

unsigned apic_id(unsigned cpu)
{
	std::istringstream text(read_file("/proc/cpuinfo"));
	std::string line;
	bool found = false;
	while (std::getline(text, line)) {
		const size_t colon = line.find(": ");
		if (colon == std::string::npos)
			continue;
		const std::string value = line.substr(colon + 2);
		if (line.starts_with("processor"))
			found = value == std::to_string(cpu);
		else if (found && line.starts_with("apicid"))
			return static_cast<unsigned>(std::stoul(value));
	}
	expect::fail("CPU %u is not online", cpu);
}

int insert_module(const std::string &name, const std::vector<std::string> &parameters)
{
	std::vector<const char *> arguments{"modprobe", name.c_str()};
	for (const std::string &parameter : parameters)
		arguments.push_back(parameter.c_str());
	arguments.push_back(nullptr);
	// modprobe knows where modules are; its status says only whether it worked.
	const pid_t pid = fork();
	if (pid == 0) {
		for (const char *path : {"/sbin/modprobe", "/usr/sbin/modprobe", "/bin/modprobe"})
			execv(path, const_cast<char *const *>(arguments.data()));
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

int remove_unused_module(const std::string &name)
{
	int result = -EWOULDBLOCK;
	for (unsigned i = 0; i < 50 && result == -EWOULDBLOCK; i++) {
		result = remove_module(name);
		if (result == -EWOULDBLOCK)
			usleep(20'000);
	}
	return result;
}

bool module_loaded(const std::string &name)
{
	return access(("/sys/module/" + name + "/initstate").c_str(), F_OK) == 0;
}

// By the module's file and sysfs: to print all of /proc/kallsyms takes the emulated host half a minute.
uint64_t symbol_address(const std::string &module, const std::string &section,
			const std::string &symbol)
{
	struct utsname system;
	uname(&system);
	const std::string file = read_file("/lib/modules/" + std::string(system.release) +
					   "/extra/" + module + ".ko");
	const char *const data = file.data();
	const auto *const header = reinterpret_cast<const Elf64_Ehdr *>(data);
	expect::that("the module's file can be read", file.size() > sizeof(*header));
	const auto *const sections = reinterpret_cast<const Elf64_Shdr *>(data + header->e_shoff);
	for (unsigned i = 0; i < header->e_shnum; i++) {
		if (sections[i].sh_type != SHT_SYMTAB)
			continue;
		const char *const names = data + sections[sections[i].sh_link].sh_offset;
		const auto *const symbols =
			reinterpret_cast<const Elf64_Sym *>(data + sections[i].sh_offset);
		for (size_t n = 0; n < sections[i].sh_size / sizeof(Elf64_Sym); n++)
			if (symbol == names + symbols[n].st_name)
				return symbols[n].st_value +
				       std::stoull(read_file("/sys/module/" + module +
							     "/sections/" + section),
						   nullptr, 16);
	}
	expect::fail("no symbol %s in %s", symbol.c_str(), module.c_str());
}

std::string module_section(const std::string &module, const std::string &section)
{
	struct utsname system;
	uname(&system);
	const std::string file = read_file("/lib/modules/" + std::string(system.release) +
					   "/extra/" + module + ".ko");
	const char *const data = file.data();
	const auto *const header = reinterpret_cast<const Elf64_Ehdr *>(data);
	expect::that("the module's file can be read", file.size() > sizeof(*header));
	const auto *const sections = reinterpret_cast<const Elf64_Shdr *>(data + header->e_shoff);
	const char *const names = data + sections[header->e_shstrndx].sh_offset;
	for (unsigned i = 0; i < header->e_shnum; i++)
		if (section == names + sections[i].sh_name)
			return file.substr(sections[i].sh_offset, sections[i].sh_size);
	expect::fail("%s has no section %s", module.c_str(), section.c_str());
}

bool has_parameter(const std::string &module, const std::string &parameter)
{
	return access(("/sys/module/" + module + "/parameters/" + parameter).c_str(), F_OK) == 0;
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
	//   vm 3 process 174 vcpu 0 launched
	expect::that("kvmpp has a directory in debugfs", have_debugfs());
	std::istringstream text(read_file(std::string(debugfs) + "/kvmpp/cpus"));
	std::map<unsigned, CpuState> states;
	std::string line;
	while (std::getline(text, line)) {
		if (line.starts_with("  "))
			continue;
		std::istringstream words(line);
		std::string cpu_word, vmx_word, vmx, loaded_word;
		unsigned cpu, loaded;
		words >> cpu_word >> cpu >> vmx_word >> vmx >> loaded_word >> loaded;
		expect::that("a line of debugfs's cpus is as documented",
			     words && cpu_word == "cpu" && vmx_word == "vmx" &&
				     loaded_word == "loaded" && (vmx == "on" || vmx == "off"));
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

void expect_vmx(bool on)
{
	for (unsigned attempt = 0;; attempt++) {
		const auto states = cpu_states();
		expect::equal("lines in debugfs's cpus", states.size(), online_cpus().size());
		const bool right = std::all_of(states.begin(), states.end(), [&](const auto &line) {
			return line.second.vmx_on == on && (on || line.second.loaded == 0);
		});
		if (right)
			return;
		if (attempt == 50) {
			for (const auto &[cpu, state] : states)
				expect::note("cpu %u vmx %s loaded %u", cpu,
					     state.vmx_on ? "on" : "off", state.loaded);
			expect::fail("VMX is not %s on every CPU with no VMCS left",
				     on ? "on" : "off");
		}
		usleep(20'000);
	}
}

Log::Log() : fd_(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC))
{
	expect::that("/dev/kmsg can be read", fd_ >= 0);
	lseek(fd_, 0, SEEK_END);
}

Log::~Log()
{
	close(fd_);
}

std::vector<std::string> Log::take(const std::string &text)
{
	std::vector<std::string> found;
	char line[2048];
	for (;;) {
		const ssize_t length = read(fd_, line, sizeof(line));
		if (length < 0 && errno == EPIPE) // the oldest lines have been overwritten
			continue;
		if (length <= 0)
			return found;
		const std::string whole(line, static_cast<size_t>(length));
		if (whole.find(text) != std::string::npos)
			found.push_back(whole);
	}
}

void expect_registers(unsigned cpu)
{
	static const bool has_rdtscp = [] {
		unsigned a, b, c, d;
		return __get_cpuid(0x80000001, &a, &b, &c, &d) && (d >> 27 & 1);
	}();
	static const bool has_xsave = [] {
		unsigned a, b, c, d;
		return __get_cpuid(1, &a, &b, &c, &d) && (c >> 27 & 1);
	}();
	if (has_rdtscp) {
		unsigned aux;
		asm volatile("rdtscp" : "=c"(aux) : : "rax", "rdx");
		expect::equal("TSC_AUX's CPU number", aux & 0xfff, cpu);
	}
	if (has_xsave) {
		const auto xgetbv = [] {
			unsigned low, high;
			asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
			return uint64_t{high} << 32 | low;
		};
		// The first look comes before any guest, or the caller has called too late.
		static const uint64_t xcr0 = xgetbv();
		expect::equal("XCR0", xgetbv(), xcr0);
	}
}

} // namespace host
