// SPDX-License-Identifier: GPL-2.0
#include "model/module.hpp"

#include "model/cpus.hpp"
#include "model/violation.hpp"

#include <linux_glue/cpu.h>
#include <linux_glue/crash.h>

#include <asm/errno.h>

#include <utility>

struct glue_parameters glue_parameters;

namespace kvmpp::host
{

namespace
{

bool kvm_intel, watched, held, may_be_lacking, going_down;

} // namespace

void reset_module()
{
	glue_parameters = {.enable_at_load = false,
			   .exclusive = true,
			   .allow_no_crash_hook = false,
			   .allow_smt = false,
			   .eptad = true,
			   .pml = true,
			   .ple_gap = 128,
			   .ple_window = 4096};
	kvm_intel = watched = held = may_be_lacking = going_down = false;
}

void load_kvm_intel()
{
	kvm_intel = true;
}

bool crash_hook_held()
{
	return held;
}

bool crash_hook_may_be_lacking()
{
	return may_be_lacking;
}

void machine_goes_down_already()
{
	going_down = true;
}

} // namespace kvmpp::host

using namespace kvmpp::host;

int glue_crash_init(void)
{
	might_sleep("registering a notifier");
	if (std::exchange(watched, true))
		violation("kvm_intel is watched twice");
	return 0;
}

void glue_crash_exit(void)
{
	might_sleep("removing a notifier");
	if (!std::exchange(watched, false))
		violation("kvm_intel is not watched");
	if (held)
		violation("the crash hook goes while it is in use");
}

int glue_crash_hook_take(int may_lack)
{
	might_sleep("taking the crash hook");
	if (kvm_intel)
		return -EBUSY;
	if (std::exchange(held, true))
		violation("the crash hook taken twice");
	may_be_lacking = may_lack;
	return 0;
}

int glue_crash_hook_held(void)
{
	return held;
}

void glue_crash_hook_give_back(void)
{
	might_sleep("giving the crash hook back");
	held = false;
}

int glue_machine_goes_down(void)
{
	return going_down;
}
