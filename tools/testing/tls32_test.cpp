// SPDX-License-Identifier: GPL-2.0
//
// A 32-bit VMM keeps its thread-local storage: the bases of FS and GS, which belong to selectors of
// its TLS. A processor without FSGSBASE (nofsgsbase on the kernel's command line) has no other way
// to them than the selector or the MSRs.
//
// Freestanding, with system calls by INT 0x80, so that it needs no 32-bit library; it says by
// itself in KTAP what the other programs say by lib/ktap.

#include <asm-generic/fcntl.h>
#include <asm/ldt.h>
#include <asm/unistd_32.h>
#include <linux/kvm.h>
#include <stdint.h>

namespace
{

constexpr unsigned timeout_s = 30;

template <typename T> long word(T value)
{
	return (long)value;
}

// EBP takes no part: no call here has six arguments.
template <typename A = long, typename B = long, typename C = long>
long call(long number, A a = {}, B b = {}, C c = {}, long d = 0)
{
	long result;
	asm volatile("int $0x80"
		     : "=a"(result)
		     : "a"(number), "b"(word(a)), "c"(word(b)), "d"(word(c)), "S"(d)
		     : "memory");
	return result;
}

[[noreturn]] void leave(int status)
{
	for (;;)
		call(__NR_exit_group, status);
}

void print(const char *text)
{
	unsigned length = 0;
	while (text[length])
		length++;
	call(__NR_write, 1, text, length);
}

void print(unsigned number)
{
	char text[] = "4294967295";
	char *digit = text + sizeof(text) - 1;
	do
		*--digit = static_cast<char>('0' + number % 10);
	while (number /= 10);
	print(digit);
}

void that(const char *what, bool condition)
{
	if (condition)
		return;
	print("# not so: ");
	print(what);
	print("\n");
	leave(1);
}

// $KVM_DEVICE, or /dev/kvmpp.
const char *device = "/dev/kvmpp";

void read_environment(char **environment)
{
	constexpr char name[] = "KVM_DEVICE=";
	for (; *environment; environment++) {
		unsigned i = 0;
		while (name[i] && (*environment)[i] == name[i])
			i++;
		if (!name[i] && (*environment)[i])
			device = *environment + i;
	}
}

// A VM with a page in which there is HLT after HLT.
class Machine
{
public:
	Machine()
	{
		const long kvm = call(__NR_open, device, O_RDWR | O_CLOEXEC);
		that("the device can be opened", kvm >= 0);
		const long vm = call(__NR_ioctl, kvm, KVM_CREATE_VM);
		that("KVM_CREATE_VM", vm >= 0);
		for (unsigned char &byte : page_)
			byte = 0xf4;
		kvm_userspace_memory_region region{};
		region.guest_phys_addr = address;
		region.memory_size = sizeof(page_);
		region.userspace_addr = reinterpret_cast<uintptr_t>(page_);
		that("KVM_SET_USER_MEMORY_REGION",
		     call(__NR_ioctl, vm, KVM_SET_USER_MEMORY_REGION, &region) == 0);
		vcpu_ = call(__NR_ioctl, vm, KVM_CREATE_VCPU);
		that("KVM_CREATE_VCPU", vcpu_ >= 0);
		kvm_sregs sregs;
		that("KVM_GET_SREGS", call(__NR_ioctl, vcpu_, KVM_GET_SREGS, &sregs) == 0);
		sregs.cs.base = 0;
		sregs.cs.selector = 0;
		// The guest's own, which must not be seen.
		sregs.fs.base = sregs.gs.base = address;
		that("KVM_SET_SREGS", call(__NR_ioctl, vcpu_, KVM_SET_SREGS, &sregs) == 0);
		kvm_regs regs{};
		regs.rip = address;
		regs.rflags = 2;
		that("KVM_SET_REGS", call(__NR_ioctl, vcpu_, KVM_SET_REGS, &regs) == 0);
	}

	// Each time to the next HLT.
	void run() { that("KVM_RUN", call(__NR_ioctl, vcpu_, KVM_RUN) == 0); }

private:
	static constexpr unsigned address = 0x1000;

	alignas(0x1000) static inline unsigned char page_[0x1000];
	long vcpu_;
};

// A TLS entry with a base of its own; returns its selector.
uint16_t thread_area(const void *base)
{
	user_desc entry{};
	entry.entry_number = ~0u;
	entry.base_addr = reinterpret_cast<uintptr_t>(base);
	entry.limit = 0xfffff;
	entry.seg_32bit = 1;
	entry.limit_in_pages = 1;
	entry.useable = 1;
	that("set_thread_area", call(__NR_set_thread_area, &entry) == 0);
	return static_cast<uint16_t>(entry.entry_number << 3 | 3);
}

constexpr unsigned rounds = 10;
volatile uint32_t in_fs = 0x12345678, in_gs = 0x9abcdef0;

// Gives way to other processes on this CPU, if there are any, or sleeps a tick.
void pause(unsigned round)
{
	struct {
		long seconds, nanoseconds;
	} delay{0, 1'000'000};
	if (round % 3 == 2)
		call(__NR_nanosleep, &delay);
}

void check(uint16_t fs, uint16_t gs)
{
	asm volatile("mov %0, %%fs\n\tmov %1, %%gs" : : "r"(fs), "r"(gs));
	Machine machine;
	for (unsigned round = 0; round < rounds; round++) {
		machine.run();
		uint32_t value;
		uint16_t selector;
		if (fs) {
			asm volatile("mov %%fs:0, %0" : "=r"(value));
			that("FS's base is the VMM's", value == in_fs);
		}
		if (gs) {
			asm volatile("mov %%gs:0, %0" : "=r"(value));
			that("GS's base is the VMM's", value == in_gs);
		}
		asm volatile("mov %%fs, %0" : "=r"(selector));
		that("FS is the VMM's", selector == fs);
		asm volatile("mov %%gs, %0" : "=r"(selector));
		that("GS is the VMM's", selector == gs);
		pause(round);
	}
}

void thread_local_gs()
{
	check(0, thread_area(const_cast<uint32_t *>(&in_gs)));
}

void thread_local_fs()
{
	check(thread_area(const_cast<uint32_t *>(&in_fs)), 0);
}

void thread_local_both()
{
	const uint16_t fs = thread_area(const_cast<uint32_t *>(&in_fs));
	check(fs, thread_area(const_cast<uint32_t *>(&in_gs)));
}

const struct {
	const char *name;
	void (*run)();
} cases[] = {
	{"thread_local_gs", thread_local_gs},
	{"thread_local_fs", thread_local_fs},
	{"thread_local_both", thread_local_both},
};

// A case in a process of its own; the alarm is its timeout. Returns whether it has passed.
bool run_case(void (*run)())
{
	const long child = call(__NR_fork);
	if (child == 0) {
		call(__NR_alarm, timeout_s);
		run();
		leave(0);
	}
	int status = -1;
	if (child < 0 || call(__NR_waitpid, child, &status) != child)
		return false;
	if (status & 0x7f) {
		print("# killed by signal ");
		print(static_cast<unsigned>(status & 0x7f));
		print("\n");
	}
	return status == 0;
}

} // namespace

extern "C" [[noreturn]] void run_all(char **stack)
{
	// The number of arguments, the arguments, NULL, the environment.
	const auto arguments = reinterpret_cast<uintptr_t>(*stack);
	read_environment(stack + 1 + arguments + 1);

	constexpr unsigned count = sizeof(cases) / sizeof(cases[0]);
	print("KTAP version 1\n1..");
	print(count);
	print("\n");
	bool all_passed = true;
	for (unsigned i = 0; i < count; i++) {
		const bool passed = run_case(cases[i].run);
		print(passed ? "ok " : "not ok ");
		print(i + 1);
		print(" ");
		print(cases[i].name);
		print("\n");
		all_passed = all_passed && passed;
	}
	leave(all_passed ? 0 : 1);
}

asm(".globl _start\n"
    "_start:\n\t"
    "mov %esp, %eax\n\t"
    "and $-16, %esp\n\t"
    "sub $12, %esp\n\t"
    "push %eax\n\t"
    "call run_all");
