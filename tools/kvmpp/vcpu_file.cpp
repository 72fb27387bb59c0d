// SPDX-License-Identifier: GPL-2.0
#include "vcpu_file.hpp"

#include "failure.hpp"
#include "files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace
{

std::string process_of(const std::string &root, unsigned process)
{
	return process_name(root, process) + " (" + std::to_string(process) + ")";
}

// Both descriptors are of one open file, as after dup(). Without kcmp() every one counts.
bool same_file(unsigned process, unsigned one, unsigned other)
{
	return syscall(SYS_kcmp, process, process, KCMP_FILE, one, other) == 0;
}

[[noreturn]] void cannot_look(const std::string &root, unsigned process, int error)
{
	if (error == ENOENT || error == ESRCH)
		throw Failure("there is no process " + std::to_string(process));
	if (error == EACCES || error == EPERM)
		throw Failure("the files of " + process_of(root, process) +
			      " are not yours to take: run it as root");
	throw Failure(process_of(root, process) + ": " + std::strerror(error));
}

} // namespace

std::string describe(const std::string &root, const VcpuName &name)
{
	return "vCPU " + std::to_string(name.vcpu) + " of " + process_of(root, name.process);
}

std::vector<unsigned> vcpu_descriptors(const std::string &root, const VcpuName &name)
{
	namespace fs = std::filesystem;
	const std::string ending = "vcpu:" + std::to_string(name.vcpu);
	const fs::path directory = root + "/proc/" + std::to_string(name.process) + "/fd";
	std::vector<unsigned> found;
	unsigned of_kvmpp = 0, of_kvm = 0;
	std::error_code error;
	for (fs::directory_iterator i(directory, error); !error && i != fs::directory_iterator();
	     i.increment(error)) {
		std::error_code gone;
		const std::string target = fs::read_symlink(i->path(), gone).string();
		of_kvmpp += target.starts_with("anon_inode:kvmpp-vcpu:");
		of_kvm += target.starts_with("anon_inode:kvm-vcpu:");
		if (target == "anon_inode:kvmpp-" + ending)
			found.push_back(static_cast<unsigned>(
				number(i->path().filename().string()).value()));
	}
	if (error)
		cannot_look(root, name.process, error.value());

	const std::string process = process_of(root, name.process);
	if (found.empty() && of_kvmpp)
		throw Failure(process + " has no vCPU " + std::to_string(name.vcpu));
	if (found.empty() && of_kvm)
		throw Failure("the vCPUs of " + process +
			      " are kvm_intel's: start it with /dev/kvmpp in place of /dev/kvm");
	if (found.empty())
		throw Failure(process + " has no vCPU of kvmpp's");
	std::ranges::sort(found);
	std::vector<unsigned> once;
	for (const unsigned one : found)
		if (std::ranges::none_of(
			    once, [&](unsigned had) { return same_file(name.process, had, one); }))
			once.push_back(one);
	return once;
}

unsigned find_vcpu(const std::string &root, const VcpuName &name)
{
	const auto found = vcpu_descriptors(root, name);
	if (!name.vm && found.size() == 1)
		return found.front();
	if (name.vm && *name.vm >= 1 && *name.vm <= found.size())
		return found[*name.vm - 1];

	std::string text = process_of(root, name.process) + " has " + std::to_string(found.size()) +
			   (found.size() == 1 ? " VM" : " VMs") + " with a vCPU " +
			   std::to_string(name.vcpu) + ": say which with";
	for (unsigned i = 0; i < found.size(); i++)
		text += (i ? ", --vm " : " --vm ") + std::to_string(i + 1) + " (descriptor " +
			std::to_string(found[i]) + ")";
	throw Failure(text);
}

int take_vcpu(const std::string &root, const VcpuName &name)
{
	// First, so that the number cannot come to be another process's.
	const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, name.process, 0));
	if (pidfd < 0)
		cannot_look(root, name.process, errno);
	const unsigned descriptor = find_vcpu(root, name);
	const int taken = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, descriptor, 0));
	const int error = errno;
	close(pidfd);
	if (taken < 0 && error != EBADF)
		cannot_look(root, name.process, error);
	// The number of a descriptor can.
	std::error_code gone;
	if (taken < 0 ||
	    std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(taken), gone) !=
		    "anon_inode:kvmpp-vcpu:" + std::to_string(name.vcpu))
		throw Failure(describe(root, name) + " has just gone");
	return taken;
}
