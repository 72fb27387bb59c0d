// SPDX-License-Identifier: GPL-2.0
/*
 * CPUs that Linux has given up run a program that obeys a mailbox. They go through INIT in every
 * state that matters, and hear IPIs in xAPIC and x2APIC mode.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/io.h>
#include <linux/string.h>

#include <asm/apic.h>
#include <asm/msr.h>

#include "emulated_cpu.h"

#define BASE_X2APIC 0xfee00c00
#define BASE_XAPIC 0xfee00800
#define BASE_OFF 0xfee00000
#define X2APIC(msr) (0x800 + ((msr) >> 4))

extern const u8 parked_code[], parked_code_end[];
extern const u32 parked_nmi, parked_protection, parked_interrupt;

static volatile u32 *mailbox(unsigned int field)
{
	return (volatile u32 *)(__va(PARKED_MAILBOX) + field);
}

static bool waits_for(unsigned int field, u32 wanted)
{
	unsigned int i;

	for (i = 0; i < 2000; i++) {
		if (*mailbox(field) == wanted)
			return true;
		udelay(1);
	}
	return false;
}

static bool obeys(u32 command)
{
	*mailbox(MAILBOX_COMMAND) = command;
	if (waits_for(MAILBOX_COMMAND, 0))
		return true;
	*mailbox(MAILBOX_COMMAND) = 0;
	return false;
}

static u64 read_msr(u32 index)
{
	*mailbox(MAILBOX_INDEX) = index;
	if (!obeys(COMMAND_RDMSR))
		return ~0ull;
	return *mailbox(MAILBOX_LOW) | (u64)*mailbox(MAILBOX_HIGH) << 32;
}

/* Says whether it was done, without #GP. */
static bool write_msr(u32 index, u64 value)
{
	u32 faults = *mailbox(MAILBOX_FAULTS);

	*mailbox(MAILBOX_INDEX) = index;
	*mailbox(MAILBOX_LOW) = (u32)value;
	*mailbox(MAILBOX_HIGH) = value >> 32;
	return obeys(COMMAND_WRMSR) && *mailbox(MAILBOX_FAULTS) == faults;
}

static void gate(unsigned int vector, u32 handler)
{
	u32 *entry = __va(PARKED_IDT + 8 * vector);

	entry[0] = 8 << 16 | (handler & 0xffff);
	entry[1] = (handler & 0xffff0000) | 0x8e00;
}

static void prepare(void)
{
	unsigned int vector;

	memset(__va(PARKED_BASE), 0, 0x3000);
	memcpy(__va(PARKED_BASE), parked_code, parked_code_end - parked_code);
	for (vector = 32; vector < 256; vector++)
		gate(vector, parked_interrupt);
	gate(2, parked_nmi);
	gate(13, parked_protection);
	*(u32 *)__va(PARKED_VMXON) = (u32)__rdmsr(MSR_IA32_VMX_BASIC) & 0x7fffffff;
}

static void init(unsigned int cpu)
{
	send_to(cpu, APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	udelay(200);
}

/* Says whether it came, anew. */
static bool startup(unsigned int cpu)
{
	u32 starts = *mailbox(MAILBOX_STARTS);

	send_to(cpu, APIC_DM_STARTUP | PARKED_BASE >> 12);
	return waits_for(MAILBOX_STARTS, starts + 1);
}

static bool silent(void)
{
	return !obeys(COMMAND_OPEN);
}

/* What SDM's table "Processor States Following Power-up, Reset, or INIT" has. */
static void check_init_state(unsigned int cpu)
{
	static const struct {
		u32 index;
		u64 value;
		const char *name;
	} kept[] = {
		{ MSR_IA32_CR_PAT, 0x0007040600010406, "PAT" },
		{ MSR_MTRRdefType, 0xc06, "MTRR default" },
		{ MSR_MTRRfix4K_F8000, 0x0505050505050505, "fixed MTRR" },
		{ 0x20e, 0x80000006, "variable MTRR" },
		{ MSR_IA32_SYSENTER_EIP, 0x12345678, "SYSENTER_EIP" },
		{ MSR_STAR, 0x0023001000000000, "STAR" },
		{ MSR_LSTAR, 0x7654321, "LSTAR" },
		{ MSR_SYSCALL_MASK, 0x47700, "FMASK" },
		{ MSR_KERNEL_GS_BASE, 0x1234567, "KERNEL_GS_BASE" },
		{ MSR_TSC_AUX, 7, "TSC_AUX" },
	};
	u32 id = per_cpu(x86_cpu_to_apicid, cpu);
	u64 before[ARRAY_SIZE(kept)], tsc;
	unsigned int i;

	check(write_msr(MSR_IA32_APICBASE, BASE_X2APIC), "CPU %u: x2APIC mode is switched on", cpu);
	check(write_msr(X2APIC(APIC_SPIV), 0x1fe), "software-enabled");
	write_msr(X2APIC(APIC_LVTT), TEST_VECTOR);
	write_msr(X2APIC(APIC_TMICT), 0xffffffff);
	write_msr(X2APIC(APIC_TASKPRI), 0x20);
	write_msr(X2APIC(0x3f0), TEST_VECTOR); /* to itself, and it stays in the IRR */
	check(read_msr(X2APIC(APIC_IRR + 0x10)) == 1u << (TEST_VECTOR - 32), "an interrupt is pending");
	write_msr(MSR_EFER, EFER_SCE);
	for (i = 0; i < ARRAY_SIZE(kept); i++) {
		before[i] = read_msr(kept[i].index);
		check(write_msr(kept[i].index, kept[i].value), "%s is set", kept[i].name);
	}
	tsc = read_msr(MSR_IA32_TSC);
	*mailbox(MAILBOX_LOW) = 0x40000031; /* CD */
	obeys(COMMAND_CR0);

	init(cpu);
	check(silent(), "INIT makes it wait");
	send_to(cpu, APIC_DM_NMI);
	send_to(cpu, APIC_DM_NMI);
	udelay(50);
	check(silent(), "NMIs do not end that");
	check(startup(cpu), "SIPI does");
	check(*mailbox(MAILBOX_FIRST_CR0) == 0x40000010, "CR0 keeps CD, and nothing else: %x",
	      *mailbox(MAILBOX_FIRST_CR0));
	udelay(50);
	check(*mailbox(MAILBOX_NMIS) == 0, "no NMI has waited for it");

	check(read_msr(MSR_IA32_APICBASE) == BASE_X2APIC, "it is in x2APIC mode still: %llx",
	      read_msr(MSR_IA32_APICBASE));
	check(read_msr(X2APIC(APIC_ID)) == id, "its id is the same");
	check(read_msr(X2APIC(APIC_LDR)) == 1u << id, "its logical id, too");
	check(read_msr(X2APIC(APIC_SPIV)) == 0xff, "but SVR is reset");
	check(read_msr(X2APIC(APIC_LVTT)) == 0x10000, "and LVT timer");
	check(read_msr(X2APIC(APIC_TMICT)) == 0, "and its count");
	check(read_msr(X2APIC(APIC_TASKPRI)) == 0, "and TPR");
	check(read_msr(X2APIC(APIC_IRR + 0x10)) == 0, "and IRR");
	check(read_msr(MSR_EFER) == 0, "and EFER");
	for (i = 0; i < ARRAY_SIZE(kept); i++) {
		u64 now = read_msr(kept[i].index);

		check(now == kept[i].value, "%s is kept: %llx", kept[i].name, now);
		write_msr(kept[i].index, before[i]);
	}
	check(read_msr(MSR_IA32_TSC) > tsc, "TSC goes on");
}

static void check_init_in_vmx(unsigned int cpu)
{
	*mailbox(MAILBOX_LOW) = PARKED_VMXON;
	*mailbox(MAILBOX_HIGH) = 0;
	check(obeys(COMMAND_VMXON), "CPU %u: VMXON", cpu);
	init(cpu);
	check(!silent(), "INIT waits for VMXOFF");
	init(cpu);
	check(!silent(), "a second one, too");
	check(obeys(COMMAND_VMXOFF), "VMXOFF");
	udelay(50);
	check(silent(), "it has struck");
	check(startup(cpu), "SIPI is heard");
	udelay(200);
	check(!silent(), "one INIT was kept, not two");
}

static void check_ipis(unsigned int cpu)
{
	u32 bit = 1u << (TEST_VECTOR - 32), nmis = *mailbox(MAILBOX_NMIS);
	u32 interrupts = *mailbox(MAILBOX_INTERRUPTS);
	const u32 irr = X2APIC(APIC_IRR + 0x10);
	u32 own_irr;

	send_to(cpu, TEST_VECTOR);
	check(!read_msr(irr), "CPU %u: software-disabled it accepts no interrupt", cpu);
	send_to(cpu, APIC_DM_NMI);
	check(waits_for(MAILBOX_NMIS, nmis + 1), "but an NMI");
	check(write_msr(X2APIC(APIC_SPIV), 0x1ff), "software-enabled");

	send_to(cpu, TEST_VECTOR);
	check(read_msr(irr) == bit, "an interrupt by physical destination");
	check(obeys(COMMAND_OPEN), "STI");
	check(*mailbox(MAILBOX_INTERRUPTS) == interrupts + 1, "is delivered");
	/* all but self: Linux's CPUs take it as a spurious one */
	send(0, APIC_DEST_ALLBUT | TEST_VECTOR);
	udelay(10);
	check(read_msr(irr) == bit, "all but self");
	obeys(COMMAND_OPEN);
	check(*mailbox(MAILBOX_INTERRUPTS) == interrupts + 2, "is delivered");
	send(0xff, APIC_DEST_LOGICAL | TEST_VECTOR);
	udelay(10);
	check(read_msr(irr) == bit, "logical destination 0xff");
	obeys(COMMAND_OPEN);
	check(*mailbox(MAILBOX_INTERRUPTS) == interrupts + 3, "is delivered");

	/* what is held back when it is to be taken is not taken */
	send_to(cpu, TEST_VECTOR);
	write_msr(X2APIC(APIC_TASKPRI), 0x40);
	obeys(COMMAND_OPEN);
	check(*mailbox(MAILBOX_INTERRUPTS) == interrupts + 3, "a higher TPR holds it back");
	write_msr(X2APIC(APIC_TASKPRI), 0);
	obeys(COMMAND_OPEN);
	check(*mailbox(MAILBOX_INTERRUPTS) == interrupts + 4, "a lower one does not");

	*mailbox(MAILBOX_COMMAND) = COMMAND_HALT;
	udelay(20);
	check(*mailbox(MAILBOX_COMMAND) == COMMAND_HALT, "it halts");
	send_to(cpu, TEST_VECTOR);
	check(waits_for(MAILBOX_COMMAND, 0), "an interrupt ends HLT");

	/* from x2APIC mode to this CPU, in xAPIC mode, whose interrupts are off */
	local_irq_disable();
	write_msr(X2APIC(APIC_ICR),
		  (u64)per_cpu(x86_cpu_to_apicid, smp_processor_id()) << 32 | TEST_VECTOR);
	own_irr = native_apic_mem_read(APIC_IRR + 0x10);
	local_irq_enable();
	check(own_irr & bit, "an interrupt from x2APIC to xAPIC mode");
	check((u32)read_msr(X2APIC(APIC_ICR)) == TEST_VECTOR, "the ICR reads back");

	check(!write_msr(MSR_IA32_APICBASE, BASE_XAPIC), "not from x2APIC to xAPIC mode");
	nmis = *mailbox(MAILBOX_NMIS);
	check(write_msr(MSR_IA32_APICBASE, BASE_OFF), "but off");
	send_to(cpu, APIC_DM_NMI);
	udelay(20);
	check(*mailbox(MAILBOX_NMIS) == nmis, "where no NMI is heard");
	check(!write_msr(MSR_IA32_APICBASE, BASE_X2APIC), "not on to x2APIC mode");
	check(write_msr(MSR_IA32_APICBASE, BASE_XAPIC), "to xAPIC mode");
	check(read_msr(MSR_IA32_APICBASE) == BASE_XAPIC, "in which it is then");
	send_to(cpu, APIC_DM_NMI);
	check(waits_for(MAILBOX_NMIS, nmis + 1), "and hears NMIs");
}

void check_parked_cpus(void)
{
	unsigned int cpu;

	for (cpu = 2; cpu < 4; cpu++) {
		if (remove_cpu(cpu)) {
			check(false, "CPU %u goes offline", cpu);
			return;
		}
		prepare();
		init(cpu);
		check(startup(cpu), "CPU %u starts", cpu);
		if (!*mailbox(MAILBOX_STARTS))
			return;
		check_init_state(cpu);
		check_init_in_vmx(cpu);
		check_ipis(cpu);
		init(cpu);
		check(!add_cpu(cpu), "CPU %u comes back to Linux", cpu);
	}
}
