// SPDX-License-Identifier: GPL-2.0
/*
 * Sends the interrupts of a pin of the first IOAPIC to a CPU that Linux need not have, by its APIC id:
 *
 *	modprobe ioapic_route
 *	echo PIN APIC-ID VECTOR > /sys/module/ioapic_route/parameters/route	edge-triggered, unmasked
 *	rmmod ioapic_route							the entry is as it was
 *
 * Linux's lock of the IOAPIC's two registers is its own: none else is to change an entry at that moment.
 */
#include <linux/io.h>
#include <linux/irqflags.h>
#include <linux/kernel.h>
#include <linux/module.h>

#define IOAPIC 0xfec00000
#define DATA 0x10
#define ENTRY(pin) (0x10 + 2 * (pin))
#define MASKED (1 << 16)

static void __iomem *ioapic;
static int changed = -1;
static u32 low_before, high_before;

static u32 read_register(u32 number)
{
	writel(number, ioapic);
	return readl(ioapic + DATA);
}

static void write_register(u32 number, u32 value)
{
	writel(number, ioapic);
	writel(value, ioapic + DATA);
}

static void write_entry(unsigned int pin, u32 low, u32 high)
{
	write_register(ENTRY(pin), MASKED);
	write_register(ENTRY(pin) + 1, high);
	write_register(ENTRY(pin), low);
}

static int set_route(const char *text, const struct kernel_param *param)
{
	unsigned int pin, apic_id, vector;
	unsigned long flags;

	if (sscanf(text, "%u %u %u", &pin, &apic_id, &vector) != 3 || pin > 23 || apic_id > 254 ||
	    vector < 16 || vector > 255)
		return -EINVAL;
	if (changed >= 0 && changed != pin)
		return -EBUSY;
	local_irq_save(flags);
	if (changed < 0) {
		low_before = read_register(ENTRY(pin));
		high_before = read_register(ENTRY(pin) + 1);
		changed = pin;
	}
	write_entry(pin, vector, apic_id << 24);
	local_irq_restore(flags);
	return 0;
}

static const struct kernel_param_ops route_ops = {
	.set = set_route,
};
module_param_cb(route, &route_ops, NULL, 0200);

static int __init ioapic_route_init(void)
{
	ioapic = ioremap(IOAPIC, PAGE_SIZE);
	return ioapic ? 0 : -ENOMEM;
}

static void __exit ioapic_route_exit(void)
{
	unsigned long flags;

	local_irq_save(flags);
	if (changed >= 0)
		write_entry(changed, low_before, high_before);
	local_irq_restore(flags);
	iounmap(ioapic);
}

module_init(ioapic_route_init);
module_exit(ioapic_route_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Interrupts of devices for CPUs that Linux does not have, for kvmpp's tests");
