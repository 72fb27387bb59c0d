/* SPDX-License-Identifier: GPL-2.0 */
/* Of private_map.c, for what starts a CPU on one. */
#ifndef VIRT_LINUX_PRIVATE_MAP_H
#define VIRT_LINUX_PRIVATE_MAP_H

#include <linux/types.h>

struct glue_private_map;

/* -ENOMEM. */
int private_map_add_identity(struct glue_private_map *map, phys_addr_t page);

#endif
