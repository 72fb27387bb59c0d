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
		u64 words = words_of(pages);
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
	/* All of them. Nobody else has it yet. */
	void add_all(u64 pages)
	{
		for (u64 i = 0; i < pages / 64; i++)
			bits_[i] = ~u64{0};
		if (pages % 64)
			bits_[pages / 64] = (u64{1} << pages % 64) - 1;
	}
	/*
	 * Moves the bits to taken(), with visit(page) for each. Under the MMU lock, to write; one at a time.
	 * A page that becomes writable meanwhile has its bit after, here or in the next take().
	 */
	template <class Visit> void take(Visit visit)
	{
		for (u64 i = 0; i < words_; i++)
			taken()[i] = take_word(i, ~u64{0}, visit);
	}
	/* The same of @pages pages from @first on, a multiple of 64, those that are in taken() from 0 on. */
	template <class Visit> void clear(u64 first, u64 pages, Visit visit)
	{
		for (u64 i = 0; i < words_of(pages); i++)
			if (taken()[i])
				take_word(first / 64 + i, taken()[i], visit);
	}
	/* Has them in taken(), and where they are. */
	void copy()
	{
		for (u64 i = 0; i < words_; i++)
			taken()[i] = std::atomic_ref(bits_[i]).load(std::memory_order_acquire);
	}
	/* As KVM_GET_DIRTY_LOG has it: a bit a page, in whole words of 64. */
	u64 *taken() { return bits_ + words_; }
	u64 bytes() const { return words_ * sizeof(u64); }
	static constexpr u64 words_of(u64 pages) { return (pages + 63) / 64; }

private:
	template <class T> friend class Owned;
	DirtyLog() = default;
	template <class Visit> u64 take_word(u64 i, u64 mask, Visit visit)
	{
		std::atomic_ref word(bits_[i]);

		if (!(word.load(std::memory_order_relaxed) & mask))
			return 0;
		u64 taken = word.fetch_and(~mask, std::memory_order_acquire) & mask;
		for (u64 bits = taken; bits; bits &= bits - 1)
			visit(i * 64 + static_cast<unsigned>(std::countr_zero(bits)));
		return taken;
	}

	/* Those that are written to, then those taken. */
	u64 *bits_ = nullptr;
	u64 words_ = 0;
};

} // namespace kvmpp
