// SPDX-License-Identifier: GPL-2.0
#include "steps.hpp"

#include "expect.hpp"
#include "host.hpp"

#include <cstdarg>
#include <cstdio>
#include <unistd.h>

namespace steps
{
namespace
{

int step_number;
const char *step_title = "";

} // namespace

using expect::equal;
using expect::that;

std::optional<unsigned> offline_cpu;

void begin(const char *title)
{
	step_number++;
	step_title = title;
}

void seen(const char *format, ...)
{
	std::printf("[%2d] %s: ", step_number, step_title);
	va_list args;
	va_start(args, format);
	std::vprintf(format, args);
	va_end(args);
	std::printf("\n");
	std::fflush(stdout);
}

int number()
{
	return step_number;
}

void continue_after(int number)
{
	step_number = number;
}

void failed(const char *text)
{
	std::printf("demo: FAILED at step %d (%s): %s\n", step_number, step_title, text);
	std::fflush(stdout);
	if (offline_cpu)
		host::set_online(*offline_cpu, true);
	_exit(1);
}

std::string list(const std::vector<unsigned> &numbers)
{
	std::string text;
	for (const unsigned number : numbers)
		text += (text.empty() ? "" : ", ") + std::to_string(number);
	return text;
}

std::vector<unsigned> check_vmx(bool on)
{
	std::vector<unsigned> cpus;
	for (const auto &[cpu, state] : host::cpu_states()) {
		if (state.vmx_on != on)
			expect::fail("VMX is %s on CPU %u, expected %s",
				     state.vmx_on ? "on" : "off", cpu, on ? "on" : "off");
		if (!on)
			equal("VMCSs loaded", state.loaded, 0u);
		cpus.push_back(cpu);
	}
	that("debugfs has a line for each online CPU", cpus == host::online_cpus());
	return cpus;
}

void module_in()
{
	that("kvmpp is not loaded yet", !host::module_loaded("kvmpp"));
	equal("modprobe kvmpp", host::insert_module("kvmpp"), 0);
	check_vmx(false);
}

void module_out()
{
	equal("rmmod kvmpp", host::remove_unused_module("kvmpp"), 0);
	that("no trace in /dev and /sys",
	     access("/dev/kvmpp", F_OK) != 0 && !host::module_loaded("kvmpp"));
}

} // namespace steps
