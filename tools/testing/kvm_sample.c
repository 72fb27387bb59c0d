// SPDX-License-Identifier: GPL-2.0
/*
 * A small VMM as people write their first one, for /dev/kvm and nothing else: to run it on another
 * device, link that to /dev/kvm. It uses only the ioctls a KVM without an in-kernel interrupt
 * controller needs to have, and prints what its guest writes to the serial port.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CODE = 0x1000, MEMORY_SIZE = 0x4000, SERIAL_PORT = 0x3f8, DEVICE = 0xb8000 };

/*
 * Real mode. Prints the text behind the code, then the sum of 1 to 10 that it gets by adding, as a
 * digit pair, tells a device in memory, and halts.
 */
static const uint8_t code[] = {
	0xba, 0xf8, 0x03,	/*	mov $0x3f8, %dx */
	0xbe, 0x2e, 0x10,	/*	mov $text, %si */
	0xac,			/* 1:	lodsb */
	0x84, 0xc0,		/*	test %al, %al */
	0x74, 0x03,		/*	jz 2f */
	0xee,			/*	outb %al, %dx */
	0xeb, 0xf8,		/*	jmp 1b */
	0x31, 0xc0,		/* 2:	xor %ax, %ax */
	0xb9, 0x0a, 0x00,	/*	mov $10, %cx */
	0x01, 0xc8,		/* 3:	add %cx, %ax */
	0xe2, 0xfc,		/*	loop 3b */
	0xb3, 0x0a,		/*	mov $10, %bl */
	0xf6, 0xf3,		/*	div %bl */
	0x05, 0x30, 0x30,	/*	add $0x3030, %ax */
	0xee,			/*	outb %al, %dx */
	0x88, 0xe0,		/*	mov %ah, %al */
	0xee,			/*	outb %al, %dx */
	0xb0, 0x0a,		/*	mov $'\n', %al */
	0xee,			/*	outb %al, %dx */
	0x68, 0x00, 0xb8,	/*	push $0xb800 */
	0x07,			/*	pop %es */
	0x26, 0xa2, 0x04, 0x00, /*	mov %al, %es:4 */
	0xf4,			/*	hlt */
	'T',  'h',  'e',  ' ',	's',  'u', 'm', ' ', 'o', 'f', ' ', '1', ' ',
	't',  'o',  ' ',  '1',	'0',  ' ', 'i', 's', ' ', 0,
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		die("/dev/kvm");
	if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
		fprintf(stderr, "another API version\n");
		return 1;
	}
	if (ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) <= 0) {
		fprintf(stderr, "no KVM_CAP_USER_MEMORY\n");
		return 1;
	}

	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		die("KVM_CREATE_VM");
	/* For processors that cannot run real mode in a guest; KVM wants them set early. */
	uint64_t identity_map = 0xfeffc000;
	if (ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
		die("KVM_SET_IDENTITY_MAP_ADDR");
	if (ioctl(vm, KVM_SET_TSS_ADDR, 0xfeffd000) < 0)
		die("KVM_SET_TSS_ADDR");

	void *memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			    -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	memcpy(memory, code, sizeof(code));
	struct kvm_userspace_memory_region region = {
		.slot = 0,
		.guest_phys_addr = CODE,
		.memory_size = MEMORY_SIZE,
		.userspace_addr = (uintptr_t)memory,
	};
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		die("KVM_SET_USER_MEMORY_REGION");

	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		die("KVM_CREATE_VCPU");
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < 0)
		die("KVM_GET_VCPU_MMAP_SIZE");
	struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		die("mmap of the vCPU");

	struct kvm_sregs sregs;
	if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		die("KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0)
		die("KVM_SET_SREGS");
	struct kvm_regs regs = { .rip = CODE, .rsp = CODE + MEMORY_SIZE, .rflags = 2 };
	if (ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
		die("KVM_SET_REGS");

	for (;;) {
		if (ioctl(vcpu, KVM_RUN, 0) < 0)
			die("KVM_RUN");
		switch (run->exit_reason) {
		case KVM_EXIT_IO:
			if (run->io.direction != KVM_EXIT_IO_OUT || run->io.port != SERIAL_PORT ||
			    run->io.size != 1)
				goto unexpected;
			fwrite((char *)run + run->io.data_offset, 1, run->io.count, stdout);
			break;
		case KVM_EXIT_MMIO:
			if (!run->mmio.is_write || run->mmio.phys_addr != DEVICE + 4)
				goto unexpected;
			printf("The device at %#x got %#x.\n", DEVICE, run->mmio.data[0]);
			break;
		case KVM_EXIT_HLT:
			if (ioctl(vcpu, KVM_GET_REGS, &regs) < 0)
				die("KVM_GET_REGS");
			printf("Halted at %#llx.\n", regs.rip);
			return 0;
		default:
		unexpected:
			fprintf(stderr, "unexpected exit %u\n", run->exit_reason);
			return 1;
		}
	}
}
