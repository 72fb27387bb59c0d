// SPDX-License-Identifier: GPL-2.0
/*
 * The C that the C++ under test stands on, compiled into this module a second time; and what that C
 * calls upwards, which no test gets to.
 */
#include "../virt/linux/alloc.c"
#include "../virt/linux/cpu.c"
#include "../virt/linux/lock.c"
#include "../virt/linux/log.c"
#include "../virt/linux/memory.c"
#include "../virt/linux/sched.c"
#include "../virt/linux/x86.c"

int kvmpp_cpu_online(int cpu)
{
	return 0;
}

int kvmpp_cpu_offline(int cpu)
{
	return 0;
}

void kvmpp_syscore_suspend(void)
{
}

void kvmpp_syscore_resume(void)
{
}

void kvmpp_machine_down(void)
{
}

void kvmpp_mmu_invalidate_begin(void *vm, glue_u64 start, glue_u64 end)
{
}

void kvmpp_mmu_invalidate_end(void *vm)
{
}
