// SPDX-License-Identifier: GPL-2.0
/* In and out: the order in which the module's parts come up and go down. */
#include <linux/module.h>
#include <linux/preempt.h>

#include <linux_glue/debugfs.h>
#include <linux_glue/entries.h>
#include <linux_glue/guest.h>
#include <linux_glue/speculation.h>

#include "device.h"

static int __init module_in(void)
{
	int error = glue_speculation_init();

	if (error)
		return error;
	error = glue_guest_init();
	if (error)
		goto no_guest;
	error = kvmpp_init();
	if (error)
		goto no_core;
	/* Switches on in the scheduler what glue_sched_notifier_register() registers with. */
	preempt_notifier_inc();
	glue_debugfs_create();
	/* Last: from here on user space may come in. */
	error = kvmpp_device_register();
	if (error)
		goto no_device;
	return 0;

no_device:
	glue_debugfs_remove();
	preempt_notifier_dec();
	kvmpp_exit();
no_core:
	glue_guest_exit();
no_guest:
	glue_speculation_exit();
	return error;
}

static void __exit module_out(void)
{
	kvmpp_device_deregister();
	glue_debugfs_remove();
	preempt_notifier_dec();
	kvmpp_exit();
	glue_guest_exit();
	glue_speculation_exit();
}

module_init(module_in);
module_exit(module_out);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("VMX with every VMCS accounted for, and the KVM ABI on /dev/kvmpp");
