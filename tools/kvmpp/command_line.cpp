// SPDX-License-Identifier: GPL-2.0
#include "command_line.hpp"

#include "failure.hpp"
#include "files.hpp"

#include <algorithm>
#include <climits>
#include <cstdlib>

const char *const help_text =
	R"(kvmpp looks after the hypervisor kvmpp on this machine.

  kvmpp status [--watch [SECONDS]]
      A table of the CPUs: what is Linux's, what is in VMX operation, how many
      VMCSs each holds, which vCPU it is dedicated to; and its exits a second
      by reason, counted over one second. --watch goes on every SECONDS (2),
      in place on a terminal, until Ctrl-C.

  kvmpp dedicate PID VCPU CPU [--vm N]
  kvmpp release PID VCPU [--vm N]
      Takes a CPU from Linux for one vCPU of a VMM that runs, and gives it
      back. PID is the VMM, which need not know of it. Where it has several
      VMs, --vm says which one: 1 is the one whose vCPU it opened first, as
      its descriptors are numbered.

  kvmpp check
      Can this machine run kvmpp? Each requirement with ok, no or unknown, and
      what to do. The status is 1 if one is not met; those of dedicated CPUs
      do not count.

  kvmpp help

The status is 0, 1 after an error, and 2 for a wrong command line.
)";

namespace
{

using Command = CommandLine::Command;

struct Syntax {
	const char *name;
	Command command;
	const char *usage;
	// Those that are no option's.
	size_t arguments;
};

constexpr Syntax syntaxes[] = {
	{"help", Command::help, "kvmpp help", 0},
	{"status", Command::status, "kvmpp status [--watch [SECONDS]]", 0},
	{"dedicate", Command::dedicate, "kvmpp dedicate PID VCPU CPU [--vm N]", 3},
	{"release", Command::release, "kvmpp release PID VCPU [--vm N]", 2},
	{"check", Command::check, "kvmpp check", 0},
};

[[noreturn]] void wrong(const Syntax &syntax, const std::string &why)
{
	throw Usage(why + "; usage: " + syntax.usage);
}

unsigned number_of(const Syntax &syntax, const char *what, const std::string &text)
{
	const auto value = number(text);
	if (!value || *value > INT_MAX)
		wrong(syntax, "\"" + text + "\" is no " + what);
	return static_cast<unsigned>(*value);
}

// Positive and finite, or nothing.
std::optional<double> seconds_of(const std::string &text)
{
	char *end;
	const double seconds = std::strtod(text.c_str(), &end);
	if (text.empty() || *end || !(seconds >= 0.01 && seconds <= 1e6))
		return std::nullopt;
	return seconds;
}

} // namespace

CommandLine parse_command_line(const std::vector<std::string> &arguments)
{
	if (arguments.empty())
		throw Usage("say what to do: status, dedicate, release, check or help");
	const auto asks_for_help = [](const std::string &word) {
		return word == "--help" || word == "-h";
	};
	if (std::ranges::any_of(arguments, asks_for_help))
		return {};
	const auto syntax = std::ranges::find_if(
		syntaxes, [&](const Syntax &one) { return arguments.front() == one.name; });
	if (syntax == std::end(syntaxes))
		throw Usage("there is no \"kvmpp " + arguments.front() +
			    "\": status, dedicate, release, check or help");

	CommandLine line;
	line.command = syntax->command;
	std::vector<std::string> plain;
	for (size_t i = 1; i < arguments.size(); i++) {
		std::string word = arguments[i];
		std::optional<std::string> value;
		if (const size_t at = word.find('='); word.starts_with("--") && at != word.npos) {
			value = word.substr(at + 1);
			word.resize(at);
		}
		const auto value_follows = [&] { return !value && i + 1 < arguments.size(); };
		if (word == "--watch" && line.command == Command::status) {
			if (value_follows() && !arguments[i + 1].starts_with("-"))
				value = arguments[++i];
			line.watch = value ? seconds_of(*value) : 2;
			if (!line.watch)
				wrong(*syntax, "\"" + *value + "\" is no number of seconds");
		} else if (word == "--vm" && syntax->arguments >= 2) {
			if (value_follows())
				value = arguments[++i];
			line.vcpu.vm = number_of(*syntax, "number of a VM", value.value_or(""));
		} else if (word.starts_with("-")) {
			wrong(*syntax, "\"" + word + "\" is no option of this");
		} else {
			plain.push_back(word);
		}
	}
	if (plain.size() != syntax->arguments)
		wrong(*syntax,
		      plain.size() < syntax->arguments ? "that is too little" : "that is too much");
	if (plain.size() >= 2) {
		line.vcpu.process = number_of(*syntax, "process", plain[0]);
		line.vcpu.vcpu = number_of(*syntax, "vCPU", plain[1]);
	}
	if (plain.size() >= 3)
		line.cpu = number_of(*syntax, "CPU", plain[2]);
	return line;
}
