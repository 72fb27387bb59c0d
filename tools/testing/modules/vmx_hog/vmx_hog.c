// SPDX-License-Identifier: GPL-2.0
/*
 * Another hypervisor, for tests: it does nothing but hold CPUs in VMX operation.
 *
 *	parameters/cpu	write N: in VMX operation on CPU N, now, or whenever it comes online;
 *			write -1: on no CPU any more
 *	parameters/vmxe	read: the CPUs that have CR4.VMXE set, whoever did it, as a list
 *
 * Inserted before kvmpp it has the earlier hotplug state, and a CPU that comes online is taken
 * before kvmpp asks for it.
 */
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/smp.h>

#include <asm/asm.h>
#include <asm/cpufeature.h>
#include <asm/msr.h>
#include <asm/processor.h>
#include <asm/tlbflush.h>

static DEFINE_PER_CPU(unsigned long, region);
static DEFINE_PER_CPU(bool, holding);
/* Those to be held when they are online. Under cpus_read_lock, or by the hotplug callbacks. */
static struct cpumask wanted;
static enum cpuhp_state hotplug_state;

static int vmxon(u64 address)
{
	asm goto("1: vmxon %[address]\n\t"
		 "jbe %l[failed]\n\t"
		 _ASM_EXTABLE(1b, %l[failed])
		 : : [address] "m"(address) : "cc", "memory" : failed);
	return 0;
failed:
	return -EIO;
}

/* Interrupts off: others take CPUs by IPI. */
static int take_here(void)
{
	unsigned long page = this_cpu_read(region);
	int error;

	if (this_cpu_read(holding))
		return 0;
	if (cr4_read_shadow() & X86_CR4_VMXE)
		return -EBUSY;
	*(u32 *)page = (u32)__rdmsr(MSR_IA32_VMX_BASIC) & 0x7fffffff;
	cr4_set_bits(X86_CR4_VMXE);
	error = vmxon(virt_to_phys((void *)page));
	if (error)
		cr4_clear_bits(X86_CR4_VMXE);
	else
		this_cpu_write(holding, true);
	return error;
}

static void release_here(void)
{
	if (!this_cpu_read(holding))
		return;
	asm volatile("vmxoff" : : : "cc", "memory");
	cr4_clear_bits(X86_CR4_VMXE);
	this_cpu_write(holding, false);
}

static void take(void *error)
{
	*(int *)error = take_here();
}

static void release(void *unused)
{
	release_here();
}

static int cpu_comes(unsigned int cpu)
{
	unsigned long flags;
	int error = 0;

	local_irq_save(flags);
	if (cpumask_test_cpu(cpu, &wanted))
		error = take_here();
	local_irq_restore(flags);
	return error;
}

static int cpu_goes(unsigned int cpu)
{
	unsigned long flags;

	local_irq_save(flags);
	release_here();
	local_irq_restore(flags);
	return 0;
}

static int set_cpu(const char *text, const struct kernel_param *param)
{
	int cpu, error = kstrtoint(text, 0, &cpu);

	if (error)
		return error;
	if (cpu == -1) {
		cpus_read_lock();
		cpumask_clear(&wanted);
		on_each_cpu(release, NULL, 1);
		cpus_read_unlock();
		return 0;
	}
	if (cpu < 0 || cpu >= nr_cpu_ids || !cpu_possible(cpu))
		return -EINVAL;
	cpus_read_lock();
	if (cpu_online(cpu))
		smp_call_function_single(cpu, take, &error, 1);
	if (!error)
		cpumask_set_cpu(cpu, &wanted);
	cpus_read_unlock();
	return error;
}

static const struct kernel_param_ops cpu_ops = {
	.set = set_cpu,
};
module_param_cb(cpu, &cpu_ops, NULL, 0200);

static void look(void *mask)
{
	if (__read_cr4() & X86_CR4_VMXE)
		cpumask_set_cpu(smp_processor_id(), mask);
}

static int get_vmxe(char *text, const struct kernel_param *param)
{
	/* Atomic bit operations: all CPUs write it at once. */
	struct cpumask mask = {};

	on_each_cpu(look, &mask, 1);
	return sysfs_emit(text, "%*pbl\n", cpumask_pr_args(&mask));
}

static const struct kernel_param_ops vmxe_ops = {
	.get = get_vmxe,
};
module_param_cb(vmxe, &vmxe_ops, NULL, 0400);

static void free_regions(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		free_page(per_cpu(region, cpu));
}

static int __init hog_init(void)
{
	int cpu, state;

	if (!boot_cpu_has(X86_FEATURE_VMX))
		return -ENODEV;
	for_each_possible_cpu(cpu) {
		per_cpu(region, cpu) = get_zeroed_page(GFP_KERNEL);
		if (!per_cpu(region, cpu)) {
			free_regions();
			return -ENOMEM;
		}
	}
	state = cpuhp_setup_state(CPUHP_AP_ONLINE_DYN, "vmx_hog:online", cpu_comes, cpu_goes);
	if (state < 0) {
		free_regions();
		return state;
	}
	hotplug_state = state;
	return 0;
}

static void __exit hog_exit(void)
{
	/* Calls cpu_goes() on every CPU. */
	cpuhp_remove_state(hotplug_state);
	free_regions();
}

module_init(hog_init);
module_exit(hog_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Holds CPUs in VMX operation, for kvmpp's tests");
