/* SPDX-License-Identifier: GPL-2.0 */
/* What is written into a VMCS once for its life, or for its time on a CPU. */
#pragma once

#include "capabilities.hpp"
#include "loaded_vmcs.hpp"

#include <linux_glue/x86.h>

namespace kvmpp
{

struct VcpuState;

/* What differs from vCPU to vCPU, and between dedicated CPUs and others. */
struct VmcsControls {
	u32 pin = 0, primary = 0, secondary = 0;
	u32 ple_gap = 0, ple_window = 0;
	u64 ept_pointer = 0;
	u64 msr_bitmap = 0;
	u64 pml_address = 0;
	u16 vpid = 0;
};

/* As good as never. */
inline constexpr u32 longest_preemption_timer = ~u32{0};

/* Of a VMCS's life, but for its host state; Group::controls and ept_pointer of @state become dirty. */
void write_controls(ActiveVmcs &vmcs, const VmxConfig &config, const VmcsControls &controls,
		    VcpuState &state);
/* What is a CPU's own of the host state. */
void write_host_state(ActiveVmcs &vmcs, const glue_host_state &host);

} // namespace kvmpp
