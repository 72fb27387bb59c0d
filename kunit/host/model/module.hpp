/* SPDX-License-Identifier: GPL-2.0 */
/* The module as it was loaded, and the other module that wants the crash hook. */
#pragma once

#include <linux_glue/parameters.h>

namespace kvmpp::host
{

/* No parameter is given, and kvm_intel is not there. */
void reset_module();
/* kvm_intel is loaded and has the hook. */
void load_kvm_intel();
bool crash_hook_held();
bool crash_hook_may_be_lacking();
/* The machine goes down, and the notifier came before the module. */
void machine_goes_down_already();

} // namespace kvmpp::host
