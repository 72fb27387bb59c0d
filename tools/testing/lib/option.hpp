// SPDX-License-Identifier: GPL-2.0
//
// Words of a command line of the form NAME=NUMBER.
#pragma once

#include <cstdlib>
#include <string_view>

namespace option
{

// Whether @text begins with @name, "NAME="; then @value is what follows.
inline bool take(std::string_view text, std::string_view name, unsigned long &value)
{
	if (!text.starts_with(name))
		return false;
	value = std::strtoul(text.data() + name.size(), nullptr, 0);
	return true;
}

} // namespace option
