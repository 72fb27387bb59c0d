// SPDX-License-Identifier: GPL-2.0
//
// A directory with what the kernel would have below /, for as long as it lives; and looking into lines.
#pragma once

#include "expect.hpp"

#include <string>
#include <vector>

class Tree
{
public:
	Tree();
	Tree(const Tree &) = delete;
	Tree &operator=(const Tree &) = delete;
	~Tree();

	const std::string &root() const { return root_; }
	// @path begins with "/"; the directories that it needs are made.
	void file(const std::string &path, const std::string &text) const;
	void link(const std::string &path, const std::string &target) const;

	// Four CPUs, 0 to 2 of them online, and the module with its files.
	void machine() const;

private:
	std::string root_;
};

// Fails where they differ, and shows both.
void same_lines(const std::vector<std::string> &seen, const std::vector<std::string> &wanted);
void same_text(const std::string &seen, const std::string &wanted);
void has(const std::string &text, const std::string &part);

// The text of the E that is thrown; fails if none is.
template <class E, class F> std::string thrown(F f)
{
	try {
		f();
	} catch (const E &e) {
		return e.what();
	}
	expect::fail("nothing is thrown");
}
