/* SPDX-License-Identifier: GPL-2.0 */
/* Memory, zeroed, charged to the caller's memory cgroup. */
#ifndef LINUX_GLUE_ALLOC_H
#define LINUX_GLUE_ALLOC_H

#include "base.h"

GLUE_BEGIN

/* May sleep; null when there is none. Large sizes need not be physically contiguous. */
void *glue_zalloc(glue_size bytes) MAY_SLEEP;
/* The same for what outlives whoever asks: charged to nobody. */
void *glue_zalloc_kept(glue_size bytes) MAY_SLEEP;
void glue_free(void *memory) MAY_SLEEP;

/* A page of the kernel's direct map. May sleep; null when there is none. */
void *glue_page_alloc(void) MAY_SLEEP;
void glue_page_free(void *page);

glue_u64 glue_virt_to_phys(const void *address);
void *glue_phys_to_virt(glue_u64 address);

GLUE_END

#endif
