/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/* What /dev/kvmpp has beyond the KVM API of <linux/kvm.h>. Documentation/api.rst says more. */
#ifndef _UAPI_KVMPP_H
#define _UAPI_KVMPP_H

#include <linux/kvm.h>

/*
 * KVM_CHECK_EXTENSION: how many CPUs could be dedicated to a vCPU now; 0 where the machine cannot. (81,
 * the number of the series of 2012, has become another's.)
 */
#define KVMPP_CAP_DEDICATED_CPU 0x6b76

/*
 * ioctls of a vCPU's file, from any process that has it, whatever the vCPU is doing.
 *
 * GET: the argument points to an int, which receives the number of the CPU that is dedicated to the
 * vCPU, or -1.
 *
 * SET: the argument is the number of a CPU, which Linux leaves if it is online and which runs this vCPU
 * and nothing else from then on; or -1: the CPU is given back as it was. Needs CAP_SYS_ADMIN.
 *
 * EPERM       no CAP_SYS_ADMIN
 * EINVAL      there is no such CPU; or -1 and the vCPU has none
 * EBUSY       CPU 0, the last CPU online, a CPU that is dedicated already or whose SMT sibling Linux
 *             uses (see allow_smt), the vCPU has one already, or a suspend, reboot or kexec is under way
 * ETIMEDOUT   the CPU did not come up within a second and was given back; or did not leave
 * EOPNOTSUPP  its APIC has no x2APIC mode
 * ENOMEM
 */
#define KVMPP_GET_DEDICATED_CPU _IO(KVMIO, 0xae)
#define KVMPP_SET_DEDICATED_CPU _IO(KVMIO, 0xaf)

#endif
