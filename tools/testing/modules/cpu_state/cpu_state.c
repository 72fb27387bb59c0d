// SPDX-License-Identifier: GPL-2.0
/*
 * What user space cannot see of one CPU, for tests of what comes back to Linux.
 *
 *	parameters/cpu		the CPU that the others are about
 *	parameters/registers	read: what is to be on it as it was, "name value" each
 *	parameters/alive	write: its timers fire, work runs there, and IPIs go from it and to it; else EIO,
 *				and the log says which do not
 *	parameters/nmi		write: sends it an NMI, online or not
 */
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/hrtimer.h>
#include <linux/irq_work.h>
#include <linux/module.h>
#include <linux/smp.h>
#include <linux/timer.h>
#include <linux/workqueue.h>

#include <asm/apic.h>
#include <asm/debugreg.h>
#include <asm/desc.h>
#include <asm/fpu/xcr.h>
#include <asm/msr.h>
#include <asm/mce.h>
#include <asm/mtrr.h>
#include <asm/processor.h>

static int cpu;
module_param(cpu, int, 0600);

static const struct {
	const char *name;
	u32 index;
} msrs[] = {
	{"tsc_adjust", MSR_IA32_TSC_ADJUST},
	{"feat_ctl", MSR_IA32_FEAT_CTL},
	{"spec_ctrl", MSR_IA32_SPEC_CTRL},
	{"ucode_rev", MSR_IA32_UCODE_REV},
	{"apic_base", MSR_IA32_APICBASE},
	{"tsx_ctrl", MSR_IA32_TSX_CTRL},
	{"misc_features", MSR_MISC_FEATURES_ENABLES},
	{"sysenter_cs", MSR_IA32_SYSENTER_CS},
	{"sysenter_esp", MSR_IA32_SYSENTER_ESP},
	{"sysenter_eip", MSR_IA32_SYSENTER_EIP},
	{"mcg_ctl", MSR_IA32_MCG_CTL},
	{"misc_enable", MSR_IA32_MISC_ENABLE},
	{"thermal_interrupt", MSR_IA32_THERM_INTERRUPT},
	{"energy_bias", MSR_IA32_ENERGY_PERF_BIAS},
	{"debugctl", MSR_IA32_DEBUGCTLMSR},
	{"pat", MSR_IA32_CR_PAT},
	{"perf_global_ctrl", MSR_CORE_PERF_GLOBAL_CTRL},
	{"pebs_enable", MSR_IA32_PEBS_ENABLE},
	{"ds_area", MSR_IA32_DS_AREA},
	{"xss", MSR_IA32_XSS},
	{"efer", MSR_EFER},
	{"star", MSR_STAR},
	{"lstar", MSR_LSTAR},
	{"cstar", MSR_CSTAR},
	{"fmask", MSR_SYSCALL_MASK},
	{"gs_base", MSR_GS_BASE},
	{"tsc_aux", MSR_TSC_AUX},
	{"mtrr_def_type", MSR_MTRRdefType},
	{"mtrr_fix_64k", MSR_MTRRfix64K_00000},
	{"mtrr_fix_16k_80000", MSR_MTRRfix16K_80000},
	{"mtrr_fix_16k_a0000", MSR_MTRRfix16K_A0000},
	{"mtrr_fix_4k_c0000", MSR_MTRRfix4K_C0000},
	{"mtrr_fix_4k_f8000", MSR_MTRRfix4K_F8000},
};

static const struct {
	const char *name;
	u32 offset;
} apic_registers[] = {
	{"apic_id", APIC_ID},
	{"apic_version", APIC_LVR},
	{"apic_tpr", APIC_TASKPRI},
	{"apic_ldr", APIC_LDR},
	{"apic_dfr", APIC_DFR},
	{"apic_spiv", APIC_SPIV},
	{"apic_lvt_timer", APIC_LVTT},
	{"apic_lvt_thermal", APIC_LVTTHMR},
	{"apic_lvt_pmc", APIC_LVTPC},
	{"apic_lint0", APIC_LVT0},
	{"apic_lint1", APIC_LVT1},
	{"apic_lvt_error", APIC_LVTERR},
	{"apic_timer_divide", APIC_TDCR},
};

/* Of one look. */
struct text {
	char *at;
	int length;
};

static void add(struct text *text, const char *name, u64 value)
{
	text->length += sysfs_emit_at(text->at, text->length, "%s %llx\n", name, value);
}

static void add_msr(struct text *text, const char *name, u32 index)
{
	u64 value;

	/* Those that this CPU does not have are left out. */
	if (!rdmsrl_safe(index, &value))
		add(text, name, value);
}

static void look(void *argument)
{
	struct text *text = argument;
	struct desc_ptr table;
	unsigned long selector;
	char name[24];
	u64 cap = 0;

	/* TS and PGE change from one moment to the next. */
	add(text, "cr0", read_cr0() & ~X86_CR0_TS);
	add(text, "cr4", __read_cr4());
	asm volatile("sgdt %0" : "=m"(table));
	add(text, "gdt", table.address);
	store_idt(&table);
	add(text, "idt", table.address);
	asm volatile("str %0" : "=r"(selector));
	add(text, "tr", selector & 0xffff);
	get_debugreg(selector, 7);
	add(text, "dr7", selector);
	if (boot_cpu_has(X86_FEATURE_OSXSAVE))
		add(text, "xcr0", xgetbv(XCR_XFEATURE_ENABLED_MASK));
	for (unsigned int i = 0; i < ARRAY_SIZE(msrs); i++)
		add_msr(text, msrs[i].name, msrs[i].index);
	rdmsrl_safe(MSR_MTRRcap, &cap);
	for (u32 i = 0; i < (cap & 0xff); i++) {
		scnprintf(name, sizeof(name), "mtrr_base%u", i);
		add_msr(text, name, MTRRphysBase_MSR(i));
		scnprintf(name, sizeof(name), "mtrr_mask%u", i);
		add_msr(text, name, MTRRphysMask_MSR(i));
	}
	cap = 0;
	rdmsrl_safe(MSR_IA32_MCG_CAP, &cap);
	for (u32 i = 0; i < (cap & 0xff); i++) {
		scnprintf(name, sizeof(name), "mc%u_ctl", i);
		add_msr(text, name, MSR_IA32_MCx_CTL(i));
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(apic_registers); i++) {
		/* DFR is not there in x2APIC mode. */
		if (apic_registers[i].offset == APIC_DFR && x2apic_enabled())
			continue;
		add(text, apic_registers[i].name, apic->read(apic_registers[i].offset));
	}
}

static int get_registers(char *buffer, const struct kernel_param *param)
{
	struct text text = {.at = buffer};
	int error = smp_call_function_single(cpu, look, &text, 1);

	return error ?: text.length;
}

static const struct kernel_param_ops registers_ops = {
	.get = get_registers,
};
module_param_cb(registers, &registers_ops, NULL, 0400);

static struct completion timer_fired, hrtimer_fired, irq_work_done, work_done;

static void on_timer(struct timer_list *timer)
{
	if (smp_processor_id() == cpu)
		complete(&timer_fired);
}

static enum hrtimer_restart on_hrtimer(struct hrtimer *timer)
{
	if (smp_processor_id() == cpu)
		complete(&hrtimer_fired);
	return HRTIMER_NORESTART;
}

static void on_irq_work(struct irq_work *work)
{
	if (smp_processor_id() == cpu)
		complete(&irq_work_done);
}

static DEFINE_TIMER(timer, on_timer);
static struct hrtimer hrtimer;
static DEFINE_IRQ_WORK(irq_work, on_irq_work);

static void count(void *counter)
{
	atomic_inc(counter);
}

/* On the CPU itself: what it starts, an IPI to itself, and one to all. */
static void start_there(struct work_struct *work)
{
	static atomic_t called;

	hrtimer_init(&hrtimer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_PINNED);
	hrtimer.function = on_hrtimer;
	hrtimer_start(&hrtimer, ms_to_ktime(3), HRTIMER_MODE_REL_PINNED);
	irq_work_queue(&irq_work);
	atomic_set(&called, 0);
	on_each_cpu(count, &called, 1);
	if (smp_processor_id() == cpu && atomic_read(&called) == num_online_cpus())
		complete(&work_done);
}

static bool within_a_second(struct completion *done, const char *what)
{
	if (wait_for_completion_timeout(done, HZ))
		return true;
	pr_info("cpu_state: CPU %d: %s\n", cpu, what);
	return false;
}

static int be_alive(const char *text, const struct kernel_param *param)
{
	struct work_struct work;
	atomic_t called = ATOMIC_INIT(0);
	bool good = true;

	init_completion(&timer_fired);
	init_completion(&hrtimer_fired);
	init_completion(&irq_work_done);
	init_completion(&work_done);
	INIT_WORK_ONSTACK(&work, start_there);
	cpus_read_lock();
	if (!cpu_online(cpu)) {
		cpus_read_unlock();
		return -ENODEV;
	}
	smp_call_function_single(cpu, count, &called, 1);
	if (atomic_read(&called) != 1)
		good = false;
	timer.expires = jiffies + 2;
	add_timer_on(&timer, cpu);
	schedule_work_on(cpu, &work);
	good &= within_a_second(&timer_fired, "no timer");
	good &= within_a_second(&work_done, "no work, or not all hear its IPI");
	good &= within_a_second(&irq_work_done, "no IPI to itself");
	good &= within_a_second(&hrtimer_fired, "no hrtimer");
	flush_work(&work);
	cpus_read_unlock();
	del_timer_sync(&timer);
	hrtimer_cancel(&hrtimer);
	irq_work_sync(&irq_work);
	destroy_work_on_stack(&work);
	return good ? 0 : -EIO;
}

static const struct kernel_param_ops alive_ops = {
	.set = be_alive,
};
module_param_cb(alive, &alive_ops, NULL, 0200);

static int send_nmi(const char *text, const struct kernel_param *param)
{
	unsigned long flags;

	if (cpu < 0 || cpu >= nr_cpu_ids || !cpu_present(cpu))
		return -EINVAL;
	/* By its physical id, for which it does not matter whose it is. */
	local_irq_save(flags);
	apic->icr_write(APIC_DM_NMI | APIC_INT_ASSERT, per_cpu(x86_cpu_to_apicid, cpu));
	local_irq_restore(flags);
	return 0;
}

static const struct kernel_param_ops nmi_ops = {
	.set = send_nmi,
};
module_param_cb(nmi, &nmi_ops, NULL, 0200);

static int __init cpu_state_init(void)
{
	return 0;
}

static void __exit cpu_state_exit(void)
{
}

module_init(cpu_state_init);
module_exit(cpu_state_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("What user space cannot see of a CPU, for kvmpp's tests");
