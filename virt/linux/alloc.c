// SPDX-License-Identifier: GPL-2.0
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include <linux_glue/alloc.h>

void *glue_zalloc(glue_size bytes)
{
	return kvzalloc(bytes, GFP_KERNEL_ACCOUNT);
}

void *glue_zalloc_kept(glue_size bytes)
{
	return kvzalloc(bytes, GFP_KERNEL);
}

void glue_free(void *memory)
{
	kvfree(memory);
}

void *glue_page_alloc(void)
{
	return (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
}

void glue_page_free(void *page)
{
	free_page((unsigned long)page);
}

glue_u64 glue_virt_to_phys(const void *address)
{
	return virt_to_phys((void *)address);
}

void *glue_phys_to_virt(glue_u64 address)
{
	return phys_to_virt(address);
}
