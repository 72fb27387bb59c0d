// SPDX-License-Identifier: GPL-2.0
/*
 * The floor of what an exit and the next entry take, in instructions of the emulated host, with those
 * of the guest:
 *
 *	parameters/bare	 read: VMRESUME, an exit, and VMRESUME again
 *	parameters/least read: with the guest's registers, the reason, and on to the next instruction
 *
 * VMX must be off on the CPU.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/smp.h>

#include "../kernel_guest.h"

/* The emulator's test device: see Documentation/testing.rst. */
#define PORT_CPU 0xb00
#define PORT_INSTRUCTIONS_LOW 0xb04
#define PORT_INSTRUCTIONS_HIGH 0xb08

#define ROUNDS 1000

typedef unsigned int rounds_fn(unsigned int rounds);
rounds_fn bare_rounds, least_rounds;
extern const u8 guest_cpuid[];

static u64 instructions(void)
{
	u32 low;

	outl(raw_smp_processor_id(), PORT_CPU);
	low = inl(PORT_INSTRUCTIONS_LOW);
	return low | (u64)inl(PORT_INSTRUCTIONS_HIGH) << 32;
}

/* Interrupts off, in VMX operation. */
static int measure(rounds_fn *run, void *vmcs, unsigned int rounds, u64 *took)
{
	u64 address = __pa(vmcs), before;
	unsigned int left;

	/* it is launched each time */
	asm volatile("vmclear %0" : : "m"(address) : "cc", "memory");
	asm volatile("vmptrld %0" : : "m"(address) : "cc", "memory");
	write_field(GUEST_RIP, (unsigned long)guest_cpuid);
	before = instructions();
	left = run(rounds);
	*took = instructions() - before;
	return left ? -EIO : 0;
}

static int get_rounds(char *text, const struct kernel_param *param)
{
	void *region = (void *)get_zeroed_page(GFP_KERNEL);
	void *vmcs = (void *)get_zeroed_page(GFP_KERNEL);
	int error = -ENOMEM;
	u64 one, more;

	if (region && vmcs) {
		local_irq_disable();
		error = -EBUSY;
		if (!(cr4_read_shadow() & X86_CR4_VMXE)) {
			begin_vmx(region, vmcs);
			fill_vmcs(0);
			error = measure(param->arg, vmcs, 1, &one) ?:
				measure(param->arg, vmcs, 1 + ROUNDS, &more);
			end_vmx(vmcs);
		}
		local_irq_enable();
	}
	free_page((unsigned long)region);
	free_page((unsigned long)vmcs);
	return error ?: sysfs_emit(text, "%llu\n", (more - one) / ROUNDS);
}

static const struct kernel_param_ops rounds_ops = {
	.get = get_rounds,
};
module_param_cb(bare, &rounds_ops, bare_rounds, 0400);
module_param_cb(least, &rounds_ops, least_rounds, 0400);

static int __init floor_init(void)
{
	return boot_cpu_has(X86_FEATURE_VMX) ? 0 : -ENODEV;
}

static void __exit floor_exit(void)
{
}

module_init(floor_init);
module_exit(floor_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("The floor of a VM exit's costs");
