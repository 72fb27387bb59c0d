/* SPDX-License-Identifier: GPL-2.0 */
/*
 * CPUs that Linux does not have: taking one away and giving it back, starting it on code of ours, what
 * it sees of memory, and how either side reaches the other.
 */
#ifndef LINUX_GLUE_DEDICATED_H
#define LINUX_GLUE_DEDICATED_H

#include "base.h"

GLUE_BEGIN

/* Whether the caller may take CPUs from Linux. */
int glue_may_dedicate(void);
/* Whether the machine could have the CPU at all, online or not. */
int glue_cpu_present(int cpu);
int glue_online_cpus(void);
int glue_present_cpus(void);
/* Whether Linux runs on another thread of the CPU's core; and whether two CPUs are of one. */
int glue_cpu_sibling_online(int cpu);
int glue_cpus_share_core(int one, int other);
/*
 * Whether what Linux sends to another CPU may come to this one, its APIC being in x2APIC mode: a logical id of
 * the one mode may be another's in the other.
 */
int glue_cpu_may_be_mistaken(int cpu);

/*
 * remove_cpu() and add_cpu(): the device-hotplug lock and cpus_write_lock are taken inside, so that no
 * lock of the module's may be held. 0 or an errno. Sleep.
 */
int glue_cpu_remove(int cpu) MAY_SLEEP;
int glue_cpu_add(int cpu) MAY_SLEEP;

/* What Linux has set on a CPU and a dedicated one is to have as well. */
struct glue_cpu_registers {
	glue_u64 cr4;
	glue_u64 efer;
	glue_u64 pat;
	glue_u64 spec_ctrl; /* 0 where there is no such MSR */
	glue_u64 xcr0;	    /* 0 where Linux does not use XSAVE */
	glue_u64 gs_base;
	glue_u64 apic_base;
	glue_u32 apic_id;
	bool has_x2apic;
	bool x2apic_locked; /* its APIC cannot leave x2APIC mode */
	bool has_spec_ctrl;
	bool has_ibpb;
	bool has_split_lock_detect;
};
/* Of this CPU. Interrupts off. */
void glue_cpu_registers_read(struct glue_cpu_registers *registers) NEEDS_IRQS_OFF;

/*
 * Page tables that map what they are given and nothing else, at the addresses that Linux has it at.
 * Only for memory that stays mapped until they are destroyed. Sleep.
 */
struct glue_private_map;
/* With the module itself, and the kernel's text; null when there is no memory. */
struct glue_private_map *glue_private_map_create(void) MAY_SLEEP;
/* -ENOMEM. */
int glue_private_map_add(struct glue_private_map *map, const void *address, glue_size bytes) MAY_SLEEP;
/* Where they begin, as CR3 has it. */
glue_u64 glue_private_map_root(const struct glue_private_map *map);
void glue_private_map_destroy(struct glue_private_map *map) MAY_SLEEP;
/* Per-CPU data of @cpu that the kernel's thunks use. -ENOMEM. */
int glue_private_map_add_cpu(struct glue_private_map *map, int cpu) MAY_SLEEP;

/*
 * Starts an offline @cpu by INIT and SIPI, from a page below 1 MiB, which holds other content again
 * when glue_cpu_start_end() has been called: entry(argument) is called there in 64-bit mode on @stack
 * with interrupts off, and @map as its page tables. The caller finds out by itself whether the CPU got
 * there. -ENOMEM when no page will do. Sleeps. No CPU comes or goes until the end.
 */
struct glue_cpu_start {
	void (*entry)(void *argument);
	void *argument;
	void *stack;
	struct glue_private_map *map;
	glue_u64 cr4, efer;
};
int glue_cpu_start_begin(int cpu, const struct glue_cpu_start *start) MAY_SLEEP;
void glue_cpu_start_end(void) MAY_SLEEP;
/* INIT: it runs nothing from then on, until it is started again. Not in VMX operation. */
void glue_cpu_stop(int cpu);
/* An NMI, whether it is online or not. Any context; preemption off. */
void glue_cpu_nmi(int cpu);
/*
 * The module's exception table, which a fault on a dedicated CPU is looked up in: where it may be, and where it goes
 * on, each from the place of the number itself.
 */
struct glue_fixup {
	int instruction, target, type;
};
extern const struct glue_fixup *glue_fixups;
extern unsigned int glue_fixup_count;
void glue_msleep(unsigned int milliseconds) MAY_SLEEP;
void glue_udelay(unsigned int microseconds);
void glue_cpu_relax(void);

/*
 * Where a thread sleeps that waits for a dedicated CPU. Null when there is no memory.
 */
struct glue_bell;
struct glue_bell *glue_bell_create(void) MAY_SLEEP;
void glue_bell_destroy(struct glue_bell *bell) MAY_SLEEP;
/* Wakes who waits there, so that they look again. Any context, NMI as well. */
void glue_bell_ring(struct glue_bell *bell);
/*
 * Until done(argument). 0; with @interruptible -EINTR when a signal came first; -ETIMEDOUT after @ms
 * milliseconds, of which 0 are for ever.
 */
int glue_bell_wait(struct glue_bell *bell, int (*done)(void *), void *argument, int interruptible,
		   unsigned int ms) MAY_SLEEP;

/* The module is not unloaded any more. */
void glue_module_keep(void);

/* Waits for everybody who was in RCU, with preemption or interrupts off, or in an NMI. Sleeps. */
void glue_synchronize_rcu(void) MAY_SLEEP;

/*
 * Registers kvmpp_nmi(), the refusal of a CPU to come online (kvmpp_cpu_prepare()) and the notifiers
 * kvmpp_machine_sleeps() and kvmpp_machine_woke(). 0 or an errno. Sleep.
 */
int glue_dedicated_init(void) MAY_SLEEP;
void glue_dedicated_exit(void) MAY_SLEEP;

/*
 * The guest's FPU state, which is not loaded, as XSAVE writes it in its standard form; @image is a
 * page, and @features are those of XCR0 that it is to have. And back: 0, or -EINVAL where it has others,
 * or a reserved bit.
 */
struct glue_guest_fpu;
void glue_guest_fpu_save(struct glue_guest_fpu *fpu, void *image, glue_u64 features);
int glue_guest_fpu_load(struct glue_guest_fpu *fpu, const void *image, glue_u64 features);

GLUE_END

#endif
