// SPDX-License-Identifier: GPL-2.0
//
// Guest memory: sizes, slots, and that what happens to the VMM's memory - unmapped, remapped,
// copied on write, made read-only - happens to the guest's, at once. A page the guest still
// reaches though the VMM has lost it would be somebody else's.

#include "expect.hpp"
#include "guests.hpp"
#include "ktap.hpp"
#include "window.hpp"

#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace
{

using expect::equal;
using expect::that;
using namespace window_machine;
namespace lm = guest::longmode;
namespace real = guest::real;

// ---- Sizes

void one_page()
{
	Device device;
	Vm vm(device);
	Memory memory(page_size);
	vm.set_memory(0, GUEST_IMAGE, memory.size(), memory.data());
	const auto image = real::image();
	that("the image leaves half of the page free", image.size() <= page_size / 2);
	std::memcpy(memory.data(), image.data(), image.size());
	uint32_t sum = 0;
	for (unsigned i = page_size / 2; i < page_size; i++) {
		memory.at<uint8_t>(i) = static_cast<uint8_t>(i * 11);
		sum += memory.at<uint8_t>(i);
	}
	Vcpu vcpu(vm);
	vcpu.enter_real(real::one_page);
	equal("sum", vcpu.run_until_out(0x80, 4), sum);
	vcpu.run_until(KVM_EXIT_HLT);
}

void touch_all(size_t size, int advice)
{
	LongMachine machine(lm::touch, size);
	madvise(machine.memory.data(), size, advice);
	constexpr uint64_t step = 2 * mib;
	uint64_t sum = 0;
	for (uint64_t gpa = step; gpa < size; gpa += step) {
		machine.at<uint64_t>(gpa) = gpa * 3 + 1;
		sum += gpa * 3 + 1;
	}
	call(machine, lm::touch, 0, step, size);
	equal("the guest's sum", machine.vcpu.regs().rax, sum);
	for (uint64_t gpa = step; gpa < size; gpa += step)
		equal("what the guest wrote", machine.at<uint64_t>(gpa), gpa * 4 + 1);
	// Pages nobody has touched before the guest.
	for (uint64_t gpa = step + page_size; gpa < size; gpa += 64 * mib) {
		poke(machine, gpa, gpa);
		equal("written by the guest first", machine.at<uint64_t>(gpa), gpa);
	}
}

void touch_512_mib()
{
	touch_all(512 * mib, MADV_NOHUGEPAGE);
}

void touch_huge_pages()
{
	touch_all(64 * mib, MADV_HUGEPAGE);
}

void checksum()
{
	constexpr size_t size = 2 * mib;
	LongMachine machine(lm::checksum, size);
	uint32_t random = 1;
	uint64_t sum = 0;
	for (uint64_t gpa = mib; gpa < size; gpa += 4) {
		random = random * 1664525 + 1013904223;
		machine.at<uint32_t>(gpa) = random;
		sum += random;
		sum = sum << 1 | sum >> 63;
	}
	call(machine, lm::checksum, 0, mib, size);
	equal("checksum", machine.vcpu.regs().rax, sum);
}

// ---- Slots

void one_memory_in_two_slots()
{
	WindowMachine machine;
	machine.vm.set_memory(2, 2 * window, page_size, machine.address());
	poke(machine, window + 8, 0x1234);
	// The default tables end at 4 GiB; 0x80000000 is within.
	equal("seen in the other slot", peek(machine, 2 * window + 8), 0x1234u);
	poke(machine, 2 * window + 8, 0x5678);
	equal("seen in the first", peek(machine, window + 8), 0x5678u);
	equal("seen by the VMM", machine.word(8), 0x5678u);
}

void access_across_slots()
{
	WindowMachine machine;
	Memory next(page_size);
	machine.vm.set_memory(2, window + 4 * page_size, page_size, next.data());
	poke(machine, window + 4 * page_size - 4, 0x1122334455667788);
	equal("first part", machine.memory_in_window.at<uint32_t>(4 * page_size - 4), 0x55667788u);
	equal("second part", next.at<uint32_t>(0), 0x11223344u);
	equal("both", peek(machine, window + 4 * page_size - 4), 0x1122334455667788u);
}

void moved_slot()
{
	WindowMachine machine;
	poke(machine, window, 0xabcd);
	machine.vm.set_memory(1, 2 * window, machine.memory_in_window.size(), machine.address());
	equal("at the new place", peek(machine, 2 * window), 0xabcdu);
	equal("KVM_RUN", try_access(machine, lm::peek, window), 0);
	equal("exit at the old place", machine.vcpu.state().exit_reason, KVM_EXIT_MMIO);
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void replaced_slot()
{
	WindowMachine machine;
	Memory other(page_size);
	poke(machine, window, 1);
	other.at<uint64_t>(0) = 2;
	machine.vm.set_memory(1, window, 0, machine.address());
	machine.vm.set_memory(1, window, page_size, other.data());
	equal("the new memory", peek(machine, window), 2u);
	poke(machine, window, 3);
	equal("the new memory, written", other.at<uint64_t>(0), 3u);
	equal("the old memory", machine.word(), 1u);
}

void slot_removed_under_running_guest()
{
	WindowMachine machine;
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = lm::await;
	regs.rbx = window;
	regs.rcx = 1;
	machine.vcpu.set_regs(regs);
	std::thread runner([&] { machine.vcpu.run_until(KVM_EXIT_MMIO); });
	usleep(50'000);
	machine.vm.set_memory(1, window, 0, machine.address());
	runner.join();
	equal("address", machine.vcpu.state().mmio.phys_addr, window);
	// What the device gives ends the guest's wait.
	const uint64_t answer = 1;
	std::memcpy(machine.vcpu.state().mmio.data, &answer, sizeof(answer));
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void read_only_slot()
{
	WindowMachine machine;
	if (machine.device.check_extension(KVM_CAP_READONLY_MEM) <= 0)
		ktap::skip("no KVM_CAP_READONLY_MEM");
	Memory rom(page_size);
	rom.at<uint64_t>(0) = 0x12345678;
	machine.vm.set_memory(2, 2 * window, page_size, rom.data(), KVM_MEM_READONLY);
	equal("read", peek(machine, 2 * window), 0x12345678u);
	equal("KVM_RUN", try_access(machine, lm::poke, 2 * window), 0);
	equal("exit of a write", machine.vcpu.state().exit_reason, KVM_EXIT_MMIO);
	equal("is_write", machine.vcpu.state().mmio.is_write, 1);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("the memory", rom.at<uint64_t>(0), 0x12345678u);
}

// ---- What happens to the VMM's mapping

// Memory the VMM itself may only read, in an ordinary slot: the guest may not write it either.
void read_only_mapping()
{
	WindowMachine machine;
	machine.word() = 77;
	that("mprotect", !mprotect(machine.address(), page_size, PROT_READ));
	equal("read", peek(machine, window), 77u);
	equal("KVM_RUN with a write", try_access(machine, lm::poke, window), -EFAULT);
	equal("the memory", machine.word(), 77u);
	// Once it may be written, the same instruction goes through.
	that("mprotect", !mprotect(machine.address(), page_size, PROT_READ | PROT_WRITE));
	machine.vcpu.run_until(KVM_EXIT_HLT);
}

void made_read_only()
{
	WindowMachine machine;
	poke(machine, window, 5);
	that("mprotect", !mprotect(machine.address(), page_size, PROT_READ));
	equal("read", peek(machine, window), 5u);
	equal("KVM_RUN with a write", try_access(machine, lm::poke, window), -EFAULT);
	equal("the memory", machine.word(), 5u);
	that("mprotect", !mprotect(machine.address(), page_size, PROT_NONE));
	equal("KVM_RUN with a read", try_access(machine, lm::peek, window), -EFAULT);
}

void unmapped()
{
	WindowMachine machine;
	poke(machine, window, 9);
	that("munmap", !munmap(machine.address(), page_size));
	equal("KVM_RUN with a read", try_access(machine, lm::peek, window), -EFAULT);
	equal("KVM_RUN with a write", try_access(machine, lm::poke, window), -EFAULT);
	equal("KVM_RUN again", machine.vcpu.try_run(), -EFAULT);
	poke(machine, window + page_size, 10);
	equal("the next page", machine.word(page_size), 10u);
	// Mapped again, it is a fresh page, and the guest goes on.
	remap(machine.address(), page_size);
	equal("a fresh page", peek(machine, window), 0u);
}

void never_mapped()
{
	WindowMachine machine;
	Memory gap(page_size);
	munmap(gap.data(), page_size);
	machine.vm.set_memory(2, 2 * window, page_size, gap.data());
	equal("KVM_RUN", try_access(machine, lm::peek, 2 * window), -EFAULT);
	machine.vm.set_memory(2, 2 * window, 0, gap.data());
}

void unmapped_under_running_guest()
{
	WindowMachine machine;
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = lm::await;
	regs.rbx = window;
	regs.rcx = 1;
	machine.vcpu.set_regs(regs);
	long result = 0;
	std::thread runner([&] { result = machine.vcpu.try_run(); });
	usleep(50'000);
	munmap(machine.address(), page_size);
	runner.join();
	equal("KVM_RUN", result, -EFAULT);
}

void code_unmapped()
{
	LongMachine machine(lm::peek);
	kvm_regs regs = machine.vcpu.regs();
	regs.rbx = GUEST_SCRATCH;
	machine.vcpu.set_regs(regs);
	call(machine, lm::peek);
	munmap(machine.memory.data() + GUEST_IMAGE, page_size);
	equal("KVM_RUN", machine.vcpu.try_run(), -EFAULT);
}

void remapped()
{
	WindowMachine machine;
	poke(machine, window, 11);
	remap(machine.address(), page_size);
	machine.word() = 12;
	equal("what the guest reads", peek(machine, window), 12u);
	poke(machine, window, 13);
	equal("what the guest wrote", machine.word(), 13u);
}

void remapped_under_running_guest()
{
	WindowMachine machine;
	machine.word() = 1;
	Memory other(page_size);
	other.at<uint64_t>(0) = 2;
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = lm::await;
	regs.rbx = window;
	regs.rcx = 2;
	machine.vcpu.set_regs(regs);
	std::thread runner([&] { machine.vcpu.run_until(KVM_EXIT_HLT); });
	usleep(50'000);
	void *moved = mremap(other.data(), page_size, page_size, MREMAP_MAYMOVE | MREMAP_FIXED,
			     machine.address());
	that("mremap", moved == machine.address());
	runner.join();
}

void discarded()
{
	WindowMachine machine;
	poke(machine, window, 21);
	that("madvise", !madvise(machine.address(), page_size, MADV_DONTNEED));
	equal("a fresh page", peek(machine, window), 0u);
	machine.word() = 22;
	equal("what the VMM wrote", peek(machine, window), 22u);
}

// The guest's read of a page nobody has written maps the kernel's zero page; a write by either side
// replaces it for both.
void zero_page_replaced()
{
	WindowMachine machine;
	equal("zero page", peek(machine, window), 0u);
	machine.word() = 31;
	equal("after the VMM's write", peek(machine, window), 31u);
	equal("zero page", peek(machine, window + page_size), 0u);
	poke(machine, window + page_size, 32);
	equal("after the guest's write", machine.word(page_size), 32u);
	equal("the guest's own read", peek(machine, window + page_size), 32u);
}

// After a fork both sides share the pages until one writes: the guest is the parent's, so the child
// must not see what it writes, and the guest must see what the parent writes.
void copied_on_write()
{
	WindowMachine machine;
	poke(machine, window, 41);
	poke(machine, window + page_size, 42);
	int to_child[2], to_parent[2];
	that("pipes", !pipe(to_child) && !pipe(to_parent));
	const pid_t child = fork();
	if (child == 0) {
		char token;
		that("read", read(to_child[0], &token, 1) == 1);
		equal("the child's copy of what the guest changed", machine.word(), 41u);
		equal("of what the parent changed", machine.word(page_size), 42u);
		machine.word() = 99;
		that("write", write(to_parent[1], &token, 1) == 1);
		_exit(0);
	}
	poke(machine, window, 43);
	machine.word(page_size) = 44;
	equal("what the guest wrote", machine.word(), 43u);
	equal("what the parent wrote", peek(machine, window + page_size), 44u);
	char token = 0;
	that("write", write(to_child[1], &token, 1) == 1);
	that("read", read(to_parent[0], &token, 1) == 1);
	ktap::child_ok(child);
	equal("not what the child wrote", peek(machine, window), 43u);
}

// A file two processes could share: holes punched and truncation reach the guest.
void shared_file()
{
	LongMachine machine(lm::peek);
	const int fd = memfd_create("guest memory", 0);
	that("memfd", fd >= 0 && !ftruncate(fd, 2 * page_size));
	void *mapping = mmap(nullptr, 2 * page_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	that("mmap", mapping != MAP_FAILED);
	machine.vm.set_memory(1, window, 2 * page_size, mapping);
	uint64_t value = 51;
	that("pwrite", pwrite(fd, &value, sizeof(value), 0) == sizeof(value));
	equal("what was written to the file", peek(machine, window), 51u);
	poke(machine, window, 52);
	that("pread", pread(fd, &value, sizeof(value), 0) == sizeof(value));
	equal("what the guest wrote", value, 52u);
	that("fallocate", !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, page_size));
	equal("a hole", peek(machine, window), 0u);
	poke(machine, window + page_size, 53);
	that("ftruncate", !ftruncate(fd, page_size));
	equal("KVM_RUN behind the end", try_access(machine, lm::peek, window + page_size), -EFAULT);
}

// A slot that is made, and touched by the guest, while the kernel takes its page away: the guest
// must not keep the page that goes. The moment that matters is a few instructions long: the host
// tests have one at will, this one is about everything around.
void slot_made_during_invalidation()
{
	WindowMachine machine;
	constexpr unsigned rounds = 100;
	std::atomic<unsigned> round_to_discard = 0, rounds_discarded = 0;
	// The one thread discards, after another delay each time, while the other makes the slot.
	const auto wait_for = [](const std::atomic<unsigned> &counter, unsigned value) {
		while (counter < value)
			sched_yield();
	};
	const auto delay = [](unsigned turns) {
		for (unsigned i = 0; i < turns; i++)
			asm volatile("");
	};
	std::thread discarder([&] {
		for (unsigned round = 1; round <= rounds; round++) {
			wait_for(round_to_discard, round);
			delay(round * 997 % 5000);
			madvise(machine.address(), page_size, MADV_DONTNEED);
			rounds_discarded = round;
		}
	});
	for (unsigned round = 1; round <= rounds; round++) {
		machine.vm.set_memory(1, window, 0, machine.address());
		machine.word() = round;
		round_to_discard = round;
		delay(round * 613 % 3000);
		machine.vm.set_memory(1, window, page_size, machine.address());
		poke(machine, window + 8, round);
		wait_for(rounds_discarded, round);
		// A write first, so that no zero page comes between.
		machine.word(16) = round * 3;
		equal("what the VMM wrote", peek(machine, window + 16), round * 3);
		poke(machine, window + 24, round * 5);
		equal("what the guest wrote", machine.word(24), round * 5);
		that("what was there before is gone, or was not yet",
		     machine.word() == 0 || machine.word() == round);
	}
	discarder.join();
}

// Content that changes all the time while the VMM's mapping does, too.
void churn()
{
	WindowMachine machine(64 * page_size);
	for (unsigned round = 0; round < 60; round++) {
		const uint64_t offset = round * 7 % 64 * page_size;
		void *at = static_cast<std::byte *>(machine.address()) + offset;
		poke(machine, window + offset, round);
		equal("written", machine.word(offset), round);
		switch (round % 3) {
		case 0:
			remap(at, page_size);
			break;
		case 1:
			madvise(at, page_size, MADV_DONTNEED);
			break;
		case 2:
			machine.word(offset) = 0;
			break;
		}
		equal("gone", peek(machine, window + offset), 0u);
		machine.word(offset) = round + 1000;
		equal("changed", peek(machine, window + offset), round + 1000);
	}
}

constexpr ktap::Case cases[] = {
	{"one_page", one_page},
	{"touch_512_mib", touch_512_mib},
	{"touch_huge_pages", touch_huge_pages},
	{"checksum", checksum},
	{"one_memory_in_two_slots", one_memory_in_two_slots},
	{"access_across_slots", access_across_slots},
	{"moved_slot", moved_slot},
	{"replaced_slot", replaced_slot},
	{"slot_removed_under_running_guest", slot_removed_under_running_guest},
	{"read_only_slot", read_only_slot},
	{"read_only_mapping", read_only_mapping},
	{"made_read_only", made_read_only},
	{"unmapped", unmapped},
	{"never_mapped", never_mapped},
	{"unmapped_under_running_guest", unmapped_under_running_guest},
	{"code_unmapped", code_unmapped},
	{"remapped", remapped},
	{"remapped_under_running_guest", remapped_under_running_guest},
	{"discarded", discarded},
	{"zero_page_replaced", zero_page_replaced},
	{"copied_on_write", copied_on_write},
	{"shared_file", shared_file},
	{"slot_made_during_invalidation", slot_made_during_invalidation},
	{"churn", churn},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
