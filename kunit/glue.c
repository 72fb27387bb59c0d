// SPDX-License-Identifier: GPL-2.0
/*
 * The C that the C++ under test stands on, compiled into this module a second time; and what that C
 * calls upwards, which no test gets to. Tracepoints of one name cannot be in two modules, nor can a
 * notifier of modules be registered by one, which is where KUnit runs a module's suites.
 */
#include "../virt/linux/alloc.c"
#include "../virt/linux/cpu.c"
#include "../virt/linux/lock.c"
#include "../virt/linux/log.c"
#include "../virt/linux/memory.c"
#include "../virt/linux/private_map.c"
#include "../virt/linux/sched.c"
#include "../virt/linux/speculation.c"
#include "../virt/linux/vpid.c"
#include "../virt/linux/x86.c"

#include <linux_glue/crash.h>
#include <linux_glue/parameters.h>
#include <linux_glue/trace.h>

struct glue_parameters glue_parameters = {
	.exclusive = true,
};

int glue_crash_init(void)
{
	return 0;
}

void glue_crash_exit(void)
{
}

int glue_crash_hook_take(int may_lack)
{
	return 0;
}

void glue_crash_hook_give_back(void)
{
}

void glue_trace_vmx_on(void)
{
}

void glue_trace_vmx_off(void)
{
}

void glue_trace_vmcs_load(glue_u32 process, glue_u32 vm, glue_u32 vcpu)
{
}

void glue_trace_vmcs_clear(glue_u32 process, glue_u32 vm, glue_u32 vcpu, const char *cause)
{
}

void kvmpp_mmu_invalidate_begin(void *vm, glue_u64 start, glue_u64 end)
{
}

void kvmpp_mmu_invalidate_end(void *vm, glue_u64 start, glue_u64 end)
{
}

int kvmpp_mmu_young(void *vm, glue_u64 start, glue_u64 end, int clear)
{
	return 0;
}
