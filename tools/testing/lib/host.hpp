// SPDX-License-Identifier: GPL-2.0
//
// The host's side: CPUs, modules, and what kvmpp says of itself in debugfs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace host
{

std::string read_file(const std::string &path);
// Returns 0 or -errno.
int write_file(const std::string &path, const std::string &text);

std::vector<unsigned> online_cpus();
// Returns 0 or -errno.
int set_online(unsigned cpu, bool online);
// The calling thread's, or another's, affinity.
void pin(const std::vector<unsigned> &cpus, int tid = 0);
unsigned current_cpu();
// Of one that is online.
unsigned apic_id(unsigned cpu);

// insmod, with parameters, and rmmod. Return 0 or -errno.
int insert_module(const std::string &name, const std::vector<std::string> &parameters = {});
int remove_module(const std::string &name);
// For a module whose last file has just been closed: the release may come a moment later.
int remove_unused_module(const std::string &name);
bool module_loaded(const std::string &name);
// Where a symbol of a loaded module's is, which lies in that section of it.
uint64_t symbol_address(const std::string &module, const std::string &section,
			const std::string &symbol);
// The content of a section of a module's file, not relocated.
std::string module_section(const std::string &module, const std::string &section);
bool has_parameter(const std::string &module, const std::string &parameter);

// A line of kvmpp's debugfs file "cpus".
struct CpuState {
	bool vmx_on = false;
	unsigned loaded = 0;
};

bool have_debugfs();
std::map<unsigned, CpuState> cpu_states();
std::map<std::string, uint64_t> stats();

// VMX must be on for every CPU that is online, or off and no VMCS loaded anywhere; if need be a
// moment later, since VMs go in the background of close().
void expect_vmx(bool on);

// What the kernel logs from now on.
class Log
{
public:
	Log();
	Log(const Log &) = delete;
	Log &operator=(const Log &) = delete;
	~Log();

	// The lines with the text in them among those that came since the last call.
	std::vector<std::string> take(const std::string &text);

private:
	int fd_;
};

// What a guest may change of the calling thread's CPU, which must be the given one: its number in
// TSC_AUX, where it has RDTSCP, and the state components enabled in XCR0, where it has XSAVE.
void expect_registers(unsigned cpu);

} // namespace host
