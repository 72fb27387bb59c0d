/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VMCS for a guest that shares the kernel's memory and segments, and exits for as little as the CPU
 * allows. For the tests' modules, on a CPU whose interrupts are off.
 */
#ifndef KERNEL_GUEST_H
#define KERNEL_GUEST_H

#include <asm/desc.h>
#include <asm/msr.h>
#include <asm/special_insns.h>
#include <asm/tlbflush.h>
#include <asm/vmx.h>

static void write_field(unsigned long field, unsigned long value)
{
	asm volatile("vmwrite %1, %0" : : "r"(field), "rm"(value) : "cc", "memory");
}

static unsigned long controls(u32 msr, u32 wanted)
{
	u64 allowed = __rdmsr(msr);

	return (wanted | (u32)allowed) & (allowed >> 32);
}

static void segment(unsigned long selector_field, u16 selector, u32 rights, unsigned long base)
{
	unsigned long offset = selector_field - GUEST_ES_SELECTOR;

	write_field(GUEST_ES_SELECTOR + offset, selector);
	write_field(GUEST_ES_AR_BYTES + offset, rights);
	write_field(GUEST_ES_LIMIT + offset, rights == 0x8b ? 0x67 : 0xffffffff);
	write_field(GUEST_ES_BASE + offset, base);
	/* the host's have no LDTR */
	if (selector_field < GUEST_LDTR_SELECTOR)
		write_field(HOST_ES_SELECTOR + offset, selector & ~7);
}

/* All but where the guest is, and the host's stack and IP; the guest's IDT is the kernel's. */
static void fill_vmcs(u32 pin_controls)
{
	struct desc_ptr gdt, idt;
	u64 cr3 = __read_cr3(), tss = (u64)&get_cpu_entry_area(smp_processor_id())->tss.x86_tss;
	u64 fs = __rdmsr(MSR_FS_BASE), gs = __rdmsr(MSR_GS_BASE);

	native_store_gdt(&gdt);
	store_idt(&idt);

	write_field(PIN_BASED_VM_EXEC_CONTROL,
		    controls(MSR_IA32_VMX_TRUE_PINBASED_CTLS, pin_controls));
	write_field(CPU_BASED_VM_EXEC_CONTROL, controls(MSR_IA32_VMX_TRUE_PROCBASED_CTLS, 0));
	write_field(VM_EXIT_CONTROLS,
		    controls(MSR_IA32_VMX_TRUE_EXIT_CTLS, VM_EXIT_HOST_ADDR_SPACE_SIZE));
	write_field(VM_ENTRY_CONTROLS,
		    controls(MSR_IA32_VMX_TRUE_ENTRY_CTLS, VM_ENTRY_IA32E_MODE));
	write_field(EXCEPTION_BITMAP, 0);
	write_field(VMCS_LINK_POINTER, ~0ul);

	segment(GUEST_CS_SELECTOR, __KERNEL_CS, 0xa09b, 0);
	segment(GUEST_SS_SELECTOR, __KERNEL_DS, 0xc093, 0);
	segment(GUEST_DS_SELECTOR, 0, 0x10000, 0);
	segment(GUEST_ES_SELECTOR, 0, 0x10000, 0);
	segment(GUEST_FS_SELECTOR, 0, 0x10000, fs);
	segment(GUEST_GS_SELECTOR, 0, 0x10000, gs);
	segment(GUEST_LDTR_SELECTOR, 0, 0x10000, 0);
	segment(GUEST_TR_SELECTOR, GDT_ENTRY_TSS * 8, 0x8b, tss);
	write_field(HOST_FS_BASE, fs);
	write_field(HOST_GS_BASE, gs);
	write_field(HOST_TR_SELECTOR, GDT_ENTRY_TSS * 8);
	write_field(HOST_TR_BASE, tss);
	write_field(HOST_IA32_SYSENTER_CS, __rdmsr(MSR_IA32_SYSENTER_CS));
	write_field(HOST_IA32_SYSENTER_ESP, __rdmsr(MSR_IA32_SYSENTER_ESP));
	write_field(HOST_IA32_SYSENTER_EIP, __rdmsr(MSR_IA32_SYSENTER_EIP));
	write_field(GUEST_GDTR_BASE, gdt.address);
	write_field(GUEST_GDTR_LIMIT, gdt.size);
	write_field(HOST_GDTR_BASE, gdt.address);
	write_field(GUEST_IDTR_BASE, idt.address);
	write_field(GUEST_IDTR_LIMIT, idt.size);
	write_field(HOST_IDTR_BASE, idt.address);
	write_field(GUEST_CR0, read_cr0());
	write_field(HOST_CR0, read_cr0());
	write_field(GUEST_CR3, cr3);
	write_field(HOST_CR3, cr3);
	write_field(GUEST_CR4, native_read_cr4());
	write_field(HOST_CR4, native_read_cr4());
	write_field(GUEST_DR7, 0x400);
	write_field(GUEST_RFLAGS, X86_EFLAGS_FIXED);
	write_field(GUEST_ACTIVITY_STATE, 0);
	write_field(GUEST_INTERRUPTIBILITY_INFO, 0);
}

/* In VMX operation, with an empty VMCS. Both are a page, zeroed. */
static void begin_vmx(void *region, void *vmcs)
{
	u64 region_address = __pa(region), vmcs_address = __pa(vmcs);

	*(u32 *)region = *(u32 *)vmcs = (u32)__rdmsr(MSR_IA32_VMX_BASIC) & 0x7fffffff;
	cr4_set_bits(X86_CR4_VMXE);
	asm volatile("vmxon %0; vmclear %1; vmptrld %1"
		     : : "m"(region_address), "m"(vmcs_address) : "cc", "memory");
}

static void end_vmx(void *vmcs)
{
	u64 vmcs_address = __pa(vmcs);

	asm volatile("vmclear %0; vmxoff" : : "m"(vmcs_address) : "cc", "memory");
	cr4_clear_bits(X86_CR4_VMXE);
	/* an exit leaves limits of its own */
	load_fixmap_gdt(smp_processor_id());
	force_reload_TR();
}

#endif
