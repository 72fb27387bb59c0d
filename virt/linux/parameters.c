// SPDX-License-Identifier: GPL-2.0
#include <linux/moduleparam.h>

#include <linux_glue/parameters.h>

struct glue_parameters glue_parameters = {
	.exclusive = true,
	.eptad = true,
	.pml = true,
	.ple_gap = 128,
	.ple_window = 4096,
};

module_param_named(enable_at_load, glue_parameters.enable_at_load, bool, 0444);
MODULE_PARM_DESC(enable_at_load, "VMX on from the load of the module on, not from the first VM on");
module_param_named(exclusive, glue_parameters.exclusive, bool, 0444);
MODULE_PARM_DESC(exclusive, "VMX on while there are VMs; 0: only while a vCPU's thread runs");
module_param_named(allow_no_crash_hook, glue_parameters.allow_no_crash_hook, bool, 0444);
MODULE_PARM_DESC(allow_no_crash_hook, "VMs also while kvm_intel has the hook that kdump needs");
module_param_named(allow_smt, glue_parameters.allow_smt, bool, 0444);
MODULE_PARM_DESC(allow_smt, "dedicate a CPU though Linux runs on another thread of its core");
module_param_named(eptad, glue_parameters.eptad, bool, 0444);
MODULE_PARM_DESC(eptad, "let the CPU note what guests access; 0: find out by EPT violations");
module_param_named(pml, glue_parameters.pml, bool, 0444);
MODULE_PARM_DESC(pml, "let the CPU log what guests write to; 0: find out by EPT violations");
module_param_named(ple_gap, glue_parameters.ple_gap, uint, 0444);
MODULE_PARM_DESC(ple_gap, "longest time between two PAUSEs of one loop, in TSC ticks; 0: no exits");
module_param_named(ple_window, glue_parameters.ple_window, uint, 0444);
MODULE_PARM_DESC(ple_window, "how long a vCPU may spin in such a loop, in TSC ticks");
