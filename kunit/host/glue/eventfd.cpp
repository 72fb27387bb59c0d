// SPDX-License-Identifier: GPL-2.0
#include "model/eventfd.hpp"

#include "model/violation.hpp"

#include <linux_glue/eventfd.h>

#include <asm/errno.h>

#include <map>
#include <utility>

/* Kept after its end, to tell what happened to it. */
struct glue_eventfd {
	bool open = true;
	int references = 0;
	kvmpp::u64 signals = 0;
};

namespace kvmpp::host
{

namespace
{

constexpr int first_fd = 1000;
std::map<int, glue_eventfd> eventfds;

} // namespace

void reset_eventfds()
{
	eventfds.clear();
}

int create_eventfd()
{
	int fd = first_fd + static_cast<int>(eventfds.size());

	eventfds[fd] = {};
	return fd;
}

void close_eventfd(int fd)
{
	eventfds.at(fd).open = false;
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
}

void glue_eventfd_signal(glue_eventfd *eventfd)
{
	if (eventfd->references <= 0)
		violation("an eventfd signalled without a reference");
	eventfd->signals++;
}
