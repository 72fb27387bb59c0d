// SPDX-License-Identifier: GPL-2.0
#include <linux/gfp.h>
#include <linux/jump_label.h>
#include <linux/mm.h>
#include <linux/sched/smt.h>
#include <linux/string.h>

#include <asm/cpufeature.h>
#include <asm/hardirq.h>
#include <asm/msr.h>
#include <asm/nospec-branch.h>
#include <asm/processor.h>
#include <asm/sync_core.h>
#include <asm/vmx.h>

#include <linux_glue/log.h>
#include <linux_glue/speculation.h>

/* What no processor's L1 data cache is larger than, as KVM has it. */
#define L1D_ORDER 4
#define L1D_SIZE  (PAGE_SIZE << L1D_ORDER)

static DEFINE_STATIC_KEY_FALSE(flushes_l1d);
static DEFINE_STATIC_KEY_FALSE(flushes_l1d_always);
static struct page *l1d_pages;
/* Where kvm_intel is not loaded, sysfs has it from us. */
static bool told_sysfs;

static enum vmx_l1d_flush_state l1d_mode(void)
{
	u64 capabilities = 0;

	if (boot_cpu_has(X86_FEATURE_ARCH_CAPABILITIES))
		rdmsrl(MSR_IA32_ARCH_CAPABILITIES, capabilities);
	if (!boot_cpu_has_bug(X86_BUG_L1TF) || (capabilities & ARCH_CAP_SKIP_VMENTRY_L1DFLUSH))
		return VMENTER_L1D_FLUSH_NOT_REQUIRED;
	switch (l1tf_mitigation) {
	case L1TF_MITIGATION_OFF:
		return VMENTER_L1D_FLUSH_NEVER;
	case L1TF_MITIGATION_FULL:
	case L1TF_MITIGATION_FULL_FORCE:
		return VMENTER_L1D_FLUSH_ALWAYS;
	default:
		return VMENTER_L1D_FLUSH_COND;
	}
}

/* Each page another, so that a host below this one does not merge them. */
static int make_pages(void)
{
	l1d_pages = alloc_pages(GFP_KERNEL, L1D_ORDER);
	if (!l1d_pages)
		return -ENOMEM;
	for (unsigned int i = 0; i < 1u << L1D_ORDER; i++)
		memset(page_address(l1d_pages + i), i + 1, PAGE_SIZE);
	return 0;
}

int glue_speculation_init(void)
{
	enum vmx_l1d_flush_state mode = l1d_mode();
	bool flushes = mode == VMENTER_L1D_FLUSH_COND || mode == VMENTER_L1D_FLUSH_ALWAYS;

	if (flushes && !boot_cpu_has(X86_FEATURE_FLUSH_L1D) && make_pages())
		return -ENOMEM;
	if (flushes)
		static_branch_enable(&flushes_l1d);
	if (mode == VMENTER_L1D_FLUSH_ALWAYS)
		static_branch_enable(&flushes_l1d_always);
	if (flushes && sched_smt_active())
		glue_log_err("L1TF: a guest may read what another thread of its core has in the cache");
	if (l1tf_vmx_mitigation == VMENTER_L1D_FLUSH_AUTO) {
		l1tf_vmx_mitigation = mode;
		told_sysfs = true;
	}
	return 0;
}

void glue_speculation_exit(void)
{
	if (told_sysfs)
		l1tf_vmx_mitigation = VMENTER_L1D_FLUSH_AUTO;
	if (l1d_pages)
		__free_pages(l1d_pages, L1D_ORDER);
}

void glue_branch_predictor_barrier(void)
{
	indirect_branch_prediction_barrier();
}

static void flush_by_reading(void)
{
	const char *pages = page_address(l1d_pages);

	/* First the translations, so that no walk of page tables comes between the lines. */
	for (unsigned int at = 0; at < L1D_SIZE; at += PAGE_SIZE)
		READ_ONCE(pages[at]);
	sync_core();
	for (unsigned int at = 0; at < L1D_SIZE; at += L1_CACHE_BYTES)
		READ_ONCE(pages[at]);
	rmb();
}

/* Since it was asked last, on this CPU. */
static bool was_interrupted(void)
{
#if IS_ENABLED(CONFIG_KVM_INTEL)
	bool interrupted = kvm_get_cpu_l1tf_flush_l1d();

	kvm_clear_cpu_l1tf_flush_l1d();
	return interrupted;
#else
	/* This kernel does not note it. */
	return true;
#endif
}

int glue_flushes_l1d_each_time(void)
{
	return static_branch_unlikely(&flushes_l1d_always);
}

int glue_l1d_flush(int due)
{
	if (!static_branch_unlikely(&flushes_l1d))
		return 0;
	if (!was_interrupted() && !due && !static_branch_unlikely(&flushes_l1d_always))
		return 0;
	if (static_cpu_has(X86_FEATURE_FLUSH_L1D))
		native_wrmsrl(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
	else
		flush_by_reading();
	return 1;
}
