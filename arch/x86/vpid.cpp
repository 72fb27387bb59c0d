// SPDX-License-Identifier: GPL-2.0
#include "vpid.hpp"

#include "include/kvmpp/guards.hpp"

namespace kvmpp
{

namespace
{

constexpr unsigned vpids = 65536;

constinit SpinLock vpid_lock;
constinit u64 used[vpids / 64] GUARDED_BY(vpid_lock) = {1};
/* All of the words before it are full. */
constinit unsigned first_word GUARDED_BY(vpid_lock) = 0;

} // namespace

void vpid_init()
{
	vpid_lock.init(GLUE_LOCK_VPID);
}

Result<u16> vpid_alloc()
{
	Locked locked(vpid_lock);

	for (unsigned &word = first_word; word < vpids / 64; word++) {
		if (used[word] == ~u64{0})
			continue;
		unsigned bit = static_cast<unsigned>(__builtin_ctzll(~used[word]));
		used[word] |= u64{1} << bit;
		return static_cast<u16>(word * 64 + bit);
	}
	return Errno::nomem;
}

void vpid_free(u16 vpid)
{
	Locked locked(vpid_lock);

	unsigned word = vpid / 64;

	used[word] &= ~(u64{1} << (vpid % 64));
	if (word < first_word)
		first_word = word;
}

} // namespace kvmpp
