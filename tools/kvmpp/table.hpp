// SPDX-License-Identifier: GPL-2.0
//
// Text in columns.
#pragma once

#include <string>
#include <vector>

class Table
{
public:
	enum class Align { left, right };

	void column(const std::string &title, Align align = Align::left);
	// One text a column.
	void row(std::vector<std::string> cells);
	// The titles and the rows; no blanks at their ends.
	std::vector<std::string> lines() const;

private:
	std::vector<Align> aligns_;
	std::vector<std::vector<std::string>> rows_ = {{}};
};
