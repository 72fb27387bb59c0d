// SPDX-License-Identifier: GPL-2.0
//
// kvmpp check: what kvmpp needs of a machine, one by one.
#pragma once

#include <string>
#include <vector>

enum class Verdict { ok, no, unknown };

// A line of the report.
struct Finding {
	Verdict verdict;
	// The requirement.
	std::string what;
	// What was found, and what to do about it.
	std::string says;
};

using Findings = std::vector<Finding>;

// Each looks at one kind of thing.
Findings check_cpu(const std::string &root);
Findings check_linux(const std::string &root);
Findings check_for_dedicated(const std::string &root);

// The report, its last line what it comes to. True when no requirement is unmet; @dedicated is for
// more than kvmpp needs, and does not count.
bool report(const Findings &needed, const Findings &dedicated, std::vector<std::string> &lines);

// Returns main's status: 0 unless something is in the way.
int check(const std::string &root);
