// SPDX-License-Identifier: GPL-2.0
#include "vmcs_pool.hpp"

namespace kvmpp
{

Result<unsigned> VmcsPool::add(u32 revision, const VmcsOwner &owner)
{
	for (unsigned i = 0; i < capacity; i++) {
		if (vmcss_[i])
			continue;
		auto vmcs = Owned<VcpuVmcs>::create();
		if (!vmcs)
			return Errno::nomem;
		if (Result<> r = vmcs->create(revision, owner); !r)
			return r.error();
		vmcss_[i] = std::move(vmcs);
		return i;
	}
	return Errno::busy;
}

} // namespace kvmpp
