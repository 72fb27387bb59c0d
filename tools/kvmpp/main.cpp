// SPDX-License-Identifier: GPL-2.0
//
// The command kvmpp, for who runs a machine with the module: see help_text.
#include "check.hpp"
#include "command_line.hpp"
#include "dedicate.hpp"
#include "failure.hpp"
#include "status.hpp"

#include <cstdio>

namespace
{

int run(const CommandLine &line)
{
	const std::string root;
	switch (line.command) {
	case CommandLine::Command::status:
		return status(root, line.watch);
	case CommandLine::Command::dedicate:
		return dedicate(root, line.vcpu, line.cpu);
	case CommandLine::Command::release:
		return release(root, line.vcpu);
	case CommandLine::Command::check:
		return check(root);
	case CommandLine::Command::help:
		break;
	}
	std::fputs(help_text, stdout);
	return 0;
}

} // namespace

int main(int argc, char **argv)
{
	try {
		return run(parse_command_line({argv + 1, argv + argc}));
	} catch (const Usage &usage) {
		std::fprintf(stderr, "kvmpp: %s\n", usage.what());
		return 2;
	} catch (const Failure &failure) {
		std::fprintf(stderr, "kvmpp: %s\n", failure.what());
		return 1;
	}
}
