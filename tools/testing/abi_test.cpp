// SPDX-License-Identifier: GPL-2.0
//
// What the ioctls refuse and with which errno, what they keep, and what outlives what. Every errno
// is the one stock KVM of Linux 6.1 gives.

#include "expect.hpp"
#include "guests.hpp"
#include "ktap.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <fcntl.h>
#include <memory>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
namespace lm = guest::longmode;
namespace real = guest::real;

constexpr uint64_t page_size = 0x1000;

// ---- Requests and pointers

void unknown_ioctls()
{
	RealMachine machine(real::halt);
	constexpr unsigned long unknown = _IO(KVMIO, 0xee);
	constexpr unsigned long foreign = _IO('x', 0x41);
	equal("device, KVM's type", machine.device.fd().call(unknown), -EINVAL);
	equal("device, another type", machine.device.fd().call(foreign), -EINVAL);
	equal("VM, KVM's type", machine.vm.fd().call(unknown), -ENOTTY);
	equal("VM, another type", machine.vm.fd().call(foreign), -ENOTTY);
	equal("vCPU, KVM's type", machine.vcpu.fd().call(unknown), -EINVAL);
	equal("vCPU, another type", machine.vcpu.fd().call(foreign), -EINVAL);
	// Right requests on the wrong file.
	equal("KVM_RUN on the device", machine.device.fd().call(KVM_RUN), -EINVAL);
	equal("KVM_RUN on the VM", machine.vm.fd().call(KVM_RUN), -ENOTTY);
	equal("KVM_CREATE_VM on the VM", machine.vm.fd().call(KVM_CREATE_VM), -ENOTTY);
	equal("KVM_CREATE_VCPU on the vCPU", machine.vcpu.fd().call(KVM_CREATE_VCPU), -EINVAL);
}

void read_and_write_refused()
{
	RealMachine machine(real::halt);
	char byte = 0;
	const Fd *const files[] = {&machine.device.fd(), &machine.vm.fd(), &machine.vcpu.fd()};
	for (const Fd *fd : files) {
		equal("read", read(fd->get(), &byte, 1) < 0 ? -errno : 0, -EINVAL);
		equal("write", write(fd->get(), &byte, 1) < 0 ? -errno : 0, -EINVAL);
	}
}

void arguments()
{
	Device device;
	equal("KVM_GET_API_VERSION with an argument", device.fd().call(KVM_GET_API_VERSION, 1),
	      -EINVAL);
	equal("KVM_GET_VCPU_MMAP_SIZE with an argument",
	      device.fd().call(KVM_GET_VCPU_MMAP_SIZE, 1), -EINVAL);
	for (const unsigned long type : {0xdeadul, 3ul, ~0ul})
		equal("KVM_CREATE_VM of a bad type", device.fd().call(KVM_CREATE_VM, type),
		      -EINVAL);
	RealMachine machine(real::halt);
	equal("KVM_RUN with an argument", machine.vcpu.fd().call(KVM_RUN, 1), -EINVAL);
}

void extensions()
{
	Device device;
	struct {
		const char *name;
		unsigned long capability;
	} const needed[] = {
		{"KVM_CAP_USER_MEMORY", KVM_CAP_USER_MEMORY},
		{"KVM_CAP_SET_TSS_ADDR", KVM_CAP_SET_TSS_ADDR},
		{"KVM_CAP_SET_IDENTITY_MAP_ADDR", KVM_CAP_SET_IDENTITY_MAP_ADDR},
		{"KVM_CAP_DESTROY_MEMORY_REGION_WORKS", KVM_CAP_DESTROY_MEMORY_REGION_WORKS},
		{"KVM_CAP_JOIN_MEMORY_REGIONS_WORKS", KVM_CAP_JOIN_MEMORY_REGIONS_WORKS},
		{"KVM_CAP_SYNC_MMU", KVM_CAP_SYNC_MMU},
		{"KVM_CAP_NR_VCPUS", KVM_CAP_NR_VCPUS},
		{"KVM_CAP_MAX_VCPUS", KVM_CAP_MAX_VCPUS},
		{"KVM_CAP_NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS},
	};
	for (const auto &[name, capability] : needed)
		if (device.check_extension(capability) < 1)
			expect::fail("%s is %ld", name, device.check_extension(capability));
	that("some memory slots", device.check_extension(KVM_CAP_NR_MEMSLOTS) >= 32);
	for (const unsigned long nonsense : {9999ul, 0xfffffffful, ~0ul})
		equal("an unknown capability", device.check_extension(nonsense), 0);
	if (device.check_extension(KVM_CAP_CHECK_EXTENSION_VM) > 0) {
		Vm vm(device);
		equal("KVM_CAP_USER_MEMORY of a VM",
		      vm.fd().call(KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), 1);
	}
}

void bad_pointers()
{
	RealMachine machine(real::halt);
	// An unmapped page, a kernel address, and a structure that runs into an unmapped page.
	Memory memory(2 * page_size);
	munmap(memory.data() + page_size, page_size);
	const unsigned long edge = reinterpret_cast<unsigned long>(memory.data()) + page_size - 8;
	for (const unsigned long pointer : {0ul, 0x10ul, 0xffff888000000000ul, edge}) {
		equal("KVM_SET_USER_MEMORY_REGION",
		      machine.vm.fd().call(KVM_SET_USER_MEMORY_REGION, pointer), -EFAULT);
		equal("KVM_GET_REGS", machine.vcpu.fd().call(KVM_GET_REGS, pointer), -EFAULT);
		equal("KVM_SET_REGS", machine.vcpu.fd().call(KVM_SET_REGS, pointer), -EFAULT);
		equal("KVM_GET_SREGS", machine.vcpu.fd().call(KVM_GET_SREGS, pointer), -EFAULT);
		equal("KVM_SET_SREGS", machine.vcpu.fd().call(KVM_SET_SREGS, pointer), -EFAULT);
	}
	Vm vm(machine.device);
	equal("KVM_SET_IDENTITY_MAP_ADDR", vm.fd().call(KVM_SET_IDENTITY_MAP_ADDR, 0x10ul),
	      -EFAULT);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

// A 32-bit program has not filled all of the field that a pointer is in.
void pointer_of_32_bits()
{
	Device device;
	Vm vm(device);
	void *const low = mmap(nullptr, page_size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	that("memory below 4 GiB", low != MAP_FAILED);
	vm.set_memory(0, 0, page_size, low, KVM_MEM_LOG_DIRTY_PAGES);
	auto &log = *static_cast<kvm_dirty_log *>(low);
	const auto at = reinterpret_cast<uint64_t>(low);
	const auto &bitmap = *reinterpret_cast<uint64_t *>(at + 64);
	log.slot = 0;
	log.padding2 = 0xdead'0000'0000'0000 | (at + 64);
	equal("64 bits", vm.fd().call(KVM_GET_DIRTY_LOG, low), -EFAULT);
	equal("32 bits", call_as_32_bits(vm.fd().get(), KVM_GET_DIRTY_LOG, at), 0);
	equal("the log", bitmap, 0u);
	// Addresses and numbers come as they are.
	equal("KVM_CREATE_VCPU", call_as_32_bits(vm.fd().get(), KVM_CREATE_VCPU, 0xffff'ffff),
	      -EINVAL);
	equal("an unknown ioctl", call_as_32_bits(vm.fd().get(), _IO(KVMIO, 0xee), 0), -ENOTTY);
}

void tss_and_identity_map()
{
	Device device;
	Vm vm(device);
	equal("KVM_SET_TSS_ADDR", vm.fd().call(KVM_SET_TSS_ADDR, 0xfffbd000ul), 0);
	equal("KVM_SET_TSS_ADDR too high", vm.fd().call(KVM_SET_TSS_ADDR, 0xffffe000ul), -EINVAL);
	uint64_t address = 0xfffbc000;
	equal("KVM_SET_IDENTITY_MAP_ADDR", vm.fd().call(KVM_SET_IDENTITY_MAP_ADDR, &address), 0);
	address = 0;
	equal("KVM_SET_IDENTITY_MAP_ADDR to its default",
	      vm.fd().call(KVM_SET_IDENTITY_MAP_ADDR, &address), 0);
	Vcpu vcpu(vm);
	equal("KVM_SET_IDENTITY_MAP_ADDR after a vCPU",
	      vm.fd().call(KVM_SET_IDENTITY_MAP_ADDR, &address), -EINVAL);
}

// ---- Memory slots

void bad_slots()
{
	Device device;
	Vm vm(device);
	Memory memory(16 * page_size);
	const std::byte *at = memory.data();
	constexpr uint64_t size = 4 * page_size;
	const auto expect_errno = [&](const char *what, int error, uint32_t slot, uint64_t gpa,
				      uint64_t length, const void *userspace, uint32_t flags = 0) {
		equal(what, vm.try_set_memory(slot, gpa, length, userspace, flags), -error);
	};
	expect_errno("size not aligned", EINVAL, 0, 0, size + 1, at);
	expect_errno("size below a page", EINVAL, 0, 0, 0x800, at);
	expect_errno("guest address not aligned", EINVAL, 0, 0x800, size, at);
	expect_errno("user address not aligned", EINVAL, 0, 0, size, at + 0x800);
	expect_errno("user address in the kernel", EINVAL, 0, 0, size,
		     reinterpret_cast<void *>(0xffff888000000000));
	expect_errno("user range into the kernel", EINVAL, 0, 0, size,
		     reinterpret_cast<void *>(0x7ffffffff000));
	expect_errno("guest range wraps around", EINVAL, 0, 0xffff'ffff'ffff'f000, size, at);
	expect_errno("guest range beyond physical addresses", EINVAL, 0, bit(52), size, at);
	expect_errno("too large", EINVAL, 0, 0, bit(44), at);
	expect_errno("far too large", EINVAL, 0, 0, bit(63), at);
	expect_errno("slot number", EINVAL, 0x7fff, 0, size, at);
	expect_errno("address space number", EINVAL, 0x7fff'0000, 0, size, at);
	expect_errno("unknown flag", EINVAL, 0, 0, size, at, 1u << 31);
	expect_errno("unknown flag", EINVAL, 0, 0, size, at, 1u << 7);
	expect_errno("deleting a slot that is not there", EINVAL, 5, 0, 0, at);

	vm.set_memory(0, 0x10000, size, at);
	expect_errno("the same range in another slot", EEXIST, 1, 0x10000, size, at);
	expect_errno("its first page", EEXIST, 1, 0x10000, page_size, at);
	expect_errno("its last page", EEXIST, 1, 0x13000, size, at);
	expect_errno("around it", EEXIST, 1, 0xf000, 6 * page_size, at);
	expect_errno("its size changed", EINVAL, 0, 0x10000, 2 * page_size, at);
	expect_errno("its memory changed", EINVAL, 0, 0x10000, size, at + page_size);
	vm.set_memory(0, 0x10000, size, at);
	vm.set_memory(1, 0x14000, size, at);
	vm.set_memory(2, 0xc000, size, at);
	expect_errno("moved over another", EEXIST, 0, 0x15000, size, at);
	vm.set_memory(0, 0x20000, size, at);
	vm.set_memory(3, 0x10000, size, at);
	vm.set_memory(0, 0, 0, nullptr);
	expect_errno("deleted twice", EINVAL, 0, 0, 0, nullptr);
	vm.set_memory(0, 0x20000, 2 * size, at);
	// KVM_MEM_LOG_DIRTY_PAGES and KVM_MEM_READONLY are known to stock KVM; a device without the
	// latter's capability has to refuse it.
	if (device.check_extension(KVM_CAP_READONLY_MEM) <= 0)
		expect_errno("read-only slot", EINVAL, 4, 0x40000, size, at, KVM_MEM_READONLY);
	else
		vm.set_memory(4, 0x40000, size, at, KVM_MEM_READONLY);
}

// Nothing of a refused slot is there.
void refused_slot_changes_nothing()
{
	LongMachine machine(lm::peek);
	Memory other(page_size);
	machine.at<uint64_t>(GUEST_SCRATCH) = 5;
	equal("overlapping slot",
	      machine.vm.try_set_memory(1, GUEST_SCRATCH, page_size, other.data()), -EEXIST);
	equal("size changed", machine.vm.try_set_memory(0, 0, page_size, machine.memory.data()),
	      -EINVAL);
	call(machine, lm::peek, 0, GUEST_SCRATCH);
	equal("what the guest reads", machine.vcpu.regs().rax, 5u);
}

void all_slots()
{
	Device device;
	Vm vm(device);
	Memory memory(page_size);
	const long offered = device.check_extension(KVM_CAP_NR_MEMSLOTS);
	const auto slots = static_cast<uint32_t>(offered < 600 ? offered : 600);
	for (uint32_t slot = 0; slot < slots; slot++)
		vm.set_memory(slot, slot * 2 * page_size, page_size, memory.data());
	equal("a slot more",
	      vm.try_set_memory(static_cast<uint32_t>(offered), offered * 2 * page_size, page_size,
				memory.data()),
	      -EINVAL);
	for (uint32_t slot = 0; slot < slots; slot += 2)
		vm.set_memory(slot, 0, 0, memory.data());
}

// ---- vCPUs and their mapping

void vcpu_ids()
{
	Device device;
	Vm vm(device);
	Vcpu first(vm, 0);
	Vcpu second(vm, 1);
	equal("an id twice", vm.fd().call(KVM_CREATE_VCPU, 0ul), -EEXIST);
	equal("an id twice", vm.fd().call(KVM_CREATE_VCPU, 1), -EEXIST);
	for (const unsigned long id : {0x7ffffffful, 0xfffffffful, 1ul << 20})
		equal("an id too large", vm.fd().call(KVM_CREATE_VCPU, id), -EINVAL);
	const long limit = device.check_extension(KVM_CAP_MAX_VCPU_ID);
	const long max_id = limit > 0 ? limit : device.check_extension(KVM_CAP_MAX_VCPUS);
	equal("the first id too large",
	      vm.fd().call(KVM_CREATE_VCPU, static_cast<unsigned long>(max_id)), -EINVAL);
	Vcpu last(vm, static_cast<unsigned long>(max_id) - 1);
	Vm other(device);
	Vcpu same_id(other, 0);
}

sigjmp_buf fault_return;

void on_fault(int signal)
{
	siglongjmp(fault_return, signal);
}

// The signal a read of the byte gives, or 0.
int touch(const volatile std::byte *byte)
{
	signal(SIGBUS, on_fault);
	signal(SIGSEGV, on_fault);
	const int caught = sigsetjmp(fault_return, 1);
	if (caught == 0)
		static_cast<void>(*byte);
	return caught;
}

const std::byte *map(int fd, size_t size, int flags, off_t offset, int protection = PROT_READ)
{
	void *mapping = mmap(nullptr, size, protection, flags, fd, offset);
	return mapping == MAP_FAILED ? nullptr : static_cast<const std::byte *>(mapping);
}

void vcpu_mapping()
{
	RealMachine machine(real::halt);
	const int fd = machine.vcpu.fd().get();
	const size_t size = machine.device.run_size();
	that("the size is in pages", size >= page_size && size % page_size == 0);

	const std::byte *again = map(fd, size, MAP_SHARED, 0);
	that("a second mapping", again);
	machine.vcpu.state().request_interrupt_window = 0;
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("exit reason in the second mapping",
	      reinterpret_cast<const kvm_run *>(again)->exit_reason, KVM_EXIT_HLT);

	// Whether mmap refuses what lies behind the pages, or the access does, is all the same.
	const std::byte *large = map(fd, size + 4 * page_size, MAP_SHARED, 0);
	that("access behind the last page", !large || touch(large + size + page_size) == SIGBUS);
	const std::byte *behind = map(fd, page_size, MAP_SHARED, 1 << 20);
	that("access far behind", !behind || touch(behind) == SIGBUS);
	const std::byte *copy = map(fd, size, MAP_PRIVATE, 0);
	that("a private mapping can be read, or is refused", !copy || touch(copy) == 0);
	that("the VM has no mapping", !map(machine.vm.fd().get(), page_size, MAP_SHARED, 0));
	that("the device has no mapping",
	     !map(machine.device.fd().get(), page_size, MAP_SHARED, 0));
}

// The mapping keeps what it shows.
void mapping_outlives_files()
{
	auto machine = std::make_unique<RealMachine>(real::halt);
	const std::byte *mapping =
		map(machine->vcpu.fd().get(), machine->device.run_size(), MAP_SHARED, 0);
	that("a second mapping", mapping);
	machine->vcpu.run_until(KVM_EXIT_HLT);
	machine.reset();
	equal("exit reason", reinterpret_cast<const kvm_run *>(mapping)->exit_reason, KVM_EXIT_HLT);
}

// ---- Who may, and when

void another_process()
{
	RealMachine machine(real::halt);
	const pid_t child = fork();
	if (child == 0) {
		kvm_regs regs;
		kvm_sregs sregs;
		equal("KVM_RUN", machine.vcpu.try_run(), -EIO);
		equal("KVM_GET_REGS", machine.vcpu.fd().call(KVM_GET_REGS, &regs), -EIO);
		equal("KVM_GET_SREGS", machine.vcpu.fd().call(KVM_GET_SREGS, &sregs), -EIO);
		equal("KVM_SET_USER_MEMORY_REGION",
		      machine.vm.try_set_memory(1, GUEST_MMIO, page_size, machine.memory.data()),
		      -EIO);
		equal("KVM_CREATE_VCPU", machine.vm.fd().call(KVM_CREATE_VCPU, 1), -EIO);
		equal("an unknown ioctl", machine.vm.fd().call(_IO(KVMIO, 0xee)), -EIO);
		// The device is anyone's.
		RealMachine own(real::halt);
		own.vcpu.run_until(KVM_EXIT_HLT);
		_exit(0);
	}
	ktap::child_ok(child);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

// The child holds the files when the parent, whose memory the VM uses, is gone.
void parent_gone()
{
	int ready[2];
	that("pipe", !pipe(ready));
	const pid_t parent = fork();
	if (parent == 0) {
		RealMachine machine(real::halt);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		const pid_t child = fork();
		if (child == 0) {
			usleep(200'000);
			const char fine = machine.vcpu.try_run() == -EIO ? 'y' : 'n';
			static_cast<void>(!write(ready[1], &fine, 1));
			_exit(0);
		}
		_exit(0);
	}
	ktap::child_ok(parent);
	char fine = 0;
	that("read", read(ready[0], &fine, 1) == 1);
	equal("KVM_RUN's result is EIO", fine, 'y');
}

void vm_closed_vcpu_open()
{
	LongMachine machine(lm::peek);
	machine.vm.fd().close();
	machine.at<uint64_t>(GUEST_SCRATCH) = 8;
	call(machine, lm::peek, 0, GUEST_SCRATCH);
	equal("what the guest reads", machine.vcpu.regs().rax, 8u);
}

void every_order_of_closing()
{
	// Device, VM, vCPU, mapping of the vCPU.
	std::array<unsigned, 4> order{0, 1, 2, 3};
	do {
		RealMachine machine(real::halt);
		Fd device(dup(machine.device.fd().get()));
		const size_t size = machine.device.run_size();
		Fd vm(static_cast<int>(device.call(KVM_CREATE_VM)));
		Fd vcpu(static_cast<int>(vm.call(KVM_CREATE_VCPU)));
		const std::byte *mapping = map(vcpu.get(), size, MAP_SHARED, 0);
		that("mapping", mapping);
		for (const unsigned what : order) {
			switch (what) {
			case 0:
				device.close();
				break;
			case 1:
				vm.close();
				break;
			case 2:
				vcpu.close();
				break;
			case 3:
				munmap(const_cast<std::byte *>(mapping), size);
				break;
			}
		}
		machine.vcpu.run_until(KVM_EXIT_HLT);
	} while (std::next_permutation(order.begin(), order.end()));
}

void vcpu_closed()
{
	// In KVM a vCPU lives as long as its VM, and its id is not free again. kvmpp frees both with
	// the vCPU's file, by design: vCPUs can come and go under a VM.
	Device device;
	Vm vm(device);
	{
		Vcpu vcpu(vm, 3);
	}
	if (Device::is_kvmpp())
		Vcpu again(vm, 3);
	else
		equal("the id again", vm.fd().call(KVM_CREATE_VCPU, 3), -EEXIST);
}

void on_signal(int)
{
}

void second_thread_waits()
{
	RealMachine machine(real::spin);
	struct sigaction action {
	};
	action.sa_handler = on_signal;
	that("sigaction", !sigaction(SIGUSR1, &action, nullptr));
	long result = 1;
	std::atomic<bool> got = false;
	std::thread runner([&] { result = machine.vcpu.try_run(); });
	usleep(100'000);
	that("the guest runs", machine.at<uint32_t>(GUEST_RESULTS) > 0);
	std::thread reader([&] {
		static_cast<void>(machine.vcpu.regs());
		got = true;
	});
	usleep(200'000);
	that("KVM_GET_REGS waits for KVM_RUN", !got);
	pthread_kill(runner.native_handle(), SIGUSR1);
	runner.join();
	reader.join();
	equal("KVM_RUN", result, -EINTR);
	that("KVM_GET_REGS has its turn", got);
}

void many_vms()
{
	Device device;
	std::vector<std::unique_ptr<RealMachine>> machines;
	for (unsigned i = 0; i < 40; i++)
		machines.push_back(std::make_unique<RealMachine>(real::halt));
	for (const auto &machine : machines)
		machine->vcpu.run_until(KVM_EXIT_HLT);
	machines.erase(machines.begin(), machines.begin() + 20);
	for (const auto &machine : machines)
		machine->vcpu.run_until(KVM_EXIT_HLT);
}

void many_vcpus()
{
	RealMachine machine(real::halt);
	std::vector<std::unique_ptr<Vcpu>> vcpus;
	for (unsigned id = 1; id < 32; id++) {
		vcpus.push_back(std::make_unique<Vcpu>(machine.vm, id));
		vcpus.back()->enter_real(real::halt);
	}
	for (unsigned round = 0; round < 2; round++)
		for (const auto &vcpu : vcpus)
			vcpu->run_until(KVM_EXIT_HLT);
}

void not_root()
{
	const pid_t child = fork();
	if (child == 0) {
		that("setresuid",
		     !setresgid(65534, 65534, 65534) && !setresuid(65534, 65534, 65534));
		equal("open", open(Device::path(), O_RDWR) < 0 ? -errno : 0, -EACCES);
		_exit(0);
	}
	ktap::child_ok(child);
}

constexpr ktap::Case cases[] = {
	{"unknown_ioctls", unknown_ioctls},
	{"read_and_write_refused", read_and_write_refused},
	{"arguments", arguments},
	{"extensions", extensions},
	{"bad_pointers", bad_pointers},
	{"pointer_of_32_bits", pointer_of_32_bits},
	{"tss_and_identity_map", tss_and_identity_map},
	{"bad_slots", bad_slots},
	{"refused_slot_changes_nothing", refused_slot_changes_nothing},
	{"all_slots", all_slots},
	{"vcpu_ids", vcpu_ids},
	{"vcpu_mapping", vcpu_mapping},
	{"mapping_outlives_files", mapping_outlives_files},
	{"another_process", another_process},
	{"parent_gone", parent_gone},
	{"vm_closed_vcpu_open", vm_closed_vcpu_open},
	{"every_order_of_closing", every_order_of_closing},
	{"vcpu_closed", vcpu_closed},
	{"second_thread_waits", second_thread_waits},
	{"many_vms", many_vms},
	{"many_vcpus", many_vcpus},
	{"not_root", not_root},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
