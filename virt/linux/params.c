// SPDX-License-Identifier: GPL-2.0
#include <linux/moduleparam.h>

#include <linux_glue/params.h>

static unsigned int ple_gap = 128;
module_param(ple_gap, uint, 0444);
MODULE_PARM_DESC(ple_gap, "longest time between two PAUSEs of one loop, in TSC ticks; 0: no PAUSE-loop exiting");

static unsigned int ple_window = 4096;
module_param(ple_window, uint, 0444);
MODULE_PARM_DESC(ple_window, "how long a vCPU may spin in such a loop, in TSC ticks");

glue_u32 glue_ple_gap(void)
{
	return ple_gap;
}

glue_u32 glue_ple_window(void)
{
	return ple_window;
}
