/* SPDX-License-Identifier: GPL-2.0 */
/* The VMX controls by the manual's names, and the basic exit reasons. */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp
{

/* "Pin-Based VM-Execution Controls" */
namespace pin
{
inline constexpr u32 external_interrupt_exiting = 1 << 0, nmi_exiting = 1 << 3,
		     virtual_nmis = 1 << 5, preemption_timer = 1 << 6;
}

/* "Primary Processor-Based VM-Execution Controls" */
namespace primary
{
inline constexpr u32 interrupt_window_exiting = 1 << 2, use_tsc_offsetting = 1 << 3,
		     hlt_exiting = 1 << 7, invlpg_exiting = 1 << 9, mwait_exiting = 1 << 10,
		     rdpmc_exiting = 1 << 11, rdtsc_exiting = 1 << 12, cr3_load_exiting = 1 << 15,
		     cr3_store_exiting = 1 << 16, cr8_load_exiting = 1 << 19,
		     cr8_store_exiting = 1 << 20, nmi_window_exiting = 1 << 22,
		     mov_dr_exiting = 1 << 23, unconditional_io_exiting = 1 << 24,
		     use_msr_bitmaps = 1 << 28, monitor_exiting = 1 << 29, pause_exiting = 1 << 30;
inline constexpr u32 activate_secondary_controls = u32{1} << 31;
} // namespace primary

/* "Secondary Processor-Based VM-Execution Controls" */
namespace secondary
{
inline constexpr u32 enable_ept = 1 << 1, enable_rdtscp = 1 << 3, enable_vpid = 1 << 5,
		     wbinvd_exiting = 1 << 6, unrestricted_guest = 1 << 7,
		     pause_loop_exiting = 1 << 10, enable_invpcid = 1 << 12, enable_pml = 1 << 17;
}

/* "Primary VM-Exit Controls" */
namespace exit_control
{
inline constexpr u32 save_debug_controls = 1 << 2, host_address_space_size = 1 << 9,
		     acknowledge_interrupt = 1 << 15, save_pat = 1 << 18, load_pat = 1 << 19,
		     save_efer = 1 << 20, load_efer = 1 << 21;
}

/* "VM-Entry Controls" */
namespace entry_control
{
inline constexpr u32 load_debug_controls = 1 << 2, ia32e_mode_guest = 1 << 9, load_pat = 1 << 14,
		     load_efer = 1 << 15;
}

/* IA32_VMX_EPT_VPID_CAP */
namespace ept_cap
{
inline constexpr u64 walk_length_4 = 1 << 6, write_back = 1 << 14, page_2m = 1 << 16,
		     page_1g = 1 << 17, invept = 1 << 20, accessed_dirty = 1 << 21,
		     invept_single = 1 << 25, invept_all = 1 << 26, invvpid = u64{1} << 32,
		     invvpid_single = u64{1} << 41, invvpid_all = u64{1} << 42;
}

/* "VMX Basic Exit Reasons" */
enum class ExitReason : u16 {
	exception_or_nmi = 0,
	external_interrupt = 1,
	triple_fault = 2,
	init_signal = 3,
	sipi = 4,
	interrupt_window = 7,
	nmi_window = 8,
	task_switch = 9,
	cpuid = 10,
	getsec = 11,
	hlt = 12,
	invd = 13,
	invlpg = 14,
	rdpmc = 15,
	rdtsc = 16,
	rsm = 17,
	vmcall = 18,
	vmclear = 19,
	vmlaunch = 20,
	vmptrld = 21,
	vmptrst = 22,
	vmread = 23,
	vmresume = 24,
	vmwrite = 25,
	vmxoff = 26,
	vmxon = 27,
	control_register_access = 28,
	mov_dr = 29,
	io_instruction = 30,
	rdmsr = 31,
	wrmsr = 32,
	invalid_guest_state = 33,
	msr_loading = 34,
	mwait = 36,
	monitor = 39,
	pause = 40,
	machine_check_on_entry = 41,
	ept_violation = 48,
	ept_misconfiguration = 49,
	invept = 50,
	rdtscp = 51,
	preemption_timer = 52,
	invvpid = 53,
	wbinvd = 54,
	xsetbv = 55,
	page_modification_log_full = 62,
	count = 80,
};

/* As the file of statistics spells them; null for a reason this module does not expect. */
const char *exit_reason_name(ExitReason reason);

/*
 * "VM-Exit Interruption Information", "IDT-Vectoring Information", "VM-Entry Interruption-
 * Information"
 */
struct InterruptionInfo {
	u32 raw = 0;

	enum class Type : u8 {
		external_interrupt = 0,
		nmi = 2,
		hardware_exception = 3,
		software_interrupt = 4,
		privileged_software_exception = 5,
		software_exception = 6,
	};

	static constexpr u32 valid_bit = u32{1} << 31;
	static constexpr u32 error_code_bit = 1 << 11;
	/* Vector, type, error code, valid: VM entry takes no other, and in exits they are something else. */
	static constexpr u32 for_entry = valid_bit | 0xfff;

	constexpr bool valid() const { return raw & valid_bit; }
	constexpr bool has_error_code() const { return raw & error_code_bit; }
	constexpr u8 vector() const { return raw & 0xff; }
	constexpr Type type() const { return static_cast<Type>((raw >> 8) & 7); }
	/* Software events are injected with the length of the instruction that raised them. */
	constexpr bool is_software() const
	{
		return type() == Type::software_interrupt || type() == Type::software_exception ||
		       type() == Type::privileged_software_exception;
	}
};

} // namespace kvmpp
