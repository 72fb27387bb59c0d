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

static DEFINE_MUTEX(kvmpp_hook_lock);
/* Between its coming and its going, as far as this module was there to see it. */
static bool kvm_intel_seen;
/* Kept from the first use to the end, or until kvm_intel wants it: to let go takes a grace period. */
static bool registered;
static bool used;
static bool may_lack;

static bool kvm_intel_is_there(void)
{
	struct kobject *kvm_intel;

	if (kvm_intel_seen)
		return true;
	/* It may have come before. While it goes this is wrong for a moment, on the safe side. */
	kvm_intel = kset_find_obj(THIS_MODULE->mkobj.kobj.kset, "kvm_intel");
	kobject_put(kvm_intel);
	return kvm_intel != NULL;
}

static void register_hook(void)
{
	if (!registered)
		cpu_emergency_register_virt_callback(kvmpp_crash);
	registered = true;
}

static void unregister_hook(void)
{
	if (registered)
		cpu_emergency_unregister_virt_callback(kvmpp_crash);
	registered = false;
}

/* Before its init. */
static int kvm_intel_comes(void)
{
	if (used && !may_lack) {
		pr_err("kvmpp: kvm_intel is kept out, which would take the crash hook from the VMs\n");
		return -EBUSY;
	}
	if (used)
		pr_err("kvmpp: kvm_intel takes the crash hook\n");
	unregister_hook();
	kvm_intel_seen = true;
	return 0;
}

/* After its exit, or an init that failed. */
static void kvm_intel_goes(void)
{
	kvm_intel_seen = false;
	if (used)
		register_hook();
}

static int module_event(struct notifier_block *block, unsigned long event, void *data)
{
	const struct module *module = data;
	int error = 0;

	if (strcmp(module->name, "kvm_intel") != 0)
		return NOTIFY_DONE;
	mutex_lock(&kvmpp_hook_lock);
	if (event == MODULE_STATE_COMING)
		error = kvm_intel_comes();
	else if (event == MODULE_STATE_GOING)
		kvm_intel_goes();
	mutex_unlock(&kvmpp_hook_lock);
	return notifier_from_errno(error);
}

static struct notifier_block module_notifier = {
	.notifier_call = module_event,
};

int glue_crash_init(void)
{
	return register_module_notifier(&module_notifier);
}

void glue_crash_exit(void)
{
	unregister_module_notifier(&module_notifier);
	unregister_hook();
}

int glue_crash_hook_take(int lack)
{
	int error = 0;

	mutex_lock(&kvmpp_hook_lock);
	if (kvm_intel_is_there())
		error = -EBUSY;
	else
		register_hook();
	used = !error || lack;
	may_lack = lack;
	mutex_unlock(&kvmpp_hook_lock);
	return error;
}

int glue_crash_hook_held(void)
{
	int held;

	mutex_lock(&kvmpp_hook_lock);
	held = registered;
	mutex_unlock(&kvmpp_hook_lock);
	return held;
}

void glue_crash_hook_give_back(void)
{
	mutex_lock(&kvmpp_hook_lock);
	used = false;
	mutex_unlock(&kvmpp_hook_lock);
}
