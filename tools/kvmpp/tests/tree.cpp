// SPDX-License-Identifier: GPL-2.0
#include "tree.hpp"

#include "expect.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace fs = std::filesystem;

Tree::Tree()
{
	char name[] = "/tmp/kvmpp-selftest-XXXXXX";
	expect::that("mkdtemp", mkdtemp(name));
	root_ = name;
}

Tree::~Tree()
{
	fs::remove_all(root_);
}

void Tree::file(const std::string &path, const std::string &text) const
{
	fs::create_directories(fs::path(root_ + path).parent_path());
	std::ofstream(root_ + path) << text;
}

void Tree::link(const std::string &path, const std::string &target) const
{
	fs::create_directories(fs::path(root_ + path).parent_path());
	fs::create_symlink(target, root_ + path);
}

void Tree::machine() const
{
	file("/sys/devices/system/cpu/present", "0-3\n");
	file("/sys/devices/system/cpu/online", "0-2\n");
	file("/sys/module/kvmpp/initstate", "live\n");
	file("/sys/kernel/debug/kvmpp/cpus", "cpu 0 vmx on loaded 1\n"
					     "  vm 3 process 174 vcpu 0 launched\n"
					     "cpu 1 vmx on loaded 0\n"
					     "cpu 2 vmx off loaded 0\n");
	file("/sys/kernel/debug/kvmpp/exits", "cpu 0 io 4711\n"
					      "cpu 0 reason_77 2\n"
					      "cpu 3 hlt 5\n");
}

void same_text(const std::string &seen, const std::string &wanted)
{
	if (seen != wanted)
		expect::fail("seen: \"%s\", wanted: \"%s\"", seen.c_str(), wanted.c_str());
}

void same_lines(const std::vector<std::string> &seen, const std::vector<std::string> &wanted)
{
	for (size_t i = 0; i < std::max(seen.size(), wanted.size()); i++)
		same_text(i < seen.size() ? seen[i] : "(no line)",
			  i < wanted.size() ? wanted[i] : "(no line)");
}

void has(const std::string &text, const std::string &part)
{
	if (text.find(part) == std::string::npos)
		expect::fail("\"%s\" does not have \"%s\"", text.c_str(), part.c_str());
}
