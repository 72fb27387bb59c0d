// SPDX-License-Identifier: GPL-2.0
#include "table.hpp"

#include <algorithm>

void Table::column(const std::string &title, Align align)
{
	aligns_.push_back(align);
	rows_.front().push_back(title);
}

void Table::row(std::vector<std::string> cells)
{
	rows_.push_back(std::move(cells));
}

std::vector<std::string> Table::lines() const
{
	std::vector<size_t> widths(aligns_.size());
	for (const auto &row : rows_)
		for (size_t i = 0; i < row.size(); i++)
			widths[i] = std::max(widths[i], row[i].size());

	std::vector<std::string> lines;
	for (const auto &row : rows_) {
		std::string line;
		for (size_t i = 0; i < row.size(); i++) {
			const std::string blanks(widths[i] - row[i].size(), ' ');
			line += i ? "  " : "";
			line += aligns_[i] == Align::right ? blanks + row[i] : row[i] + blanks;
		}
		line.erase(line.find_last_not_of(' ') + 1);
		lines.push_back(line);
	}
	return lines;
}
