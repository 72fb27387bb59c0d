// SPDX-License-Identifier: GPL-2.0
/*
 * Page tables of a CPU's own. Linux does not shoot down the TLB of a CPU that it does not have: so that
 * one sees nothing whose mapping could change meanwhile, and nothing that is none of its business.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/slab.h>

#include <asm/pgtable.h>
#include <asm/processor.h>

#include <linux_glue/dedicated.h>

#include "compat.h"
#include "private_map.h"

struct glue_private_map {
	u64 *root;
};

#define ENTRIES	    512
#define ADDRESS	    0x000ffffffffff000ull
#define TABLE_FLAGS (_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY)
/* Global entries would survive the only flush that there is, of CR3. */
#define NOT_COPIED  (_PAGE_GLOBAL | _PAGE_USER)

static int top_level(void)
{
	return pgtable_l5_enabled() ? 5 : 4;
}

static unsigned int index_of(unsigned long address, int level)
{
	return (address >> (PAGE_SHIFT + 9 * (level - 1))) % ENTRIES;
}

/*
 * A page's entry at @level, whose tables above are made where they are missing; or that of a large page that
 * it is in.
 */
static u64 *entry_at(struct glue_private_map *map, unsigned long address, int level)
{
	u64 *table = map->root;

	for (int at = top_level(); at > level; at--) {
		u64 *entry = &table[index_of(address, at)];

		if (!*entry) {
			unsigned long below = get_zeroed_page(GFP_KERNEL_ACCOUNT);

			if (!below)
				return NULL;
			*entry = __pa(below) | TABLE_FLAGS;
		}
		if (*entry & _PAGE_PSE)
			return entry;
		table = __va(*entry & ADDRESS);
	}
	return &table[index_of(address, level)];
}

/*
 * As Linux has it, in as large a page if all of that is wanted, up to @end, and none of it is there in small
 * ones; @next is where the next begins.
 */
static int copy_page_at(struct glue_private_map *map, unsigned long address, unsigned long end,
			unsigned long *next)
{
	unsigned int level;
	pte_t *pte = lookup_address(address, &level);
	u64 value, *entry = NULL;
	unsigned long size;

	if (!pte || !pte_present(*pte))
		return -EFAULT;
	value = pte_val(*pte) & ~(u64)NOT_COPIED;
	size = page_level_size(level);
	if (level == PG_LEVEL_2M && IS_ALIGNED(address, size) && end - address >= size) {
		entry = entry_at(map, address, 2);
		if (!entry)
			return -ENOMEM;
		if (*entry && !(*entry & _PAGE_PSE))
			entry = NULL;
	}
	if (!entry) {
		if (level != PG_LEVEL_4K) {
			/* PAT and the address are elsewhere in a large page's entry. */
			u64 flags = value & ~(ADDRESS | _PAGE_PSE);
			u64 first = value & ADDRESS & ~(u64)(size - 1);

			value = first | (address & (size - 1) & PAGE_MASK) | flags;
			size = PAGE_SIZE;
		}
		entry = entry_at(map, address, 1);
	}
	if (!entry)
		return -ENOMEM;
	/* Else it is there, maybe in a large page's. */
	if (!*entry)
		*entry = value | _PAGE_ACCESSED | (value & _PAGE_RW ? _PAGE_DIRTY : 0);
	*next = (address & ~(size - 1)) + size;
	return 0;
}

int glue_private_map_add(struct glue_private_map *map, const void *start, glue_size bytes)
{
	unsigned long address = (unsigned long)start & PAGE_MASK;
	unsigned long end = (unsigned long)start + bytes;
	int error = 0;

	while (!error && address < end)
		error = copy_page_at(map, address, end, &address);
	return error;
}

static bool is_text(unsigned long address)
{
	unsigned int level;
	pte_t *pte = lookup_address(address, &level);

	return pte && pte_present(*pte) && pte_exec(*pte);
}

/* All of the kernel's text around @address: its thunks go from one place to another. */
static int add_text(struct glue_private_map *map, unsigned long address)
{
	int error = 0;

	address &= PMD_MASK;
	while (is_text(address - PMD_SIZE))
		address -= PMD_SIZE;
	while (!error && is_text(address))
		error = copy_page_at(map, address, ULONG_MAX, &address);
	return error;
}

struct glue_private_map *glue_private_map_create(void)
{
	struct glue_private_map *map = kzalloc(sizeof(*map), GFP_KERNEL_ACCOUNT);
	int error;

	if (!map)
		return NULL;
	/* The CPU comes to it with 32 bits of CR3. */
	map->root = (u64 *)get_zeroed_page(GFP_KERNEL_ACCOUNT | GFP_DMA32);
	error = map->root ? compat_for_each_module_part(map, (int (*)(void *, const void *, size_t))
								     glue_private_map_add) :
			    -ENOMEM;
	if (!error)
		error = add_text(map, (unsigned long)memcpy);
	if (error) {
		glue_private_map_destroy(map);
		return NULL;
	}
	return map;
}

int glue_private_map_add_cpu(struct glue_private_map *map, int cpu)
{
#ifdef CONFIG_MITIGATION_CALL_DEPTH_TRACKING
	return glue_private_map_add(map, per_cpu_ptr(&pcpu_hot, cpu), sizeof(pcpu_hot));
#else
	return 0;
#endif
}

/* A page at the address that it has in memory, for the moment in which paging goes on. */
int private_map_add_identity(struct glue_private_map *map, phys_addr_t page)
{
	u64 *entry = entry_at(map, page, 1);

	if (!entry)
		return -ENOMEM;
	*entry = page | TABLE_FLAGS;
	return 0;
}

glue_u64 glue_private_map_root(const struct glue_private_map *map)
{
	return __pa(map->root);
}

static void free_table(u64 *table, int level)
{
	for (int i = 0; level > 1 && i < ENTRIES; i++)
		if (table[i] && !(table[i] & _PAGE_PSE))
			free_table(__va(table[i] & ADDRESS), level - 1);
	free_page((unsigned long)table);
}

void glue_private_map_destroy(struct glue_private_map *map)
{
	if (map->root)
		free_table(map->root, top_level());
	kfree(map);
}
