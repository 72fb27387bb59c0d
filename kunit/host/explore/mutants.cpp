// SPDX-License-Identifier: GPL-2.0
#include "mutants.hpp"

#include <fstream>
#include <sstream>

namespace kvmpp::explore
{

std::vector<Mutant> read_mutants(const char *path)
{
	std::vector<Mutant> mutants;
	std::ifstream file(path);

	for (std::string line; std::getline(file, line);) {
		std::istringstream words(line);
		std::string key;

		words >> key >> std::ws;
		if (key == "mutant:") {
			Mutant m;
			words >> m.name >> m.file >> m.scenario;
			mutants.push_back(m);
		} else if (key == "guard:" && !mutants.empty()) {
			std::getline(words, mutants.back().guard);
		}
	}
	return mutants;
}

} // namespace kvmpp::explore
