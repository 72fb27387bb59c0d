// SPDX-License-Identifier: GPL-2.0
/* A schedule as --replay takes it. */
#include "machine.hpp"
#include "search.hpp"

namespace kvmpp::explore
{

/* A letter for the process, '~' before it for its store buffer, a digit for the CPU if it is not 0. */
std::string to_string(const std::vector<Choice> &schedule)
{
	std::string text;

	for (Choice c : schedule) {
		int p = c.party % max_processes;
		if (c.party >= max_processes)
			text += '~';
		text += static_cast<char>(p < 26 ? 'a' + p : 'A' + p - 26);
		if (c.cpu)
			text += static_cast<char>('0' + c.cpu);
	}
	return text;
}

bool from_string(const std::string &text, std::vector<Choice> &schedule)
{
	bool buffer = false;

	for (char c : text) {
		if (c == '~') {
			buffer = true;
		} else if (c >= '0' && c < '0' + max_cpus) {
			if (schedule.empty())
				return false;
			schedule.back().cpu = static_cast<u8>(c - '0');
		} else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'F')) {
			int p = c >= 'a' ? c - 'a' : c - 'A' + 26;
			schedule.push_back({static_cast<u8>(buffer ? buffer_of(p) : p), 0});
			buffer = false;
		} else {
			return false;
		}
	}
	return true;
}

} // namespace kvmpp::explore
