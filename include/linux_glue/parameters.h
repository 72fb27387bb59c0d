/* SPDX-License-Identifier: GPL-2.0 */
/* The module's parameters: set when it is loaded, never changed after. */
#ifndef LINUX_GLUE_PARAMETERS_H
#define LINUX_GLUE_PARAMETERS_H

#include "base.h"

GLUE_BEGIN

struct glue_parameters {
	bool enable_at_load;	  /* VMX on from the load on, not from the first VM on */
	bool exclusive;		  /* VMX on all the time, not only while a vCPU's thread runs */
	bool allow_no_crash_hook; /* VMs may be made while another module has the crash hook */
	bool allow_smt;		  /* a CPU may be dedicated though Linux runs on its core */
	bool eptad;		  /* accessed and dirty bits of EPT entries, if there are any */
	bool pml;		  /* page-modification logging, with them, if there is any */
	/* PAUSE-loop exiting, in ticks of the TSC: what is a loop, and how long one may last */
	glue_u32 ple_gap; /* 0: no exits */
	glue_u32 ple_window;
};
extern struct glue_parameters glue_parameters;

GLUE_END

#endif
