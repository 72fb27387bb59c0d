// SPDX-License-Identifier: GPL-2.0
#include "model/cpus.hpp"
#include "model/locks.hpp"
#include "model/memory.hpp"
#include "model/thread.hpp"
#include "model/violation.hpp"

#include <linux_glue/entries.h>
#include <linux_glue/file.h>

#include <asm/errno.h>

#include <map>

namespace kvmpp::host
{

namespace
{

struct File {
	void *object;
	bool vcpu;
	bool installed;
};
std::map<int, File> files;
int next_fd = 3;

int prepare(glue_new_fd *fd, void *object, bool vcpu)
{
	might_sleep("file creation");
	if (!may_allocate())
		return -ENFILE;
	fd->fd = next_fd++;
	fd->file = &(files[fd->fd] = {object, vcpu, false});
	return 0;
}

} // namespace

void *object_of(int fd)
{
	auto it = files.find(fd);

	return it == files.end() || !it->second.installed ? nullptr : it->second.object;
}

void close_fd(int fd)
{
	auto it = files.find(fd);

	if (it == files.end()) {
		violation("close of a descriptor that is not open");
		return;
	}
	File file = it->second;
	files.erase(it);
	if (file.vcpu)
		kvmpp_vcpu_release(file.object);
	else
		kvmpp_vm_release(file.object);
	return_to_user("close()");
}

unsigned open_fds()
{
	return static_cast<unsigned>(files.size());
}

} // namespace kvmpp::host

using namespace kvmpp::host;

int glue_vm_fd_prepare(glue_new_fd *fd, void *vm)
{
	return prepare(fd, vm, false);
}

int glue_vcpu_fd_prepare(glue_new_fd *fd, void *vcpu, int)
{
	return prepare(fd, vcpu, true);
}

void glue_fd_install(glue_new_fd *fd)
{
	static_cast<File *>(fd->file)->installed = true;
}
