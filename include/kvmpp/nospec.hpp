/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For indices into the kernel's arrays that a guest or user space picks: a processor that has guessed the
 * check of one to come out well must not read by it meanwhile (Spectre v1). As Linux's array_index_nospec().
 */
#pragma once

#include "types.hpp"

namespace kvmpp
{

/* @index if it is less than @size, else 0; the processor cannot guess which. To be used after the check. */
template <class Index> [[nodiscard]] inline Index array_index_nospec(Index index, u64 size)
{
	u64 mask;

	static_assert(static_cast<Index>(-1) > 0, "a negative one would pass");
	/* The borrow, in all bits. */
	asm volatile("cmp %2, %1\n\tsbb %0, %0"
		     : "=r"(mask)
		     : "r"(static_cast<u64>(index)), "r"(size)
		     : "cc");
	return static_cast<Index>(index & mask);
}

} // namespace kvmpp
