// SPDX-License-Identifier: GPL-2.0
#include "files.hpp"

#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <sstream>
#include <unistd.h>

std::optional<std::string> read_file(const std::string &path)
{
	const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return std::nullopt;
	std::string text;
	char part[4096];
	ssize_t length;
	while ((length = read(fd, part, sizeof(part))) > 0)
		text.append(part, static_cast<size_t>(length));
	const int error = errno;
	close(fd);
	errno = error;
	if (length < 0)
		return std::nullopt;
	return text;
}

std::string read_line(const std::string &path)
{
	std::string text = read_file(path).value_or("");
	while (text.ends_with('\n'))
		text.pop_back();
	return text;
}

std::optional<unsigned long> number(std::string_view text)
{
	unsigned long value;
	const char *end = text.data() + text.size();
	const auto [stopped, error] = std::from_chars(text.data(), end, value);
	if (error != std::errc() || stopped != end)
		return std::nullopt;
	return value;
}

std::vector<unsigned> parse_cpu_list(const std::string &text)
{
	std::istringstream stream(text);
	std::vector<unsigned> cpus;
	unsigned first;
	while (stream >> first) {
		unsigned last = first;
		if (stream.peek() == '-') {
			stream.get();
			stream >> last;
		}
		for (unsigned cpu = first; cpu <= last; cpu++)
			cpus.push_back(cpu);
		if (stream.peek() == ',')
			stream.get();
	}
	return cpus;
}

std::string cpu_list(const std::vector<unsigned> &cpus)
{
	std::string text;
	for (size_t i = 0; i < cpus.size();) {
		size_t last = i;
		while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1)
			last++;
		text += (text.empty() ? "" : ",") + std::to_string(cpus[i]);
		if (last > i)
			text += "-" + std::to_string(cpus[last]);
		i = last + 1;
	}
	return text;
}

std::vector<unsigned> online_cpus(const std::string &root)
{
	return parse_cpu_list(read_line(root + "/sys/devices/system/cpu/online"));
}

std::vector<unsigned> present_cpus(const std::string &root)
{
	return parse_cpu_list(read_line(root + "/sys/devices/system/cpu/present"));
}

std::string process_name(const std::string &root, unsigned long pid)
{
	std::string name = read_line(root + "/proc/" + std::to_string(pid) + "/comm");
	// A process calls itself what it likes; what it likes is not for the terminal to obey.
	for (char &c : name)
		if (c < ' ' || c > '~')
			c = '?';
	return name.empty() ? "?" : name;
}

bool module_loaded(const std::string &root, const std::string &name)
{
	// Of one that is built in there is a directory as well.
	return access((root + "/sys/module/" + name).c_str(), F_OK) == 0;
}

std::string module_parameter(const std::string &root, const std::string &module,
			     const std::string &parameter)
{
	return read_line(root + "/sys/module/" + module + "/parameters/" + parameter);
}
