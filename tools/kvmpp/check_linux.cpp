// SPDX-License-Identifier: GPL-2.0
#include "check.hpp"
#include "files.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace
{

// Of the kernel that runs.
std::string release(const std::string &root)
{
	return read_line(root + "/proc/sys/kernel/osrelease");
}

Finding check_kernel(const std::string &root)
{
	const std::string version = release(root);
	for (const char *supported : {"6.1.", "6.12."})
		if (version.starts_with(supported))
			return {Verdict::ok, "kernel", version};
	return {Verdict::unknown, "kernel",
		version + ": kvmpp was tried on 6.1 and 6.12 of Debian only"};
}

bool refuses_unsigned(const std::string &root)
{
	// "none [integrity] confidentiality"
	const std::string lockdown = read_line(root + "/sys/kernel/security/lockdown");
	return module_parameter(root, "module", "sig_enforce") == "Y" ||
	       (!lockdown.empty() && lockdown.find("[none]") == std::string::npos);
}

Finding check_module(const std::string &root)
{
	const std::string what = "module";
	if (module_loaded(root, "kvmpp"))
		return {Verdict::ok, what, "kvmpp is loaded"};
	const std::string modules = root + "/lib/modules/" + release(root);
	if (read_file(modules + "/modules.dep").value_or("").find("/kvmpp.ko") == std::string::npos)
		return {Verdict::no, what,
			"there is no kvmpp.ko for this kernel: in kvmpp's sources, make && make "
			"install "
			"&& depmod"};
	if (refuses_unsigned(root))
		return {Verdict::unknown, what,
			"it is there, but this kernel takes signed modules only (Secure Boot): "
			"sign "
			"kvmpp.ko, or switch that off"};
	return {Verdict::ok, what, "it is there: modprobe kvmpp"};
}

Finding check_device(const std::string &root)
{
	const std::string path = root + "/dev/kvmpp";
	const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
	const int error = errno;
	if (fd < 0 && error == EACCES)
		return {Verdict::no, path, "only root may open it: run your VMM as root"};
	if (fd < 0)
		return {Verdict::no, path, std::strerror(error)};
	const int version = ioctl(fd, KVM_GET_API_VERSION, 0);
	close(fd);
	if (version != KVM_API_VERSION)
		return {Verdict::no, path, "it is not kvmpp's: it does not answer as KVM does"};
	return {Verdict::ok, path, "it can be opened"};
}

// There is one hook for who must leave VMX when the kernel crashes.
Finding check_kvm_intel(const std::string &root)
{
	const std::string what = "kvm_intel";
	if (!module_loaded(root, what))
		return {Verdict::ok, what, "it is not loaded; nor can it be while kvmpp has a VM"};
	if (module_parameter(root, "kvmpp", "allow_no_crash_hook") == "Y")
		return {Verdict::ok, what,
			"it is loaded, and allow_no_crash_hook=1: kdump would find VMX on; VMs of "
			"both "
			"at a time there cannot be"};
	return {Verdict::no, what,
		"it is loaded and has the crash hook, so kvmpp makes no VM: rmmod kvm_intel; or "
		"load "
		"kvmpp with allow_no_crash_hook=1, and kdump would find VMX on"};
}

} // namespace

Findings check_linux(const std::string &root)
{
	Findings findings{check_kernel(root), check_module(root)};
	// It comes with the module.
	if (module_loaded(root, "kvmpp"))
		findings.push_back(check_device(root));
	findings.push_back(check_kvm_intel(root));
	return findings;
}
