/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between the supported kernels, 6.1 and 6.12, under one name each. */
#ifndef VIRT_LINUX_COMPAT_H
#define VIRT_LINUX_COMPAT_H

#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/syscore_ops.h>
#include <linux/version.h>

/* Backported to some 6.12.y, so that Kbuild looks for it in the header. */
#ifdef HAVE_STRUCT_SYSCORE
#define COMPAT_SYSCORE(name, suspend_function, resume_function) \
	static int name##_do_suspend(void *data) \
	{ \
		return suspend_function(); \
	} \
	static void name##_do_resume(void *data) \
	{ \
		resume_function(); \
	} \
	static const struct syscore_ops name##_ops = { \
		.suspend = name##_do_suspend, \
		.resume = name##_do_resume, \
	}; \
	static struct syscore name = { .ops = &name##_ops }
#define compat_syscore_register	  register_syscore
#define compat_syscore_unregister unregister_syscore
#else
#define COMPAT_SYSCORE(name, suspend_function, resume_function) \
	static struct syscore_ops name = { \
		.suspend = suspend_function, \
		.resume = resume_function, \
	}
#define compat_syscore_register	  register_syscore_ops
#define compat_syscore_unregister unregister_syscore_ops
#endif

/* In the middle of schedule(): it has not gone to sleep. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#define compat_task_is_runnable(task) task_is_runnable(task)
#else
#define compat_task_is_runnable(task) ((task)->on_rq)
#endif

/* Calls add(context, address, bytes) for each part of this module that stays; its first error. */
static inline int compat_for_each_module_part(void *context,
					      int (*add)(void *, const void *, size_t))
{
	int error = 0;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	for_class_mod_mem_type(type, core) {
		const struct module_memory *part = &THIS_MODULE->mem[type];

		if (!error && part->size)
			error = add(context, part->base, part->size);
	}
#else
	error = add(context, THIS_MODULE->core_layout.base, THIS_MODULE->core_layout.size);
#endif
	return error;
}

/* A number that the threads of a core share. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
#define compat_core_of(cpu) ((u64)cpu_data(cpu).topo.pkg_id << 32 | cpu_data(cpu).topo.core_id)
#else
#define compat_core_of(cpu) ((u64)cpu_data(cpu).phys_proc_id << 32 | cpu_data(cpu).cpu_core_id)
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#define compat_eventfd_signal(context) eventfd_signal(context)
#else
#define compat_eventfd_signal(context) eventfd_signal(context, 1)
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
#define compat_note_context_switch() rcu_virt_note_context_switch()
#else
#define compat_note_context_switch() rcu_virt_note_context_switch(smp_processor_id())
#endif

#endif
