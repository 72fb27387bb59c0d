/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VMX as the processors have it, with a failure for what hardware punishes or silently corrupts; and
 * the guest's view of memory: EPT walked, cached by the CPU, and pages that Linux has taken away.
 */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp::explore
{

void reset_vmx();
void check_cpu_at_rest(int cpu);
void memory_freed(u64 arena_offset, u64 bytes);
/* VMXON fails on this CPU from now on. */
void break_vmxon(int cpu);
bool in_vmx_operation(int cpu);
/* Of VMX, all that a crash changes: see crash.hpp. */
void keep_vmx_for_crash();
void undo_vmx_of_crash();

/* What the thread that runs now finds in its guest when it enters it next: a touch of @frame, then HLT. */
void guest_touches(u64 frame);
/* The same for a write, of another value each time. */
void guest_writes(u64 frame);
/* What a copy of @host_frame has of the guest's writes: how many there were. */
u64 copy_of_frame(u64 host_frame);
/* The same, but no step. */
u64 writes_to_frame(u64 host_frame);
/* Waits until a guest has written there. */
void wait_for_write(u64 host_frame);
/* What guests do from now on that are given no event: HLT, or compute until an interrupt comes. With one they shut
 * down. */
enum class Waits : u8 { halted, computing };
void guests_wait(Waits how);
/* A reschedule IPI has come to @cpu; its step has been. */
void reschedule(int cpu);
u16 rescheduled(int cpu);
/* Whoever enters a guest that gets at @host_frame from now on is wrong. */
void take_frame_away(u64 host_frame);

/* For entries on dedicated CPUs: VMLAUNCH or VMRESUME, whose step, which touches this object, has been;
 * a touch of its first page; and an exit. */
u16 current_vmcs();
void enter_vmcs(int launched);
/* True: it exits for it. */
bool guest_uses_first_page();
void note_exit(u32 reason, u32 interruption_info);

/* An EPT entry as the CPU loads it in a walk. */
u64 load_entry(const u64 *address);
/* It sets bits there, unless it is something else by now. */
bool set_in_entry(u64 *address, u64 was, u64 bits);
void reset_fences();

} // namespace kvmpp::explore
