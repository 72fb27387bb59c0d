/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CPUs that Linux does not have. Each is a coroutine in which the module's bare code runs, from its
 * start on, whenever the one thread waits for something; until it halts, or its guest has nothing to do
 * but wait. NMIs come where an instruction of the model is.
 */
#pragma once

#include "include/kvmpp/types.hpp"

#include <functional>
#include <vector>

namespace kvmpp::host
{

struct Vmcs;

void reset_dedicated();

/* The code that runs now is on such a CPU. There @what of Linux's is a violation. */
bool is_bare();
void forbid_bare(const char *what);

/* All of them go on until they wait. False: none had anything to do. */
bool run_dedicated_cpus();
/* It has been started, and has not been stopped by INIT. */
bool is_started(int cpu);
/* It executes nothing more but what an NMI brings. */
bool is_halted(int cpu);
constexpr u32 apic_id_of(int cpu)
{
	return 0x20u + 2 * static_cast<u32>(cpu);
}

/* In a guest: nothing happens there until an NMI comes, which is the exit. */
void wait_for_nmi(Vmcs &vmcs);
/* An NMI from somewhere else, a watchdog or a broadcast. */
void send_nmi(int cpu);
/* One waits at the CPU, whoever has it. */
void nmi_comes(int cpu);
unsigned nmis_sent();
/* That Linux had on an online CPU, and nobody claimed. */
unsigned nmis_unclaimed();
/* NMIs of the CPU this is on are blocked, as after an exit by one. */
bool nmis_blocked();

/* Where a CPU is in kvmpp_dedicated_enter() and kvmpp_dedicated_wait(). */
enum class Spot {
	before_look, /* what is asked has not been looked at */
	in_window,   /* it has, and the guest is not entered */
	before_wait, /* the bell has not been looked at */
	in_wait,     /* it has, and HLT has not begun */
};
/* Called at each of them, on the CPU. */
void at_spot(std::function<void(Spot)> function);

/* The CPU does not come up when it is started; or stops for ever, wherever it is, and NMIs do not help. */
void break_start(int cpu);
void hang(int cpu);
/* What Linux has measured of the TSC: 1,000 at first. */
void set_tsc_khz(u64 khz);
/* It is slow: it comes up after so many milliseconds. */
void start_late(int cpu, unsigned ms);
/* Later than anybody waits, in the moment in which it is given up: INIT comes after it. */
void start_too_late(int cpu);
/* An exception in the code that runs there, once the CPU goes on. */
void raise(int cpu, u64 vector, u64 error_code);

/* As with and without no_ipi_broadcast=1. */
void set_ipi_broadcast(bool on);
/* What calls on all CPUs tell the model. */
void note_broadcast();
/* An interrupt waits at the CPU's APIC. */
void add_interrupt(int cpu, u8 vector);

/* What was written to the ICR of any CPU, NMIs to Linux apart. */
struct Ipi {
	int from;
	u32 to;
	u8 vector;
	bool operator==(const Ipi &) const = default;
};
std::vector<Ipi> take_ipis();
std::vector<u8> take_self_ipis();

/* Linux: */
void set_may_dedicate(bool may);
void set_present(int cpu, bool present);
void set_sibling_online(int cpu, bool online);
void set_x2apic(bool has);
/* The next remove_cpu(), add_cpu(), registration fails. */
void fail_remove(int error);
void fail_add(int error);
void fail_dedicated_registration(int error);
/* No page below 1 MiB will do. */
void fail_low_page();
/* Called for each millisecond that somebody sleeps. */
void on_millisecond(std::function<void()> function);
void on_microsecond(std::function<void()> function);
bool module_is_kept();
/* Private maps that exist; and whether what is at @address is in the one of @cpu. */
int live_maps();

/* For the model of instructions. */
void add_apic_msrs(int cpu);
void written_msr(u32 msr, u64 value);

} // namespace kvmpp::host
