/* SPDX-License-Identifier: GPL-2.0 */
/* A reference to an eventfd of user space. */
#pragma once

#include "include/kvmpp/result.hpp"

#include <linux_glue/eventfd.h>

namespace kvmpp
{

class EventFd
{
public:
	EventFd() = default;
	EventFd(const EventFd &) = delete;
	EventFd &operator=(const EventFd &) = delete;
	~EventFd()
	{
		if (eventfd_)
			glue_eventfd_put(eventfd_);
	}

	/* Once. EBADF, Errno::inval where @fd is none. May sleep. */
	Result<> get(int fd) MAY_SLEEP { return from_errno(glue_eventfd_get(fd, &eventfd_)); }
	glue_eventfd *eventfd() const { return eventfd_; }
	void release() { eventfd_ = nullptr; }

private:
	glue_eventfd *eventfd_ = nullptr;
};

} // namespace kvmpp
