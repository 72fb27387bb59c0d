/* SPDX-License-Identifier: GPL-2.0 */
/* A processor that has all that the module asks for, as in the registers' tables of the manual. */
#pragma once

#include "arch/x86/capabilities.hpp"

namespace kvmpp
{

constexpr VmxRegisters capable_registers()
{
	VmxRegisters r;

	r.cpuid_vmx = true;
	r.feature_control = 5;
	/* Revision 4, regions of 1 KiB, write-back, "true" registers. */
	r.basic = 4 | u64{1024} << 32 | u64{6} << 50 | u64{1} << 55;
	r.pin = 0x0000007f00000016;
	r.primary = 0xfff9fffe04006172;
	r.secondary = 0x0000ffff00000000;
	r.exit = 0x01ffffff00036dfb;
	r.entry = 0x0003ffff000011fb;
	r.ept_vpid = 0x00000f0106734141;
	/* The preemption timer counts every 32 ticks. */
	r.misc = 0x7004c1e5;
	r.cr0_fixed0 = 0x80000021;
	r.cr4_fixed0 = 0x2000;
	return r;
}

} // namespace kvmpp
