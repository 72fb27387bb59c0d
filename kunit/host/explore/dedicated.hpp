/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CPUs that Linux does not have. What runs on one is a process of its own, which begins in the
 * scenario's setup, at once, and goes on in every schedule from where it was then. To it an NMI is what
 * an IPI is to a thread with interrupts on: it may come before each of its steps.
 */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::explore
{

void reset_dedicated();
/* Those that were started in the setup are processes from now on. */
void go_on_with_dedicated();
bool is_dedicated(int cpu);

/* What the guest on that CPU does when it is entered next, each once; then it waits for an NMI. */
enum class Deed : u8 {
	touches,   /* its first page, and again */
	exits,     /* for user space to handle */
	stays,     /* for what is seen to on the spot */
	sends_ipi, /* to vCPU 1 */
};
void guest_does(int cpu, Deed deed);
/* Somebody else's, to that CPU. */
void send_nmi(int cpu);

/* The thread that is actor @number gets a signal. */
void send_signal(int number);
bool signal_is_pending();
/* Waiting for a tick is waiting for a dedicated CPU in this scenario. */
bool waits_for_dedicated();

/* Code of such a CPU must find @address in the CPU's own page tables. */
void check_mapped(const void *address);

/* For the model of instructions: an ICR is written. */
void write_icr(u64 value);
void note_fence();
/* Its GDT. */
u64 gdt_of(int cpu);

} // namespace kvmpp::explore
