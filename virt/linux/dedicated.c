// SPDX-License-Identifier: GPL-2.0
/* Taking a CPU from Linux, starting it on code of the module's, and reaching it. */
#include <linux/capability.h>
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nmi.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/topology.h>

#include <asm/apic.h>
#include <asm/bios_ebda.h>
#include <asm/fpu/xcr.h>
#include <asm/msr.h>
#include <asm/nmi.h>
#include <asm/pgtable.h>
#include <asm/processor.h>

#include <linux_glue/dedicated.h>
#include <linux_glue/entries.h>

#include "compat.h"
#include "private_map.h"

int glue_may_dedicate(void)
{
	return capable(CAP_SYS_ADMIN);
}

int glue_cpu_present(int cpu)
{
	return cpu >= 0 && cpu < nr_cpu_ids && cpu_present(cpu);
}

int glue_online_cpus(void)
{
	return num_online_cpus();
}

int glue_present_cpus(void)
{
	return num_present_cpus();
}

int glue_cpu_sibling_online(int cpu)
{
	int sibling;

	for_each_cpu(sibling, topology_sibling_cpumask(cpu))
		if (sibling != cpu && cpu_online(sibling))
			return 1;
	return 0;
}

int glue_cpus_share_core(int one, int other)
{
	return compat_core_of(one) == compat_core_of(other);
}

int glue_cpu_may_be_mistaken(int cpu)
{
	u32 id = per_cpu(x86_cpu_to_apicid, cpu);

	/* Flat logical ids have a bit for a CPU, by its number; those of x2APIC's first cluster, by APIC id. */
	return !x2apic_enabled() && apic->dest_mode_logical && id < 8 && id != cpu && cpu_present(id);
}

int glue_cpu_remove(int cpu)
{
	return remove_cpu(cpu);
}

int glue_cpu_add(int cpu)
{
	return add_cpu(cpu);
}

void glue_cpu_registers_read(struct glue_cpu_registers *r)
{
	*r = (struct glue_cpu_registers){
		.cr4 = __read_cr4(),
		.gs_base = cpu_kernelmode_gs_base(smp_processor_id()),
		.apic_id = per_cpu(x86_cpu_to_apicid, smp_processor_id()),
		.has_x2apic = boot_cpu_has(X86_FEATURE_X2APIC),
		.has_spec_ctrl = boot_cpu_has(X86_FEATURE_MSR_SPEC_CTRL),
		.has_ibpb = boot_cpu_has(X86_FEATURE_IBPB),
		.has_split_lock_detect = boot_cpu_has(X86_FEATURE_SPLIT_LOCK_DETECT),
	};
	u64 capabilities = 0, status = 0;

	if (boot_cpu_has(X86_FEATURE_ARCH_CAPABILITIES))
		rdmsrl(MSR_IA32_ARCH_CAPABILITIES, capabilities);
	if (capabilities & ARCH_CAP_XAPIC_DISABLE)
		rdmsrl(MSR_IA32_XAPIC_DISABLE_STATUS, status);
	r->x2apic_locked = status & LEGACY_XAPIC_DISABLED;
	rdmsrl(MSR_EFER, r->efer);
	rdmsrl(MSR_IA32_CR_PAT, r->pat);
	rdmsrl(MSR_IA32_APICBASE, r->apic_base);
	if (r->has_spec_ctrl)
		rdmsrl(MSR_IA32_SPEC_CTRL, r->spec_ctrl);
	if (boot_cpu_has(X86_FEATURE_OSXSAVE))
		r->xcr0 = xgetbv(XCR_XFEATURE_ENABLED_MASK);
}

/* In xAPIC mode the register takes one command after the other. */
static void wait_for_icr(void)
{
	for (int i = 0; !x2apic_enabled() && i < 1000; i++) {
		if (!(apic->read(APIC_ICR) & APIC_ICR_BUSY))
			return;
		udelay(1);
	}
}

/* To @cpu alone, by its physical id: whatever mode its APIC is in. */
static void send_ipi(int cpu, u32 command)
{
	unsigned long flags;

	local_irq_save(flags);
	wait_for_icr();
	/* A write of x2APIC's register may be seen before what was stored before it. */
	weak_wrmsr_fence();
	apic->icr_write(command, per_cpu(x86_cpu_to_apicid, cpu));
	wait_for_icr();
	local_irq_restore(flags);
}

void glue_cpu_nmi(int cpu)
{
	send_ipi(cpu, APIC_DM_NMI | APIC_INT_ASSERT);
}

void glue_cpu_stop(int cpu)
{
	send_ipi(cpu, APIC_INT_LEVELTRIG | APIC_INT_ASSERT | APIC_DM_INIT);
	/* "MP Initialization Protocol": 10 ms from an INIT to what comes next. */
	msleep(10);
}

/* arch/x86/dedicated/start.S: real-mode code, and what it finds its way by. */
extern const char kvmpp_start_code[], kvmpp_start_parameters[], kvmpp_start_code_end[];

struct start_parameters {
	u32 cr3, cr4, efer, unused;
	u64 entry, argument, stack;
	struct {
		u32 offset;
		u16 segment, unused;
	} code32, code64;
	u16 unused2, gdt_limit;
	u32 gdt_base;
};

/* For one CPU after the other, from begin to end of its start. */
static DEFINE_MUTEX(kvmpp_start_lock);
static struct {
	void *page, *content;
} low;

/*
 * RAM below 1 MiB belongs to nobody that would not find it again as it was: Linux reserves all of it.
 * Its own trampoline is there, too, mapped read-only.
 */
static void *find_low_page(void)
{
	unsigned int ebda = get_bios_ebda(), end = ebda && ebda < 0xa0000 ? ebda : 0x9f000;

	/* The first pages are the BIOS's, and boot loaders'. */
	for (phys_addr_t page = 0x8000; page + PAGE_SIZE <= end; page += PAGE_SIZE) {
		void *address = __va(page);
		unsigned int level;
		pte_t *pte = lookup_address((unsigned long)address, &level);

		if (page_is_ram(PHYS_PFN(page)) && pte && pte_present(*pte) && pte_write(*pte))
			return address;
	}
	return NULL;
}

static int fill_low_page(const struct glue_cpu_start *start)
{
	size_t size = kvmpp_start_code_end - kvmpp_start_code;
	phys_addr_t base = __pa(low.page);
	struct start_parameters *p;

	if (private_map_add_identity(start->map, base))
		return -ENOMEM;
	memcpy(low.content, low.page, PAGE_SIZE);
	memcpy(low.page, kvmpp_start_code, size);
	p = low.page + (kvmpp_start_parameters - kvmpp_start_code);
	p->cr3 = (u32)glue_private_map_root(start->map);
	/* What has to be there when paging goes on; the rest is set by the code that is started. */
	p->cr4 = start->cr4 & (X86_CR4_PAE | X86_CR4_LA57);
	p->efer = start->efer & (EFER_SCE | EFER_LME | EFER_NX);
	p->entry = (unsigned long)start->entry;
	p->argument = (unsigned long)start->argument;
	p->stack = (unsigned long)start->stack;
	p->code32.offset += base;
	p->code64.offset += base;
	p->gdt_base += base;
	return 0;
}

int glue_cpu_start_begin(int cpu, const struct glue_cpu_start *start)
{
	int error = -ENOMEM;

	mutex_lock(&kvmpp_start_lock);
	cpus_read_lock();
	low.page = find_low_page();
	low.content = kmalloc(PAGE_SIZE, GFP_KERNEL);
	if (low.page && low.content)
		error = fill_low_page(start);
	if (error) {
		kfree(low.content);
		cpus_read_unlock();
		mutex_unlock(&kvmpp_start_lock);
		return error;
	}
	glue_cpu_stop(cpu);
	/* The second is for CPUs that missed the first. */
	for (int i = 0; i < 2; i++) {
		send_ipi(cpu, APIC_DM_STARTUP | __pa(low.page) >> PAGE_SHIFT);
		udelay(300);
	}
	return 0;
}

void glue_cpu_start_end(void)
{
	memcpy(low.page, low.content, PAGE_SIZE);
	kfree(low.content);
	cpus_read_unlock();
	mutex_unlock(&kvmpp_start_lock);
}

void glue_msleep(unsigned int milliseconds)
{
	msleep(milliseconds);
}

void glue_udelay(unsigned int microseconds)
{
	udelay(microseconds);
}

void glue_cpu_relax(void)
{
	cpu_relax();
}

void glue_module_keep(void)
{
	__module_get(THIS_MODULE);
}

void glue_synchronize_rcu(void)
{
	synchronize_rcu();
}

const struct glue_fixup *glue_fixups;
unsigned int glue_fixup_count;

static int nmi(unsigned int command, struct pt_regs *regs)
{
	return kvmpp_nmi(smp_processor_id());
}

/* None of the others wanted it. */
static int unclaimed_nmi(unsigned int command, struct pt_regs *regs)
{
	return kvmpp_unclaimed_nmi(smp_processor_id());
}

static enum cpuhp_state prepare_state;

static int cpu_is_wanted(unsigned int cpu)
{
	return kvmpp_cpu_prepare(cpu);
}

static int sleep_or_wake(struct notifier_block *block, unsigned long event, void *data)
{
	switch (event) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
		kvmpp_machine_sleeps();
		break;
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
		kvmpp_machine_woke();
		break;
	}
	return NOTIFY_OK;
}

/* Before CPU hotplug's own, with priority 0, which forbids it until the machine is awake. */
static struct notifier_block sleep_notifier = {
	.notifier_call = sleep_or_wake,
	.priority = 1,
};

int glue_dedicated_init(void)
{
	int state;
	int error;

	BUILD_BUG_ON(sizeof(struct exception_table_entry) != sizeof(struct glue_fixup));
	glue_fixups = (const struct glue_fixup *)THIS_MODULE->extable;
	glue_fixup_count = THIS_MODULE->num_exentries;
	error = register_nmi_handler(NMI_LOCAL, nmi, 0, "kvmpp");

	if (error)
		return error;
	error = register_nmi_handler(NMI_UNKNOWN, unclaimed_nmi, 0, "kvmpp");
	if (error) {
		unregister_nmi_handler(NMI_LOCAL, "kvmpp");
		return error;
	}
	state = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "kvmpp:prepare", cpu_is_wanted, NULL);
	if (state < 0) {
		unregister_nmi_handler(NMI_UNKNOWN, "kvmpp");
		unregister_nmi_handler(NMI_LOCAL, "kvmpp");
		return state;
	}
	prepare_state = state;
	register_pm_notifier(&sleep_notifier);
	return 0;
}

void glue_dedicated_exit(void)
{
	unregister_pm_notifier(&sleep_notifier);
	cpuhp_remove_state_nocalls(prepare_state);
	unregister_nmi_handler(NMI_UNKNOWN, "kvmpp");
	unregister_nmi_handler(NMI_LOCAL, "kvmpp");
}
