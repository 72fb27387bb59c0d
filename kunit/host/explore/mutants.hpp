/* SPDX-License-Identifier: GPL-2.0 */
/* The table of mutants, mutants.txt. */
#pragma once

#include <string>
#include <vector>

namespace kvmpp::explore
{

struct Mutant {
	std::string name, file, scenario, guard;
};

std::vector<Mutant> read_mutants(const char *path);

} // namespace kvmpp::explore
