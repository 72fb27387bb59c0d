// SPDX-License-Identifier: GPL-2.0
#include <linux/compat.h>
#include <linux/cpu.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/uaccess.h>

#include <linux_glue/entries.h>
#include <linux_glue/memory.h>

struct glue_mmu_notifier {
	struct mmu_notifier notifier;
	struct mm_struct *mm;
	void *context;
};

int glue_copy_from_user(void *to, glue_u64 from, glue_size bytes)
{
	return copy_from_user(to, (const void __user *)from, bytes) ? -EFAULT : 0;
}

int glue_copy_to_user(glue_u64 to, const void *from, glue_size bytes)
{
	return copy_to_user((void __user *)to, from, bytes) ? -EFAULT : 0;
}

int glue_copy_to_user_nofault(glue_u64 to, const void *from, glue_size bytes)
{
	return copy_to_user_nofault((void __user *)to, from, bytes) ? -EFAULT : 0;
}

int glue_user_read(glue_u64 address, glue_u64 *value, glue_size bytes)
{
	u32 low;

	if (bytes == sizeof(*value))
		return get_user(*value, (u64 __user *)address);
	if (get_user(low, (u32 __user *)address))
		return -EFAULT;
	*value = low;
	return 0;
}

int glue_user_read_16(glue_u64 address, glue_u64 *to)
{
	const u64 __user *from = (const u64 __user *)address;

	if (!user_read_access_begin(from, 2 * sizeof(*from)))
		return -EFAULT;
	unsafe_get_user(to[0], &from[0], fault);
	unsafe_get_user(to[1], &from[1], fault);
	user_read_access_end();
	return 0;
fault:
	user_read_access_end();
	return -EFAULT;
}

int glue_user_compare_exchange(glue_u64 address, glue_u64 expected, glue_u64 desired,
			       glue_size bytes)
{
	int other;

	if (!access_ok((void __user *)address, bytes))
		return -EFAULT;
	if (bytes == sizeof(u32)) {
		u32 old = expected;

		other = __try_cmpxchg_user((u32 __user *)address, &old, (u32)desired, fault32);
	} else {
		u64 old = expected;

		other = __try_cmpxchg_user((u64 __user *)address, &old, (u64)desired, fault64);
	}
	return other < 0 ? other : !other;
}

glue_u64 glue_user_pointer(glue_u64 field)
{
	return in_compat_syscall() ? (u32)field : field;
}

int glue_user_range_ok(glue_u64 address, glue_u64 bytes)
{
	return access_ok((void __user *)address, bytes);
}

int glue_user_pages_get(glue_u64 address, int count, int write, glue_u64 *frames, int *writable)
{
	struct page *pages[GLUE_USER_PAGES];
	long got;
	int i;

	/*
	 * Without mmap_lock: who waits for it while somebody changes the mapping over and over looks the page
	 * up when another invalidation has ended, and so for nothing. To be written to even by a read, which
	 * spares a second fault where it is already.
	 */
	*writable = 1;
	got = get_user_pages_fast_only(address, count, FOLL_WRITE, pages);
	if (got < 1) {
		*writable = write;
		got = get_user_pages_unlocked(address, 1, pages,
					      FOLL_HWPOISON | (write ? FOLL_WRITE : 0));
		if (got != 1)
			return got < 0 ? got : -EFAULT;
	}
	for (i = 0; i < got; i++)
		frames[i] = page_to_pfn(pages[i]);
	return got;
}

void glue_user_page_put(glue_u64 frame, int dirty)
{
	struct page *page = pfn_to_page(frame);

	if (dirty && !PageReserved(page))
		SetPageDirty(page);
	put_page(page);
}

void glue_user_page_lost(glue_u64 address)
{
	send_sig_mceerr(BUS_MCEERR_AR, (void __user *)address, PAGE_SHIFT, current);
}

void glue_user_page_accessed(glue_u64 frame)
{
	struct page *page = pfn_to_page(frame);

	if (!PageReserved(page))
		mark_page_accessed(page);
}

static glue_u64 mapping_frames(glue_u64 address, glue_u64 frame)
{
	/* Each entry is read once: it may become another kind of entry at any time. */
	pgd_t pgd = READ_ONCE(*pgd_offset(current->mm, address));
	p4d_t p4d;
	pud_t pud;
	pmd_t pmd;

	if (pgd_none(pgd))
		return 1;
	p4d = READ_ONCE(*p4d_offset(&pgd, address));
	if (p4d_none(p4d) || !p4d_present(p4d))
		return 1;
	pud = READ_ONCE(*pud_offset(&p4d, address));
	if (pud_none(pud) || !pud_present(pud))
		return 1;
	if (pud_leaf(pud))
		return pud_pfn(pud) == (frame & -(1ul << (PUD_SHIFT - PAGE_SHIFT)))
			       ? 1ul << (PUD_SHIFT - PAGE_SHIFT)
			       : 1;
	pmd = READ_ONCE(*pmd_offset(&pud, address));
	if (pmd_none(pmd) || !pmd_present(pmd) || !pmd_leaf(pmd))
		return 1;
	return pmd_pfn(pmd) == (frame & -(1ul << (PMD_SHIFT - PAGE_SHIFT)))
		       ? 1ul << (PMD_SHIFT - PAGE_SHIFT)
		       : 1;
}

glue_u64 glue_user_mapping_frames(glue_u64 address, glue_u64 frame)
{
	unsigned long flags;
	glue_u64 frames;

	/* Tables are freed after an IPI or by RCU: both wait for us. */
	local_irq_save(flags);
	frames = mapping_frames(address, frame);
	local_irq_restore(flags);
	return frames;
}

int glue_executed_pages_must_be_small(void)
{
	return boot_cpu_has_bug(X86_BUG_ITLB_MULTIHIT) && !cpu_mitigations_off();
}

static int begin(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct glue_mmu_notifier *glue = container_of(notifier, struct glue_mmu_notifier, notifier);

	kvmpp_mmu_invalidate_begin(glue->context, range->start, range->end);
	return 0;
}

static void end(struct mmu_notifier *notifier, const struct mmu_notifier_range *range)
{
	struct glue_mmu_notifier *glue = container_of(notifier, struct glue_mmu_notifier, notifier);

	kvmpp_mmu_invalidate_end(glue->context, range->start, range->end);
}

static void release(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	struct glue_mmu_notifier *glue = container_of(notifier, struct glue_mmu_notifier, notifier);

	/* The whole address space goes; nothing of it is mapped again. */
	kvmpp_mmu_invalidate_begin(glue->context, 0, TASK_SIZE_MAX);
	kvmpp_mmu_invalidate_end(glue->context, 0, TASK_SIZE_MAX);
}

static int clear_flush_young(struct mmu_notifier *notifier, struct mm_struct *mm,
			     unsigned long start, unsigned long end)
{
	struct glue_mmu_notifier *glue = container_of(notifier, struct glue_mmu_notifier, notifier);

	return kvmpp_mmu_young(glue->context, start, end, 1);
}

static int test_young(struct mmu_notifier *notifier, struct mm_struct *mm, unsigned long address)
{
	struct glue_mmu_notifier *glue = container_of(notifier, struct glue_mmu_notifier, notifier);

	return kvmpp_mmu_young(glue->context, address, address + 1, 0);
}

static const struct mmu_notifier_ops ops = {
	.invalidate_range_start = begin,
	.invalidate_range_end = end,
	.clear_flush_young = clear_flush_young,
	.clear_young = clear_flush_young,
	.test_young = test_young,
	.release = release,
};

int glue_mmu_notifier_register(void *context, struct glue_mmu_notifier **notifier)
{
	struct glue_mmu_notifier *glue = kzalloc(sizeof(*glue), GFP_KERNEL_ACCOUNT);
	int error;

	if (!glue)
		return -ENOMEM;
	glue->notifier.ops = &ops;
	glue->context = context;
	glue->mm = current->mm;
	error = mmu_notifier_register(&glue->notifier, glue->mm);
	if (error) {
		kfree(glue);
		return error;
	}
	mmgrab(glue->mm);
	*notifier = glue;
	return 0;
}

void glue_mmu_notifier_unregister(struct glue_mmu_notifier *glue)
{
	mmu_notifier_unregister(&glue->notifier, glue->mm);
	mmdrop(glue->mm);
	kfree(glue);
}

glue_u32 glue_process_id(void)
{
	return task_tgid_nr(current);
}

int glue_mmu_notifier_is_current(const struct glue_mmu_notifier *glue)
{
	return glue->mm == current->mm;
}
