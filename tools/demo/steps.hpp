// SPDX-License-Identifier: GPL-2.0
//
// What the demo's acts share: steps, numbered through all acts, and what they look at.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace steps
{

void begin(const char *title);
// Prints what the step has observed.
[[gnu::format(printf, 1, 2)]] void seen(const char *format, ...);
// Of steps that another process has gone through.
int number();
void continue_after(int number);

// For expect::set_failure_handler().
[[noreturn]] void failed(const char *text);
// Not to be left offline, whatever happens.
extern std::optional<unsigned> offline_cpu;

// "0, 1, 2"
std::string list(const std::vector<unsigned> &numbers);
// Checks that every online CPU is in VMX operation, or none; returns which.
std::vector<unsigned> check_vmx(bool on);
void module_in();
void module_out();

} // namespace steps

// demo.cpp: the CPU of a guest goes away under it.
void hotplug_act();
// dedicated_act.cpp: a guest with a CPU of its own.
void dedicated_act();
