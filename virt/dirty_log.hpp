/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which pages of a slot were written to since user space asked last. A bit is set when the page
 * becomes writable in the EPT, or after it was written to by ourselves.
 */
#pragma once

#include "include/kvmpp/owned.hpp"
#include "include/kvmpp/types.hpp"

#include <atomic>
#include <bit>

namespace kvmpp
{

class DirtyLog
{
public:
	/* Empty when there is no memory. May sleep. */
	static Owned<DirtyLog> create(u64 pages) MAY_SLEEP
	{
		u64 words = (pages + 63) / 64;
		auto log = Owned<DirtyLog>::create();

		if (!log)
			return log;
		log->words_ = words;
		log->bits_ = static_cast<u64 *>(glue_zalloc(2 * words * sizeof(u64)));
		return log->bits_ ? std::move(log) : Owned<DirtyLog>();
	}
	~DirtyLog() { glue_free(bits_); }
	DirtyLog(const DirtyLog &) = delete;
	DirtyLog &operator=(const DirtyLog &) = delete;

	/*
	 * Always a locked instruction: what was written is seen by whoever takes this bit, or by
	 * whoever takes the next. Any context.
	 */
	void add(u64 page)
	{
		std::atomic_ref(bits_[page / 64])
			.fetch_or(u64{1} << page % 64, std::memory_order_release);
	}
	/*
	 * Moves the bits to taken(), with visit(page) for each. Under the MMU lock, to write; one at a time.
	 * A page that becomes writable meanwhile has its bit after, here or in the next take().
	 */
	template <class Visit> void take(Visit visit)
	{
		for (u64 i = 0; i < words_; i++) {
			std::atomic_ref word(bits_[i]);
			u64 bits = 0;

			if (word.load(std::memory_order_relaxed))
				bits = word.exchange(0, std::memory_order_acquire);
			bits_[words_ + i] = bits;
			for (; bits; bits &= bits - 1)
				visit(i * 64 + static_cast<unsigned>(std::countr_zero(bits)));
		}
	}
	/* As KVM_GET_DIRTY_LOG has it: a bit a page, in whole words of 64. */
	const u64 *taken() const { return bits_ + words_; }
	u64 bytes() const { return words_ * sizeof(u64); }

private:
	template <class T> friend class Owned;
	DirtyLog() = default;

	/* Those that are written to, then those taken. */
	u64 *bits_ = nullptr;
	u64 words_ = 0;
};

} // namespace kvmpp
