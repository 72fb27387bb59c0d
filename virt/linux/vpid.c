// SPDX-License-Identifier: GPL-2.0
#include <linux/idr.h>

#include <linux_glue/vpid.h>

static DEFINE_IDA(vpids);

int glue_vpid_alloc(void)
{
	return ida_alloc_range(&vpids, 1, U16_MAX, GFP_KERNEL);
}

void glue_vpid_free(glue_u16 vpid)
{
	ida_free(&vpids, vpid);
}
