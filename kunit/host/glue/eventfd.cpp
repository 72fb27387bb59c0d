// SPDX-License-Identifier: GPL-2.0
#include "model/eventfd.hpp"

#include "model/cpus.hpp"
#include "model/locks.hpp"
#include "model/violation.hpp"

#include <linux_glue/cpu.h>
#include <linux_glue/eventfd.h>

#include <asm/errno.h>

#include <map>
#include <utility>

/* Kept after its end, to tell what happened to it. */
struct glue_eventfd {
	bool open = true;
	int references = 0;
	kvmpp::u64 signals = 0;
	glue_eventfd_waiter *waiter = nullptr;
};

namespace kvmpp::host
{

namespace
{

constexpr int first_fd = 1000;
std::map<int, glue_eventfd> eventfds;
bool signalling;
std::function<void()> before_wait, before_leave;

/* The lock of its wait queue, for whoever is not in an interrupt. */
class WaitQueueLock
{
public:
	WaitQueueLock() : flags_(glue_irq_save()) { note_taken(wait_queue_lock); }
	~WaitQueueLock()
	{
		note_released(wait_queue_lock);
		glue_irq_restore(flags_);
	}
	WaitQueueLock(const WaitQueueLock &) = delete;
	WaitQueueLock &operator=(const WaitQueueLock &) = delete;

private:
	glue_u64 flags_;
};

void signal(glue_eventfd &eventfd)
{
	WaitQueueLock locked;

	/* Linux refuses that, with a warning. */
	if (std::exchange(signalling, true))
		violation("an eventfd signalled by who is told of a signal");
	eventfd.signals++;
	if (eventfd.waiter) {
		eventfd.signals = 0;
		eventfd.waiter->signalled(eventfd.waiter);
	}
	signalling = false;
}

} // namespace

void reset_eventfds()
{
	eventfds.clear();
	signalling = false;
	before_wait = before_leave = nullptr;
}

int create_eventfd()
{
	int fd = first_fd + static_cast<int>(eventfds.size());

	eventfds[fd] = {};
	return fd;
}

void signal_eventfd(int fd)
{
	AnotherThread interrupt;

	signal(eventfds.at(fd));
}

void close_eventfd(int fd)
{
	glue_eventfd &eventfd = eventfds.at(fd);
	AnotherThread other;
	WaitQueueLock locked;

	eventfd.open = false;
	if (eventfd.waiter)
		eventfd.waiter->closed(eventfd.waiter);
}

u64 take_signals(int fd)
{
	return std::exchange(eventfds.at(fd).signals, 0);
}

int eventfds_held()
{
	int held = 0;

	for (const auto &[fd, eventfd] : eventfds)
		held += eventfd.references;
	return held;
}

void before_next_wait(std::function<void()> function)
{
	before_wait = std::move(function);
}

void before_next_leave(std::function<void()> function)
{
	before_leave = std::move(function);
}

} // namespace kvmpp::host

using namespace kvmpp::host;

int glue_eventfd_get(int fd, glue_eventfd **eventfd)
{
	if (fd >= 0 && fd < first_fd)
		return -EINVAL; /* a file of another kind */
	auto it = eventfds.find(fd);
	if (it == eventfds.end() || !it->second.open)
		return -EBADF;
	it->second.references++;
	*eventfd = &it->second;
	return 0;
}

void glue_eventfd_put(glue_eventfd *eventfd)
{
	if (--eventfd->references < 0)
		violation("an eventfd given back once too often");
	if (eventfd->references == 0 && eventfd->waiter)
		violation("the last reference to an eventfd goes while somebody waits for it");
}

void glue_eventfd_signal(glue_eventfd *eventfd)
{
	if (eventfd->references <= 0)
		violation("an eventfd signalled without a reference");
	signal(*eventfd);
}

int glue_eventfd_wait(int fd, glue_eventfd_waiter *waiter)
{
	if (auto function = std::exchange(before_wait, nullptr))
		function();
	auto it = eventfds.find(fd);
	if (it == eventfds.end() || !it->second.open || &it->second != waiter->eventfd)
		return -EBADF;
	WaitQueueLock locked;
	glue_eventfd &eventfd = it->second;
	if (eventfd.references <= 0)
		violation("an eventfd waited for without a reference");
	if (std::exchange(eventfd.waiter, waiter))
		violation("an eventfd waited for twice");
	return eventfd.signals > 0;
}

void glue_eventfd_leave(glue_eventfd_waiter *waiter)
{
	if (auto function = std::exchange(before_leave, nullptr))
		function();
	WaitQueueLock locked;
	if (std::exchange(waiter->eventfd->waiter, nullptr) != waiter)
		violation("who does not wait for an eventfd leaves it");
	waiter->eventfd->signals = 0;
}
