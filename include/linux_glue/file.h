/* SPDX-License-Identifier: GPL-2.0 */
/* Files: the device, and the descriptors that user space holds VMs and vCPUs by. */
#ifndef LINUX_GLUE_FILE_H
#define LINUX_GLUE_FILE_H

#include "base.h"

GLUE_BEGIN

/*
 * Creates a file for @object and reserves its descriptor; glue_fd_install() makes it visible to
 * user space, and from then on @object may be released at any time. 0 or a negative errno. Sleep.
 */
struct glue_new_fd {
	int fd;
	void *file;
};
int glue_vm_fd_prepare(struct glue_new_fd *fd, void *vm) MAY_SLEEP;
int glue_vcpu_fd_prepare(struct glue_new_fd *fd, void *vcpu, int vcpu_id) MAY_SLEEP;
void glue_fd_install(struct glue_new_fd *fd);

GLUE_END

#endif
