// SPDX-License-Identifier: GPL-2.0
#include "check.hpp"

#include "table.hpp"

#include <algorithm>
#include <cstdio>

namespace
{

const char *name_of(Verdict verdict)
{
	switch (verdict) {
	case Verdict::ok:
		return "ok";
	case Verdict::no:
		return "no";
	default:
		return "unknown";
	}
}

} // namespace

bool report(const Findings &needed, const Findings &dedicated, std::vector<std::string> &lines)
{
	// One table, so that both parts have the same columns; its titles are not shown.
	Table table;
	for (int i = 0; i < 3; i++)
		table.column("");
	for (const Findings *part : {&needed, &dedicated})
		for (const Finding &finding : *part)
			table.row({name_of(finding.verdict), finding.what, finding.says});
	lines = table.lines();
	lines.erase(lines.begin());
	lines.insert(lines.begin() + static_cast<long>(needed.size()),
		     "To dedicate CPUs to vCPUs:");

	const auto count = [&](Verdict verdict) {
		return std::ranges::count(needed, verdict, &Finding::verdict);
	};
	const auto in_the_way = count(Verdict::no), unknown = count(Verdict::unknown);
	std::string sum = "kvmpp can run on this machine.";
	if (in_the_way)
		sum = "kvmpp cannot run on this machine as it is.";
	else if (unknown)
		sum = "Nothing is in kvmpp's way on this machine as far as is known.";
	lines.push_back(sum);
	return !in_the_way;
}

int check(const std::string &root)
{
	std::vector<std::string> lines;
	Findings needed = check_cpu(root);
	std::ranges::move(check_linux(root), std::back_inserter(needed));
	const bool can = report(needed, check_for_dedicated(root), lines);
	for (const std::string &line : lines)
		std::printf("%s\n", line.c_str());
	return can ? 0 : 1;
}
