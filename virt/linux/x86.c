// SPDX-License-Identifier: GPL-2.0
#include <linux/perf_event.h>

#include <asm/cpu.h>
#include <asm/cpufeature.h>
#include <asm/desc.h>
#include <asm/extable_fixup_types.h>
#include <asm/fpu/xcr.h>
#include <asm/msr.h>
#include <asm/perf_event.h>
#include <asm/processor.h>
#include <asm/special_insns.h>
#include <asm/tlbflush.h>
#include <asm/tsc.h>

#include <linux_glue/x86.h>

/* arch/x86/vmx_insn.hpp writes exception-table entries of this type. */
static_assert(EX_TYPE_DEFAULT == 1);

int glue_vmxe_is_set(void)
{
	return !!(__read_cr4() & X86_CR4_VMXE);
}

int glue_vmxe_set(void)
{
	if (glue_vmxe_is_set())
		return -EBUSY;
	cr4_set_bits(X86_CR4_VMXE);
	return 0;
}

void glue_vmxe_clear(void)
{
	cr4_clear_bits(X86_CR4_VMXE);
}

void glue_intel_pt_vmx(int on)
{
	intel_pt_handle_vmx(on);
}

int glue_rdmsr_safe(glue_u32 msr, glue_u64 *value)
{
	unsigned long long v;
	int error = rdmsrl_safe(msr, &v);

	*value = error ? 0 : v;
	return error;
}

static glue_u64 read_msr(u32 msr)
{
	u64 value;

	rdmsrl(msr, value);
	return value;
}

void glue_host_state_read(struct glue_host_state *state)
{
	int cpu = smp_processor_id();
	struct desc_ptr idt;

	store_idt(&idt);
	state->cs = __KERNEL_CS;
	state->ss = __KERNEL_DS;
	state->tr = GDT_ENTRY_TSS * 8;
	state->tr_base = (unsigned long)&get_cpu_entry_area(cpu)->tss.x86_tss;
	state->gdt_base = (unsigned long)get_cpu_gdt_ro(cpu);
	state->idt_base = idt.address;
	state->gs_base = cpu_kernelmode_gs_base(cpu);
	state->sysenter_cs = (u32)read_msr(MSR_IA32_SYSENTER_CS);
	state->sysenter_esp = read_msr(MSR_IA32_SYSENTER_ESP);
	state->sysenter_eip = read_msr(MSR_IA32_SYSENTER_EIP);
	state->efer = read_msr(MSR_EFER);
	state->pat = read_msr(MSR_IA32_CR_PAT);
}

glue_u64 glue_host_cr3(void)
{
	/*
	 * The register, not Linux's idea of it: no export is needed and it is what a VM exit loads.
	 */
	return __read_cr3();
}

glue_u64 glue_host_cr4(void)
{
	return cr4_read_shadow();
}

int glue_split_lock(glue_u64 rip)
{
	return boot_cpu_has(X86_FEATURE_SPLIT_LOCK_DETECT) && handle_guest_split_lock(rip);
}

glue_u64 glue_host_xcr0(void)
{
	return boot_cpu_has(X86_FEATURE_OSXSAVE) ? xgetbv(XCR_XFEATURE_ENABLED_MASK) : 0;
}

glue_u64 glue_tsc_khz(void)
{
	return tsc_khz;
}
