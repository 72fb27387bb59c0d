/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The VMCSs of a vCPU, one of them the current one: the first runs the guest itself, further ones will
 * run the guests of the guest. Each may be on another CPU. Context: the vCPU's own thread, or another
 * holding its mutex.
 */
#pragma once

#include "include/kvmpp/owned.hpp"
#include "loaded_vmcs.hpp"

namespace kvmpp
{

/* A VMCS, and what of the host's was last written into it. */
struct VcpuVmcs : LoadedVmcs {
	bool set_up = false;
	/* Whose TR, GDT and so on. */
	CpuId host_cpu;
	u64 host_cr3 = 0;
	u64 host_cr4 = 0;
	u64 host_fs_base = 0;
};

class VmcsPool
{
public:
	static constexpr unsigned capacity = 4;

	/* Memory for one more: its index. May sleep. Errno::nomem; Errno::busy when it is full. */
	Result<unsigned> add(u32 revision, const VmcsOwner &owner) MAY_SLEEP;
	/* Frees one, which must not be the current one; clears it where it is. May sleep. */
	void remove(unsigned index) { vmcss_[index] = {}; }

	/*
	 * The VMCS that the next entry is with. What a VcpuState has not fetched from the one before
	 * is left there.
	 */
	void make_current(unsigned index) { current_ = index; }
	VcpuVmcs &current() { return *vmcss_[current_]; }

private:
	Owned<VcpuVmcs> vmcss_[capacity];
	unsigned current_ = 0;
};

} // namespace kvmpp
