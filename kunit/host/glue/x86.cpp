// SPDX-License-Identifier: GPL-2.0
#include "model/cpus.hpp"
#include "model/violation.hpp"
#include "model/vmx.hpp"

#include <linux_glue/x86.h>

#include <asm/errno.h>

#include <utility>

namespace kvmpp::host
{

namespace
{

bool split_lock_detection;
std::vector<u64> split_locks;

} // namespace

void set_split_lock_detection(bool on)
{
	split_lock_detection = on;
}

std::vector<u64> take_split_locks()
{
	return std::exchange(split_locks, {});
}

} // namespace kvmpp::host

using namespace kvmpp::host;

int glue_vmxe_is_set(void)
{
	return here().vmxe;
}

int glue_vmxe_set(void)
{
	if (!irqs_off())
		violation("CR4.VMXE changed with interrupts on");
	if (here().vmxe)
		return -EBUSY;
	here().vmxe = here().vmxe_is_ours = true;
	return 0;
}

void glue_vmxe_clear(void)
{
	if (!here().vmxe_is_ours)
		violation("CR4.VMXE cleared on CPU %d that is somebody else's", this_cpu());
	if (here().vmx)
		violation("CR4.VMXE cleared in VMX operation, which raises #GP");
	here().vmxe = here().vmxe_is_ours = false;
}

void glue_intel_pt_vmx(int on)
{
	if (std::exchange(here().pt_knows, on != 0) == (on != 0))
		violation("Intel PT told twice");
}

int glue_rdmsr_safe(glue_u32 msr, glue_u64 *value)
{
	auto it = here().msrs.find(msr);

	*value = it == here().msrs.end() ? 0 : it->second;
	return it == here().msrs.end() ? -EIO : 0;
}

void glue_host_state_read(glue_host_state *state)
{
	*state = {.tr_base = 0x1000u + static_cast<unsigned>(this_cpu()),
		  .gdt_base = 0x2000u + static_cast<unsigned>(this_cpu()),
		  .idt_base = 0x3000,
		  .gs_base = 0x4000u + static_cast<unsigned>(this_cpu()),
		  .sysenter_esp = 0x5000u + static_cast<unsigned>(this_cpu()),
		  .sysenter_eip = 0x6000,
		  .efer = 0xd01,
		  .pat = 0x0407050600070106,
		  .sysenter_cs = 0x10,
		  .cs = 0x10,
		  .ss = 0x18,
		  .tr = 0x40};
}

glue_u64 glue_host_cr3(void)
{
	return 0x7000;
}

glue_u64 glue_host_cr4(void)
{
	return 0x3726e0;
}

glue_u64 glue_host_xcr0(void)
{
	return 7;
}

int glue_split_lock(glue_u64 rip)
{
	might_sleep("a split lock's penalty");
	if (split_lock_detection)
		split_locks.push_back(rip);
	return split_lock_detection;
}
