/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The module's C++ with the scenarios, as a shared object: one right, and one for each mutant. It is
 * built for "thread" instrumentation, whose calls the explorer answers.
 */
#pragma once

#include "scenario.hpp"

#include <string>
#include <vector>

namespace kvmpp::explore
{

/*
 * The scenario in the variant, whose variables are kept and watched from then on. Null, with a line on
 * stderr, when it cannot be had. Once in a process.
 */
const Scenario *load_scenario(const std::string &variant, const std::string &scenario);
/* The names of all. */
std::vector<Scenario> list_scenarios();

} // namespace kvmpp::explore
