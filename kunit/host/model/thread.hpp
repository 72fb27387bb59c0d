/* SPDX-License-Identifier: GPL-2.0 */
/* The thread that runs a vCPU, as Linux sees it: signals, its FPU, its files. */
#pragma once

#include "include/kvmpp/types.hpp"

#include <functional>
#include <optional>

namespace kvmpp::host
{

void reset_thread();

void set_signal_pending(bool pending);
/* A reschedule is due before the next entry; it is done once. */
void set_need_resched(bool need);
/* The host has perf events that a guest is not to be counted by; it has, from the beginning. */
void set_perf_events(bool there);
/* Called once, when the reschedule that is due is done. */
void on_reschedule(std::function<void()> function);
/* Called for each tick waited. */
void on_wait(std::function<void()> function);
unsigned ticks_waited();
/*
 * The thread is preempted, others run @meanwhile, and it comes back on @cpu; the module's notifier
 * runs if it is registered.
 */
void reschedule_to(int cpu, const std::function<void()> &meanwhile = nullptr);
bool sched_notifier_registered();
bool guest_fpu_loaded();
/* Of the VMM's thread in KVM_RUN. */
std::optional<u64> entered_signal_mask();
unsigned nmis_delivered();
/* IBPB; and flushes of the L1 data cache, which this processor needs. */
unsigned branch_predictor_barriers();
unsigned l1d_flushes();

/* All of the VMM's threads are alive, and the calling one is thread 0. */
void reset_threads();
void switch_thread(int thread);
void end_thread(int thread);
/* The calling thread has waited for a CPU. */
void add_run_delay(u64 ns);
/* What yield_to() does about a thread, and its result. */
void on_yield(std::function<int(int thread)> function);
/* Called each time that a thread sleeps, in glue_sleep_until(): somebody has to wake it in there. */
void on_sleep(std::function<void()> function);
unsigned times_slept();

/* The object behind a descriptor that was installed, or null. */
void *object_of(int fd);
/* close(2): its release function runs. */
void close_fd(int fd);
unsigned open_fds();

} // namespace kvmpp::host
