// SPDX-License-Identifier: GPL-2.0
#include "unix_socket.hpp"

#include "expect.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

UnixSocket::UnixSocket(const std::string &path)
	: fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))
{
	sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
	path.copy(address.sun_path, sizeof(address.sun_path) - 1);
	for (unsigned i = 0; i < 1000; i++) {
		if (!connect(fd_.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)))
			return;
		usleep(10'000);
	}
	expect::fail("nobody is at %s", path.c_str());
}

void UnixSocket::put(const std::string &text) const
{
	expect::equal("write", write(fd_.get(), text.data(), text.size()), text.size());
}

char UnixSocket::get() const
{
	char c = 0;
	expect::equal("read", read(fd_.get(), &c, 1), 1);
	return c;
}
