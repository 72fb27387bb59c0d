// SPDX-License-Identifier: GPL-2.0
#include "cases.hpp"

#include <vector>

int main(int argc, char **argv)
{
	std::vector<ktap::Case> all;
	for (const auto &cases : {status_cases, vcpu_cases, check_cases, line_cases})
		all.insert(all.end(), cases.begin(), cases.end());
	return ktap::run(all, argc, argv);
}
