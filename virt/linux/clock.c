// SPDX-License-Identifier: GPL-2.0
#include <linux/irqflags.h>
#include <linux/ktime.h>
#include <linux/timekeeping.h>

#include <asm/cpufeature.h>
#include <asm/tsc.h>

#include <linux_glue/clock.h>

void glue_clock_read(struct glue_clock *clock)
{
	unsigned long flags;
	u64 before;

	local_irq_save(flags);
	before = rdtsc_ordered();
	clock->boot_ns = ktime_to_ns(ktime_mono_to_any(ktime_get_raw(), TK_OFFS_BOOT));
	clock->real_ns = ktime_get_real_ns();
	clock->tsc = before + (rdtsc_ordered() - before) / 2;
	local_irq_restore(flags);
}

int glue_tsc_stable(void)
{
	return boot_cpu_has(X86_FEATURE_CONSTANT_TSC) && !check_tsc_unstable();
}
