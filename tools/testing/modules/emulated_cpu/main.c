// SPDX-License-Identifier: GPL-2.0
/*
 * Does the emulated CPU do as hardware does, where tests of kvmpp stand on it? INIT, x2APIC mode,
 * IPIs between modes, a guest's HLT, blocked and latched NMIs. Wants four CPUs, and Linux in xAPIC
 * mode. What it has found is in the log as TAP, and insmod fails if anything is wrong.
 */
#include <linux/cpumask.h>
#include <linux/module.h>
#include <linux/sched.h>

#include <asm/apic.h>

#include "emulated_cpu.h"

static unsigned int checks, failures;

void check(bool right, const char *what, ...)
{
	struct va_format text;
	va_list args;

	va_start(args, what);
	text.fmt = what;
	text.va = &args;
	if (!right)
		failures++;
	pr_info("%sok %u - %pV\n", right ? "" : "not ", ++checks, &text);
	va_end(args);
}

void send(u32 destination, u32 what)
{
	unsigned long flags;

	/* Linux's own come from interrupts, too */
	local_irq_save(flags);
	native_apic_mem_write(APIC_ICR2, destination << 24);
	native_apic_mem_write(APIC_ICR, what);
	local_irq_restore(flags);
}

void send_to(unsigned int cpu, u32 what)
{
	send(per_cpu(x86_cpu_to_apicid, cpu), what);
}

static int __init emulated_cpu_init(void)
{
	if (num_online_cpus() < 4 || x2apic_enabled())
		return -ENODEV;
	set_cpus_allowed_ptr(current, cpumask_of(0));
	pr_info("TAP version 13\n");
	check_parked_cpus();
	check_guest(1);
	pr_info("1..%u\n", checks);
	return failures ? -EIO : 0;
}

static void __exit emulated_cpu_exit(void)
{
}

module_init(emulated_cpu_init);
module_exit(emulated_cpu_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Checks of the emulated CPU");
