// SPDX-License-Identifier: GPL-2.0
/* What a lock protects is touched by its holder only. */
#include "virt/mmu.hpp"
#include "virt/vcpu_table.hpp"

namespace kvmpp
{

void Mmu::unmap(u64 first_frame, u64 last_frame)
{
	// expected-error@+1 {{reading variable 'ept_' requires holding rwlock 'lock_'}}
	if (ept_.unmap(first_frame, last_frame))
		// expected-error@+1 {{writing variable 'in_progress_' requires holding rwlock 'lock_' exclusively}}
		in_progress_++;
}

bool is_taken(VcpuTable &table, u32 id)
{
	// expected-error@+1 {{calling function 'has' requires holding mutex 'table.lock'}}
	return table.has(id);
}

class Count
{
public:
	unsigned get() const
	{
		// expected-error@+1 {{reading variable 'count_' requires holding spinlock 'lock_'}}
		return count_;
	}

private:
	SpinLock lock_;
	unsigned count_ GUARDED_BY(lock_) = 0;
};

} // namespace kvmpp
