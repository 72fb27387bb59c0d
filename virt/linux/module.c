// SPDX-License-Identifier: GPL-2.0
/* In and out: the order in which the module's parts come up and go down. */
#include <linux/module.h>
#include <linux/preempt.h>

#include <linux_glue/crash.h>
#include <linux_glue/debugfs.h>
#include <linux_glue/entries.h>
#include <linux_glue/parameters.h>

#include "device.h"

struct glue_parameters glue_parameters = {
	.exclusive = true,
};

module_param_named(enable_at_load, glue_parameters.enable_at_load, bool, 0444);
MODULE_PARM_DESC(enable_at_load, "VMX on from the load of the module on, not from the first VM on");
module_param_named(exclusive, glue_parameters.exclusive, bool, 0444);
MODULE_PARM_DESC(exclusive, "VMX on while there are VMs; 0: only while a vCPU's thread runs");
module_param_named(allow_no_crash_hook, glue_parameters.allow_no_crash_hook, bool, 0444);
MODULE_PARM_DESC(allow_no_crash_hook, "VMs also while kvm_intel has the hook that kdump needs");

static int __init module_in(void)
{
	int error = glue_crash_init();

	if (error)
		return error;
	error = kvmpp_init();
	if (error) {
		glue_crash_exit();
		return error;
	}
	/* Switches on in the scheduler what glue_sched_notifier_register() registers with. */
	preempt_notifier_inc();
	glue_debugfs_create();
	/* Last: from here on user space may come in. */
	error = kvmpp_device_register();
	if (error) {
		glue_debugfs_remove();
		preempt_notifier_dec();
		kvmpp_exit();
		glue_crash_exit();
	}
	return error;
}

static void __exit module_out(void)
{
	kvmpp_device_deregister();
	glue_debugfs_remove();
	preempt_notifier_dec();
	kvmpp_exit();
	glue_crash_exit();
}

module_init(module_in);
module_exit(module_out);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("VMX with every VMCS accounted for, and the KVM ABI on /dev/kvmpp");
