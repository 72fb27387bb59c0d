/* SPDX-License-Identifier: GPL-2.0 */
/* Bits of the x86 registers and numbers of MSRs and vectors, by the manual's names. */
#pragma once

#include "include/kvmpp/types.hpp"

namespace kvmpp
{

/* In the order of the encoding in instructions. */
enum Gpr : u8 { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };

/* In the order of the VMCS's fields. */
enum class Seg : u8 { es, cs, ss, ds, fs, gs, ldtr, tr };

namespace cr0
{
inline constexpr u64 pe = 1 << 0, mp = 1 << 1, em = 1 << 2, ts = 1 << 3, et = 1 << 4, ne = 1 << 5,
		     wp = 1 << 16, am = 1 << 18, nw = 1 << 29, cd = 1 << 30, pg = u64{1} << 31;
inline constexpr u64 all = pe | mp | em | ts | et | ne | wp | am | nw | cd | pg;
} // namespace cr0

namespace cr4
{
inline constexpr u64 vme = 1 << 0, pvi = 1 << 1, tsd = 1 << 2, de = 1 << 3, pse = 1 << 4,
		     pae = 1 << 5, mce = 1 << 6, pge = 1 << 7, pce = 1 << 8, osfxsr = 1 << 9,
		     osxmmexcpt = 1 << 10, umip = 1 << 11, la57 = 1 << 12, vmxe = 1 << 13,
		     fsgsbase = 1 << 16, pcide = 1 << 17, osxsave = 1 << 18, smep = 1 << 20,
		     smap = 1 << 21;
} // namespace cr4

namespace efer
{
inline constexpr u64 sce = 1 << 0, lme = 1 << 8, lma = 1 << 10, nx = 1 << 11;
} // namespace efer

namespace rflags
{
inline constexpr u64 cf = 1 << 0, fixed = 1 << 1, pf = 1 << 2, af = 1 << 4, zf = 1 << 6,
		     sf = 1 << 7, of = 1 << 11, tf = 1 << 8, if_ = 1 << 9, df = 1 << 10,
		     rf = 1 << 16, vm = 1 << 17, ac = 1 << 18;
} // namespace rflags

namespace dr6
{
inline constexpr u64 fixed = 0xffff0ff0, bs = 1 << 14, bd = 1 << 13, writable = 0xe00f;
}

namespace dr7
{
inline constexpr u64 fixed = 1 << 10, enabled = 0xff, gd = 1 << 13, writable = 0xffff2bff;
}

namespace msr
{
inline constexpr u32 platform_id = 0x17, apic_base = 0x1b, tsc = 0x10, ebl_cr_poweron = 0x2a,
		     ebc_frequency_id = 0x2c, test_ctrl = 0x33, smi_count = 0x34,
		     feature_control = 0x3a, tsc_adjust = 0x3b, spec_ctrl = 0x48, pred_cmd = 0x49,
		     bios_update_trigger = 0x79, bios_sign_id = 0x8b, p6_counter0 = 0xc1,
		     p6_counter1 = 0xc2, fsb_frequency = 0xcd, mtrr_cap = 0xfe, bbl_cr_ctl3 = 0x11e,
		     sysenter_cs = 0x174, sysenter_esp = 0x175, sysenter_eip = 0x176,
		     mcg_cap = 0x179, mcg_status = 0x17a, mcg_ctl = 0x17b, p6_event0 = 0x186,
		     p6_event1 = 0x187, perf_status = 0x198, perf_ctl = 0x199, misc_enable = 0x1a0,
		     debugctl = 0x1d9, power_ctl = 0x1fc, pat = 0x277, vmx_basic = 0x480,
		     vmx_misc = 0x485, vmx_cr0_fixed0 = 0x486, vmx_cr4_fixed0 = 0x488,
		     vmx_procbased_controls2 = 0x48b, vmx_ept_vpid_cap = 0x48c,
		     vmx_true_pinbased_controls = 0x48d, vmx_true_procbased_controls = 0x48e,
		     vmx_true_exit_controls = 0x48f, vmx_true_entry_controls = 0x490,
		     rapl_power_unit = 0x606, package_energy = 0x611, dram_energy = 0x619,
		     core_energy = 0x639, uncore_energy = 0x641, tsc_deadline = 0x6e0, xss = 0xda0,
		     efer = 0xc0000080, star = 0xc0000081, lstar = 0xc0000082, cstar = 0xc0000083,
		     syscall_mask = 0xc0000084, fs_base = 0xc0000100, gs_base = 0xc0000101,
		     kernel_gs_base = 0xc0000102, tsc_aux = 0xc0000103;
} // namespace msr

/* IA32_MISC_ENABLE */
namespace misc_enable_bit
{
inline constexpr u64 performance_monitoring = 1 << 7, no_branch_trace = 1 << 11, no_pebs = 1 << 12;
}

/* IA32_FEATURE_CONTROL */
namespace feature_control
{
inline constexpr u64 locked = 1 << 0, vmx_outside_smx = 1 << 2;
}

/* "Exception and Interrupt Vectors" */
enum class Vector : u8 {
	divide_error = 0,
	debug = 1,
	nmi = 2,
	breakpoint = 3,
	overflow = 4,
	bound_range = 5,
	invalid_opcode = 6,
	device_not_available = 7,
	double_fault = 8,
	invalid_tss = 10,
	segment_not_present = 11,
	stack_fault = 12,
	general_protection = 13,
	page_fault = 14,
	x87_error = 16,
	alignment_check = 17,
	machine_check = 18,
	simd_error = 19,
};

constexpr bool is_canonical(u64 address)
{
	return static_cast<u64>(static_cast<s64>(address << 16) >> 16) == address;
}

constexpr u64 low_bits(unsigned count)
{
	return count >= 64 ? ~u64{0} : (u64{1} << count) - 1;
}

/* Of a number of @size bytes. */
constexpr u64 sign_extend(u64 value, unsigned size)
{
	unsigned shift = 64 - 8 * size;

	return static_cast<u64>(static_cast<s64>(value << shift) >> shift);
}

} // namespace kvmpp
