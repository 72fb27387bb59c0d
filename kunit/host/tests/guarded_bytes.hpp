/* SPDX-License-Identifier: GPL-2.0 */
/* Bytes that end where a page ends behind which there is nothing: a read past them is a fault. */
#pragma once

#include "include/kvmpp/types.hpp"

#include <algorithm>
#include <span>

#include <sys/mman.h>

namespace kvmpp::host
{

class GuardedBytes
{
public:
	GuardedBytes()
		: pages_(static_cast<u8 *>(::mmap(nullptr, 2 * page_size, PROT_READ | PROT_WRITE,
						  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)))
	{
		::mprotect(pages_ + page_size, page_size, PROT_NONE);
	}
	~GuardedBytes() { ::munmap(pages_, 2 * page_size); }
	GuardedBytes(const GuardedBytes &) = delete;
	GuardedBytes &operator=(const GuardedBytes &) = delete;

	/* A copy of @bytes, valid until the next. */
	const u8 *place(std::span<const u8> bytes)
	{
		u8 *start = pages_ + page_size - bytes.size();

		std::copy(bytes.begin(), bytes.end(), start);
		return start;
	}

private:
	u8 *pages_;
};

} // namespace kvmpp::host
