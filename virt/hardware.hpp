/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VMX on all CPUs while there are VMs, on none while there are not, as CPUs come and go. With the
 * module's parameter enable_at_load from its load on; with exclusive=0 on where a vCPU runs only.
 */
#pragma once

#include "arch/x86/capabilities.hpp"
#include "include/kvmpp/result.hpp"

namespace kvmpp
{

/*
 * Looks at this machine's CPUs and prepares. Errno and one line in the log when they will not do.
 */
Result<> hardware_init();
void hardware_exit();

/*
 * One more VM: the first switches VMX on everywhere or changes nothing. Errno::busy when another
 * hypervisor has it, or the crash hook, or the machine goes down. May sleep.
 */
Result<> hardware_get();
/* One VM less: the last switches it off everywhere. May sleep. */
void hardware_put();

const VmxConfig &hardware_config();

} // namespace kvmpp
