// SPDX-License-Identifier: GPL-2.0
/*
 * Linux has one slot for who must be told before a CPU stops for good, and warns when it is taken
 * twice. kvm_intel takes it without looking: on 6.1 when it is loaded, later when it switches VMX on.
 * So the slot is taken to be kvm_intel's for as long as that module is there.
 */
#include <linux/export.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/printk.h>
#include <linux/string.h>

#include <asm/reboot.h>

#include <linux_glue/crash.h>
#include <linux_glue/entries.h>

static DEFINE_MUTEX(hook_lock);
static bool kvm_intel_is_there;
/* Kept from the first use to the end, or until kvm_intel wants it: to let go takes a grace period. */
static bool registered;
static bool used;
static bool may_lose;

static void crash(void)
{
	kvmpp_crash();
}

static void unregister(void)
{
	if (!registered)
		return;
	cpu_emergency_unregister_virt_callback(crash);
	registered = false;
}

static int kvm_intel_comes(void)
{
	if (used && !may_lose) {
		pr_err("kvmpp: kvm_intel is kept out, which would take the crash hook from the VMs\n");
		return -EBUSY;
	}
	if (used)
		pr_err("kvmpp: kvm_intel takes the crash hook\n");
	unregister();
	kvm_intel_is_there = true;
	return 0;
}

static int module_event(struct notifier_block *block, unsigned long event, void *data)
{
	const struct module *module = data;
	int error = 0;

	if (strcmp(module->name, "kvm_intel") != 0)
		return NOTIFY_DONE;
	mutex_lock(&hook_lock);
	/* Before its init, and after its exit. */
	if (event == MODULE_STATE_COMING)
		error = kvm_intel_comes();
	else if (event == MODULE_STATE_GOING)
		kvm_intel_is_there = false;
	mutex_unlock(&hook_lock);
	return notifier_from_errno(error);
}

static struct notifier_block module_notifier = {
	.notifier_call = module_event,
};

int glue_crash_init(void)
{
	struct kobject *kvm_intel;
	int error = register_module_notifier(&module_notifier);

	if (error)
		return error;
	kvm_intel = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, "kvm_intel");
	if (kvm_intel) {
		mutex_lock(&hook_lock);
		kvm_intel_is_there = true;
		mutex_unlock(&hook_lock);
		kobject_put(kvm_intel);
	}
	return 0;
}

void glue_crash_exit(void)
{
	unregister_module_notifier(&module_notifier);
	unregister();
}

int glue_crash_hook_take(int lose)
{
	int error = 0;

	mutex_lock(&hook_lock);
	if (kvm_intel_is_there) {
		error = -EBUSY;
	} else {
		if (!registered)
			cpu_emergency_register_virt_callback(crash);
		registered = used = true;
		may_lose = lose;
	}
	mutex_unlock(&hook_lock);
	return error;
}

void glue_crash_hook_give_back(void)
{
	mutex_lock(&hook_lock);
	used = false;
	mutex_unlock(&hook_lock);
}
