/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * What /dev/kvmpp has beyond the KVM ABI: CPUs dedicated to one vCPU.
 *
 * Both ioctls are a vCPU's. They work on one that is running, and from any process that has its file.
 */
#ifndef _UAPI_KVMPP_H
#define _UAPI_KVMPP_H

#include <linux/kvm.h>

/* KVM_CHECK_EXTENSION: how many CPUs of this machine could be dedicated; 0: none. */
#define KVMPP_CAP_DEDICATED_CPU 0x6b76

/*
 * Writes the vCPU's CPU, or -1, to the signed int that the argument points to.
 *
 * EPERM	without CAP_SYS_ADMIN
 * EFAULT	the int cannot be written
 */
#define KVMPP_GET_DEDICATED_CPU _IO(KVMIO, 0xae)

/*
 * Takes the CPU whose number the argument is (the number, not a pointer) from Linux, for this vCPU
 * alone; -1 gives it back as it was, online or offline. Returns 0 once the CPU has left Linux and is
 * up; a running vCPU moves there at its next entry. After an error all is as it was.
 *
 * EPERM	without CAP_SYS_ADMIN
 * EINVAL	there is no such CPU; or -1, and the vCPU has none
 * EBUSY	the CPU is CPU 0, or the last one online, or dedicated already; the vCPU has one already;
 *		a suspend, reboot or kexec is under way; or Linux uses an SMT sibling of the CPU, without
 *		the module's allow_smt=1
 * ETIMEDOUT	the CPU did not come up, and Linux has it back
 * EOPNOTSUPP	the machine has no x2APIC
 */
#define KVMPP_SET_DEDICATED_CPU _IO(KVMIO, 0xaf)

#endif
