/* SPDX-License-Identifier: GPL-2.0 */
/* The VMM's memory: copied, looked up page by page, and followed when Linux takes it away. */
#ifndef LINUX_GLUE_MEMORY_H
#define LINUX_GLUE_MEMORY_H

#include "base.h"

GLUE_BEGIN

/* 0 or -EFAULT. Sleep. */
int glue_copy_from_user(void *to, glue_u64 from, glue_size bytes) MAY_SLEEP;
int glue_copy_to_user(glue_u64 to, const void *from, glue_size bytes) MAY_SLEEP;
/* The second without waiting for a page that is not there, which is -EFAULT, too. Any context. */
int glue_copy_to_user_nofault(glue_u64 to, const void *from, glue_size bytes);
/* An aligned integer of @bytes, 4 or 8, in one access. 0 or -EFAULT. Sleeps. */
int glue_user_read(glue_u64 address, glue_u64 *value, glue_size bytes) MAY_SLEEP;
/* 16 bytes, aligned or not, not in one access. 0 or -EFAULT. Sleeps. */
int glue_user_read_16(glue_u64 address, glue_u64 *to) MAY_SLEEP;
/*
 * An aligned integer of @bytes, 4 or 8, becomes @desired where it is @expected, as one locked access. 1, 0
 * where it is something else, or -EFAULT. Sleeps.
 */
int glue_user_compare_exchange(glue_u64 address, glue_u64 expected, glue_u64 desired,
			       glue_size bytes) MAY_SLEEP;
/* A pointer in a structure of the current ioctl's: a 32-bit caller has set the lower half of the field only. */
glue_u64 glue_user_pointer(glue_u64 field);
/* Whether [address, address + bytes) is user space at all. */
int glue_user_range_ok(glue_u64 address, glue_u64 bytes);

/*
 * The page frame behind @address of the current process, faulted in, with a reference that
 * glue_user_page_put() drops. With @write it is made writable, and -EFAULT when that cannot be;
 * without, @writable says whether it happens to be. Of the @count - 1 pages that follow, those that are
 * there and writable, until the first that is not. How many, at least 1; -EHWPOISON where the hardware has
 * lost what was in the first; -EAGAIN when a fatal signal has come. Sleeps.
 */
enum { GLUE_USER_PAGES = 8 };
int glue_user_pages_get(glue_u64 address, int count, int write, glue_u64 *frames,
			int *writable) MAY_SLEEP;
/* @dirty: it was mapped so that it may be written to. */
void glue_user_page_put(glue_u64 frame, int dirty);
/* The current thread gets SIGBUS (BUS_MCEERR_AR), as if it had touched such a page at @address itself. */
void glue_user_page_lost(glue_u64 address);
/* What is mapped, and the MMU notifier has not told of, was used. Any context but an interrupt. */
void glue_user_page_accessed(glue_u64 frame);

/*
 * How many page frames the current process's page table has in the entry that maps @address, if it
 * maps it to @frame; else 1. True until the MMU notifier tells of the entry. Any context.
 */
glue_u64 glue_user_mapping_frames(glue_u64 address, glue_u64 frame);
/* Whether a large page that a guest executes could take the machine down on this kind of CPU. */
int glue_executed_pages_must_be_small(void);

/*
 * Follows the address space of the current process: kvmpp_mmu_invalidate_begin(context, start, end)
 * before the pages of [start, end) go, kvmpp_mmu_invalidate_end() of the same after. Both may be called
 * until glue_mmu_notifier_unregister() has returned. 0, -ENOMEM, or -EINTR when a signal came.
 * Sleeps.
 */
struct glue_mmu_notifier;
int glue_mmu_notifier_register(void *context, struct glue_mmu_notifier **notifier) MAY_SLEEP;
void glue_mmu_notifier_unregister(struct glue_mmu_notifier *notifier) MAY_SLEEP;
/* The current process, as user space numbers it. */
glue_u32 glue_process_id(void);
/* Whether the current process is the one that registered it. */
int glue_mmu_notifier_is_current(const struct glue_mmu_notifier *notifier);

GLUE_END

#endif
