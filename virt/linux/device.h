/* SPDX-License-Identifier: GPL-2.0 */
/* The device node, made and removed by module.c. */
#ifndef VIRT_LINUX_DEVICE_H
#define VIRT_LINUX_DEVICE_H

int kvmpp_device_register(void);
void kvmpp_device_deregister(void);

#endif
