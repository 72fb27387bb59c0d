// SPDX-License-Identifier: GPL-2.0
//
// The command line.
#include "cases.hpp"
#include "command_line.hpp"
#include "failure.hpp"
#include "tree.hpp"

namespace
{

using expect::equal;
using expect::that;
using Command = CommandLine::Command;

void right_lines()
{
	for (const char *word : {"help", "--help", "-h"})
		that("help", parse_command_line({word}).command == Command::help);
	that("help", parse_command_line({"dedicate", "--help"}).command == Command::help);
	that("check", parse_command_line({"check"}).command == Command::check);
	that("once", !parse_command_line({"status"}).watch);
	that("every 2 s", parse_command_line({"status", "--watch"}).watch == 2.0);
	that("every 0.5 s", parse_command_line({"status", "--watch", "0.5"}).watch == 0.5);
	that("every 5 s", parse_command_line({"status", "--watch=5"}).watch == 5.0);

	const CommandLine one = parse_command_line({"dedicate", "174", "0", "3"});
	that("dedicate", one.command == Command::dedicate && !one.vcpu.vm);
	equal("process", one.vcpu.process, 174u);
	equal("vCPU", one.vcpu.vcpu, 0u);
	equal("CPU", one.cpu, 3u);
	const CommandLine other = parse_command_line({"release", "--vm", "2", "174", "1"});
	that("release", other.command == Command::release);
	equal("vCPU", other.vcpu.vcpu, 1u);
	equal("VM", *other.vcpu.vm, 2u);
	equal("VM", *parse_command_line({"release", "174", "1", "--vm=3"}).vcpu.vm, 3u);
}

void wrong_lines()
{
	for (const std::vector<std::string> &words :
	     std::vector<std::vector<std::string>>{{},
						   {"start"},
						   {"status", "3"},
						   {"status", "--watch", "0"},
						   {"status", "--watch", "-1"},
						   {"status", "--watch", "1x"},
						   {"status", "--watch="},
						   {"status", "--watch", "nan"},
						   {"status", "--vm", "1"},
						   {"dedicate", "174", "0"},
						   {"dedicate", "174", "0", "3", "4"},
						   {"dedicate", "174", "0", "-1"},
						   {"dedicate", "x", "0", "3"},
						   {"dedicate", "174", "0", "99999999999"},
						   {"release", "174", "0", "--vm"},
						   {"release", "174", "0", "--vm", "x"},
						   {"check", "--watch"}}) {
		const std::string text = thrown<Usage>([&] { parse_command_line(words); });
		that("it is one line", !text.empty() && text.find('\n') == text.npos);
	}
}

constexpr ktap::Case cases[] = {
	{"right_lines", right_lines},
	{"wrong_lines", wrong_lines},
};

} // namespace

const std::span<const ktap::Case> line_cases = cases;
