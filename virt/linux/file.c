// SPDX-License-Identifier: GPL-2.0
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>

#include <linux_glue/entries.h>
#include <linux_glue/file.h>

#include "device.h"

static long device_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	return kvmpp_device_ioctl(command, argument);
}

static const struct file_operations device_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = device_ioctl,
	.compat_ioctl = device_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "kvmpp",
	.fops = &device_fops,
};

int kvmpp_device_register(void)
{
	return misc_register(&device);
}

void kvmpp_device_deregister(void)
{
	misc_deregister(&device);
}

static long vm_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	return kvmpp_vm_ioctl(file->private_data, command, argument);
}

static int vm_release(struct inode *inode, struct file *file)
{
	kvmpp_vm_release(file->private_data);
	return 0;
}

/* The owner keeps the module in place for as long as any file of it is open. */
static const struct file_operations vm_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = vm_ioctl,
	.compat_ioctl = vm_ioctl,
	.release = vm_release,
	.llseek = noop_llseek,
};

static long vcpu_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	return kvmpp_vcpu_ioctl(file->private_data, command, argument);
}

static int vcpu_release(struct inode *inode, struct file *file)
{
	kvmpp_vcpu_release(file->private_data);
	return 0;
}

static vm_fault_t vcpu_fault(struct vm_fault *fault)
{
	void *address = kvmpp_vcpu_page(fault->vma->vm_file->private_data, fault->pgoff);

	if (!address)
		return VM_FAULT_SIGBUS;
	fault->page = virt_to_page(address);
	get_page(fault->page);
	return 0;
}

static const struct vm_operations_struct vcpu_vm_ops = {
	.fault = vcpu_fault,
};

static int vcpu_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_ops = &vcpu_vm_ops;
	return 0;
}

static const struct file_operations vcpu_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = vcpu_ioctl,
	.compat_ioctl = vcpu_ioctl,
	.release = vcpu_release,
	.mmap = vcpu_mmap,
	.llseek = noop_llseek,
};

static int fd_prepare(struct glue_new_fd *new, const char *name, const struct file_operations *fops,
		      void *object)
{
	struct file *file;
	int fd = get_unused_fd_flags(O_CLOEXEC);

	if (fd < 0)
		return fd;
	file = anon_inode_getfile(name, fops, object, O_RDWR);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		return PTR_ERR(file);
	}
	new->fd = fd;
	new->file = file;
	return 0;
}

int glue_vm_fd_prepare(struct glue_new_fd *fd, void *vm)
{
	return fd_prepare(fd, "kvmpp-vm", &vm_fops, vm);
}

int glue_vcpu_fd_prepare(struct glue_new_fd *fd, void *vcpu, int vcpu_id)
{
	char name[32];

	snprintf(name, sizeof(name), "kvmpp-vcpu:%d", vcpu_id);
	return fd_prepare(fd, name, &vcpu_fops, vcpu);
}

void glue_fd_install(struct glue_new_fd *fd)
{
	fd_install(fd->fd, fd->file);
}
