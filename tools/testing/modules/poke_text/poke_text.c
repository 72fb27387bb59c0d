// SPDX-License-Identifier: GPL-2.0
/*
 * Changes a byte of a module's text for a while, by another mapping of its page:
 *
 *	modprobe poke_text
 *	echo ADDRESS > /sys/module/poke_text/parameters/breakpoint	an INT3 is there
 *	echo 0 > /sys/module/poke_text/parameters/breakpoint		what was there
 */
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/vmalloc.h>

#define INT3 0xcc

static unsigned long where;
static u8 content;

static int write_byte(unsigned long address, u8 value, u8 *before)
{
	struct page *page = vmalloc_to_page((void *)address);
	u8 *mapped = page ? vmap(&page, 1, VM_MAP, PAGE_KERNEL) : NULL;

	if (!mapped)
		return -EINVAL;
	mapped += offset_in_page(address);
	if (before)
		*before = *mapped;
	WRITE_ONCE(*mapped, value);
	vunmap(mapped - offset_in_page(address));
	return 0;
}

static void restore(void)
{
	if (where)
		write_byte(where, content, NULL);
	where = 0;
}

static int set_breakpoint(const char *text, const struct kernel_param *param)
{
	unsigned long address;
	int error = kstrtoul(text, 0, &address);

	if (error)
		return error;
	restore();
	if (!address)
		return 0;
	if (address < MODULES_VADDR || address >= MODULES_END)
		return -EINVAL;
	error = write_byte(address, INT3, &content);
	if (!error)
		where = address;
	return error;
}

static const struct kernel_param_ops breakpoint_ops = {
	.set = set_breakpoint,
};
module_param_cb(breakpoint, &breakpoint_ops, NULL, 0200);

static int __init poke_text_init(void)
{
	return 0;
}

static void __exit poke_text_exit(void)
{
	restore();
}

module_init(poke_text_init);
module_exit(poke_text_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Breakpoints in the text of modules, for kvmpp's tests");
