// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that shares the kernel's memory, on a CPU whose interrupts are its own: it halts, with
 * HLT exiting and external-interrupt exiting off, NMI exiting and virtual NMIs on.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/smp.h>

#include <asm/apic.h>
#include <asm/nmi.h>

#include "../kernel_guest.h"
#include "emulated_cpu.h"

#define ACTIVITY_ACTIVE 0
#define ACTIVITY_HLT 1

extern const u8 guest_halts[], guest_halted[], guest_calls[], guest_vectors[], guest_exits[];
bool enter_guest(bool resume);
void iret_here(void);

/* The guest's. */
u32 guest_there, guest_interrupts[256];
unsigned long guest_eoi;

static unsigned long guest_stack[512] __aligned(16);
static gate_desc guest_idt[256] __aligned(16);
static unsigned int the_cpu;
static int nmis;	  /* that Linux got on it */
static bool launched;
/* What the other CPU is to send when the guest is there, and has halted. */
static u32 wanted_ipi;
static bool over;
static DECLARE_COMPLETION(done);

static unsigned long read_field(unsigned long field)
{
	unsigned long value;

	asm volatile("vmread %1, %0" : "=rm"(value) : "r"(field) : "cc");
	return value;
}

static void fill(void)
{
	unsigned int vector;

	for (vector = 0; vector < 256; vector++)
		pack_gate(&guest_idt[vector], GATE_INTERRUPT,
			  (unsigned long)guest_vectors + 16 * vector, 0, 0, __KERNEL_CS);
	fill_vmcs(PIN_BASED_NMI_EXITING | PIN_BASED_VIRTUAL_NMIS);
	write_field(GUEST_IDTR_BASE, (unsigned long)guest_idt);
	write_field(GUEST_IDTR_LIMIT, sizeof(guest_idt) - 1);
	write_field(HOST_RIP, (unsigned long)guest_exits);
}

static void set_guest(unsigned long rip, unsigned long rflags, u32 activity)
{
	write_field(GUEST_RIP, rip);
	write_field(GUEST_RSP, (unsigned long)(guest_stack + ARRAY_SIZE(guest_stack)));
	write_field(GUEST_RFLAGS, rflags);
	write_field(GUEST_ACTIVITY_STATE, activity);
	write_field(GUEST_INTERRUPTIBILITY_INFO, 0);
	memset(guest_interrupts, 0, sizeof(guest_interrupts));
	WRITE_ONCE(guest_there, 0);
}

/* Into the guest, to its next exit, whose reason is returned. */
static u32 run(u32 ipi)
{
	/* for a guest that enters halted */
	if (read_field(GUEST_ACTIVITY_STATE) == ACTIVITY_HLT)
		WRITE_ONCE(guest_there, 1);
	WRITE_ONCE(wanted_ipi, ipi);
	if (!enter_guest(launched)) {
		check(false, "VM entry: error %lu", read_field(VM_INSTRUCTION_ERROR));
		return ~0u;
	}
	launched = true;
	WRITE_ONCE(wanted_ipi, 0);
	return read_field(VM_EXIT_REASON);
}

static void check_nmi_exit(const char *what)
{
	u32 info = read_field(VM_EXIT_INTR_INFO);

	check(read_field(VM_EXIT_REASON) == EXIT_REASON_EXCEPTION_NMI &&
		      info == (INTR_INFO_VALID_MASK | INTR_TYPE_NMI_INTR | 2),
	      "%s: reason %lu, %x", what, read_field(VM_EXIT_REASON), info);
	check(read_field(GUEST_ACTIVITY_STATE) == ACTIVITY_HLT, "which saves HLT: %lu",
	      read_field(GUEST_ACTIVITY_STATE));
	check(read_field(GUEST_RIP) == (unsigned long)guest_halted, "and RIP behind it");
}

static void nmi_to_self(void)
{
	send_to(the_cpu, APIC_DM_NMI);
}

/* What is pending goes to a guest that does nothing. */
static void drain(void)
{
	set_guest((unsigned long)guest_calls, X86_EFLAGS_FIXED | X86_EFLAGS_IF, ACTIVITY_ACTIVE);
	run(0);
}

static void check_halts(void)
{
	const unsigned long opened = X86_EFLAGS_FIXED | X86_EFLAGS_IF;
	int before = READ_ONCE(nmis);
	u32 reason;

	/* Linux's tick would end any HLT */
	native_apic_mem_write(APIC_LVTT, APIC_LVT_MASKED);
	drain();
	set_guest((unsigned long)guest_halts, X86_EFLAGS_FIXED, ACTIVITY_ACTIVE);
	reason = run(APIC_DM_FIXED | TEST_VECTOR);
	check(reason == EXIT_REASON_VMCALL && guest_interrupts[TEST_VECTOR] == 1,
	      "an IPI ends the guest's HLT, without an exit: reason %u, %u", reason,
	      guest_interrupts[TEST_VECTOR]);

	set_guest((unsigned long)guest_halts, X86_EFLAGS_FIXED, ACTIVITY_ACTIVE);
	native_apic_mem_write(APIC_LVTT, TEST_VECTOR);
	native_apic_mem_write(APIC_TMICT, 10000);
	reason = run(0);
	check(reason == EXIT_REASON_VMCALL && guest_interrupts[TEST_VECTOR] == 1,
	      "the CPU's timer does: reason %u, %u", reason, guest_interrupts[TEST_VECTOR]);
	native_apic_mem_write(APIC_LVTT, APIC_LVT_MASKED);

	/* NMIs blocked here from now on */
	set_guest((unsigned long)guest_halts, X86_EFLAGS_FIXED, ACTIVITY_ACTIVE);
	run(APIC_DM_NMI);
	check_nmi_exit("an NMI in the guest's HLT exits");
	nmi_to_self();
	nmi_to_self();
	check(READ_ONCE(nmis) == before, "NMIs are blocked after that");
	run(0);
	check_nmi_exit("the latched one exits at entry");
	run(APIC_DM_NMI);
	check_nmi_exit("entered as halted, it halts; another NMI exits");
	reason = run(APIC_DM_FIXED | TEST_VECTOR);
	check(reason == EXIT_REASON_VMCALL && guest_interrupts[TEST_VECTOR] == 1,
	      "and no second one was latched: an IPI ends HLT: reason %u, %u", reason,
	      guest_interrupts[TEST_VECTOR]);

	/* no VM entry ends the blocking this time, but an IRET */
	set_guest((unsigned long)guest_halts, X86_EFLAGS_FIXED, ACTIVITY_ACTIVE);
	run(APIC_DM_NMI);
	nmi_to_self();
	nmi_to_self();
	check(READ_ONCE(nmis) == before, "NMIs are blocked here");
	iret_here();
	check(READ_ONCE(nmis) == before + 1, "IRET unblocks them, and one was latched: %d",
	      READ_ONCE(nmis) - before);
	nmi_to_self();
	check(READ_ONCE(nmis) == before + 2, "NMIs come from now on");

	/* the interrupt is there before the guest is */
	set_guest((unsigned long)guest_halted, opened, ACTIVITY_HLT);
	send_to(the_cpu, APIC_DM_FIXED | TEST_VECTOR);
	reason = run(0);
	check(reason == EXIT_REASON_VMCALL && guest_interrupts[TEST_VECTOR] == 1,
	      "a pending interrupt ends the HLT that is entered: reason %u, %u", reason,
	      guest_interrupts[TEST_VECTOR]);

	set_guest((unsigned long)guest_halted, X86_EFLAGS_FIXED, ACTIVITY_HLT);
	send_to(the_cpu, APIC_DM_FIXED | TEST_VECTOR);
	run(APIC_DM_NMI);
	check_nmi_exit("but not with IF=0, where an NMI exits");
	check(guest_interrupts[TEST_VECTOR] == 0, "without the interrupt");
	iret_here();
	drain();

	/* blocked as the guest sees it: NMIs exit all the same */
	set_guest((unsigned long)guest_halts, X86_EFLAGS_FIXED, ACTIVITY_ACTIVE);
	write_field(GUEST_INTERRUPTIBILITY_INFO, GUEST_INTR_STATE_NMI);
	run(APIC_DM_NMI);
	check_nmi_exit("virtual NMIs blocked, an NMI exits");
	check(read_field(GUEST_INTERRUPTIBILITY_INFO) == GUEST_INTR_STATE_NMI, "and they stay so");
	iret_here();
}

static int on_nmi(unsigned int type, struct pt_regs *regs)
{
	if (smp_processor_id() != the_cpu)
		return NMI_DONE;
	nmis++;
	return NMI_HANDLED;
}

static int run_guest(void *unused)
{
	unsigned long region = get_zeroed_page(GFP_KERNEL), vmcs = get_zeroed_page(GFP_KERNEL);
	u32 timer, count;

	guest_eoi = APIC_BASE + APIC_EOI;
	local_irq_disable();
	begin_vmx((void *)region, (void *)vmcs);
	fill();
	timer = native_apic_mem_read(APIC_LVTT);
	count = native_apic_mem_read(APIC_TMICT);
	check_halts();
	native_apic_mem_write(APIC_LVTT, timer);
	native_apic_mem_write(APIC_TMICT, count);
	end_vmx((void *)vmcs);
	/* what the guest may have taken of Linux's */
	send_to(the_cpu, LOCAL_TIMER_VECTOR);
	send_to(the_cpu, CALL_FUNCTION_VECTOR);
	send_to(the_cpu, CALL_FUNCTION_SINGLE_VECTOR);
	send_to(the_cpu, RESCHEDULE_VECTOR);
	local_irq_enable();
	WRITE_ONCE(over, true);
	free_page(region);
	free_page(vmcs);
	complete(&done);
	return 0;
}

void check_guest(unsigned int cpu)
{
	struct task_struct *thread = kthread_create(run_guest, NULL, "emulated_cpu");

	the_cpu = cpu;
	if (IS_ERR(thread) || register_nmi_handler(NMI_LOCAL, on_nmi, 0, "emulated_cpu")) {
		check(false, "a thread and an NMI handler");
		return;
	}
	kthread_bind(thread, cpu);
	wake_up_process(thread);
	while (!READ_ONCE(over)) {
		u32 ipi = READ_ONCE(wanted_ipi);

		if (!ipi || !READ_ONCE(guest_there)) {
			cpu_relax();
			continue;
		}
		udelay(100);
		/* gone meanwhile, by a timer's interrupt, say */
		if (READ_ONCE(wanted_ipi) != ipi)
			continue;
		send_to(cpu, ipi);
		WRITE_ONCE(wanted_ipi, 0);
	}
	wait_for_completion(&done);
	unregister_nmi_handler(NMI_LOCAL, "emulated_cpu");
}
