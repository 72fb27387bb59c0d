// SPDX-License-Identifier: GPL-2.0
//
// The VMM's memory in large pages, and what happens to them: split, punched, copied, made large and moved
// under the guest.

#include "expect.hpp"
#include "guests.hpp"
#include "host.hpp"
#include "ktap.hpp"
#include "window.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace
{

using expect::equal;
using expect::that;
using namespace window_machine;
namespace lm = guest::longmode;

constexpr size_t large = 2 * mib, pages = large / page_size;
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MFD_HUGE_1GB
#define MFD_HUGE_1GB (30u << 26)
#endif

// The window is one large page of anonymous memory, if Linux has one; each small page knows its number.
struct LargeMachine : LongMachine {
	explicit LargeMachine(bool huge = true) : LongMachine(lm::peek), room(2 * large)
	{
		at = reinterpret_cast<std::byte *>(
			(reinterpret_cast<uintptr_t>(room.data()) + large - 1) & ~(large - 1));
		madvise(at, large, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
		for (size_t i = 0; i < pages; i++)
			word(i) = i;
		vm.set_memory(1, window, large, at);
		dedicated::place(*this);
	}
	uint64_t &word(size_t page, size_t offset = 0) const
	{
		return *reinterpret_cast<uint64_t *>(at + page * page_size + offset);
	}
	std::byte *page(size_t number) const { return at + number * page_size; }
	// The guest reads and writes each page but one.
	void use_all_but(size_t left_out)
	{
		for (size_t i = 0; i < pages; i += 37) {
			if (i == left_out)
				continue;
			equal("what is in the page", peek(*this, window + i * page_size), i);
			poke(*this, window + i * page_size + 8, i * 3);
			equal("what the guest wrote", word(i, 8), i * 3);
		}
	}

	Memory room;
	std::byte *at;
};

constexpr size_t odd = 37 * 5; // a page that is used

void used_as_it_is()
{
	LargeMachine machine;
	if (!Device::is_kvmpp() || !host::have_debugfs()) {
		machine.use_all_but(pages);
		return;
	}
	poke(machine, window, 0);
	const uint64_t before = host::stats()["exit_ept_violation"];
	that("EPT violations are counted", before > 0);
	for (size_t i = 0; i < pages; i += 8)
		poke(machine, window + i * page_size + 8, i);
	const uint64_t exits = host::stats()["exit_ept_violation"] - before;
	std::printf("# %llu EPT violations for %zu pages\n", static_cast<unsigned long long>(exits),
		    pages / 8);
	that("one entry is for all of it", exits < 8);
}

void part_discarded()
{
	LargeMachine machine;
	machine.use_all_but(odd);
	poke(machine, window + odd * page_size, 1);
	that("madvise", !madvise(machine.page(odd), page_size, MADV_DONTNEED));
	equal("a fresh page", peek(machine, window + odd * page_size), 0u);
	machine.word(odd) = 7;
	equal("what the VMM wrote", peek(machine, window + odd * page_size), 7u);
	machine.use_all_but(odd);
}

void part_unmapped()
{
	LargeMachine machine;
	machine.use_all_but(odd);
	that("munmap", !munmap(machine.page(odd), page_size));
	equal("KVM_RUN", try_access(machine, lm::peek, window + odd * page_size), -EFAULT);
	machine.use_all_but(odd);
	remap(machine.page(odd), page_size);
	equal("a fresh page", peek(machine, window + odd * page_size), 0u);
}

void part_made_read_only()
{
	LargeMachine machine;
	machine.use_all_but(odd);
	that("mprotect", !mprotect(machine.page(odd), page_size, PROT_READ));
	equal("read", peek(machine, window + odd * page_size), odd);
	equal("KVM_RUN with a write", try_access(machine, lm::poke, window + odd * page_size),
	      -EFAULT);
	machine.use_all_but(odd);
}

void copied_on_write()
{
	LargeMachine machine;
	machine.use_all_but(pages);
	int to_child[2];
	that("pipe", !pipe(to_child));
	const pid_t child = fork();
	if (child == 0) {
		char token;
		close(to_child[1]);
		(void)!read(to_child[0], &token, 1);
		for (size_t i = 0; i < pages; i++)
			equal("the child's copy", machine.word(i), i);
		_exit(0);
	}
	for (size_t i = 0; i < pages; i += 37)
		equal("read after the fork", peek(machine, window + i * page_size), i);
	poke(machine, window + odd * page_size, 99);
	equal("what the guest wrote", machine.word(odd), 99u);
	machine.word(odd + 1) = 98;
	equal("what the VMM wrote", peek(machine, window + (odd + 1) * page_size), 98u);
	machine.use_all_but(odd);
	close(to_child[1]);
	close(to_child[0]);
	ktap::child_ok(child);
}

void made_large()
{
	LargeMachine machine(false);
	machine.use_all_but(pages);
	madvise(machine.at, large, MADV_HUGEPAGE);
	if (madvise(machine.at, large, MADV_COLLAPSE))
		ktap::skip("no MADV_COLLAPSE");
	machine.use_all_but(pages);
	machine.word(odd) = 5;
	equal("what the VMM wrote", peek(machine, window + odd * page_size), 5u);
	that("madvise", !madvise(machine.page(odd), page_size, MADV_DONTNEED));
	equal("a fresh page", peek(machine, window + odd * page_size), 0u);
	machine.use_all_but(odd);
}

void moved_elsewhere()
{
	LargeMachine machine;
	machine.use_all_but(pages);
	std::byte *other = static_cast<std::byte *>(
		mmap(nullptr, 2 * large, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	other = reinterpret_cast<std::byte *>((reinterpret_cast<uintptr_t>(other) + large - 1) &
					      ~(large - 1));
	that("mremap", mremap(machine.at, large, large, MREMAP_MAYMOVE | MREMAP_FIXED, other) ==
			       static_cast<void *>(other));
	equal("KVM_RUN", try_access(machine, lm::peek, window), -EFAULT);
	that("and back", mremap(other, large, large, MREMAP_MAYMOVE | MREMAP_FIXED, machine.at) ==
				 static_cast<void *>(machine.at));
	machine.use_all_but(pages);
}

void hugetlbfs()
{
	constexpr const char *count = "/proc/sys/vm/nr_hugepages";
	const int control = open(count, O_WRONLY);
	if (control < 0 || write(control, "8", 1) != 1)
		ktap::skip("no hugetlbfs");
	close(control);
	const int fd = memfd_create("huge guest memory", MFD_HUGETLB);
	that("memfd", fd >= 0 && !ftruncate(fd, 2 * large));
	void *mapping = mmap(nullptr, 2 * large, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapping == MAP_FAILED)
		ktap::skip("no huge pages to be had");
	LongMachine machine(lm::peek);
	machine.vm.set_memory(1, window, 2 * large, mapping);
	auto *words = static_cast<uint64_t *>(mapping);
	poke(machine, window + 8, 1);
	poke(machine, window + large + 0x5008, 2);
	equal("first", words[1], 1u);
	equal("second", words[(large + 0x5008) / 8], 2u);
	that("fallocate", !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, large));
	equal("a hole", peek(machine, window + 8), 0u);
	equal("the other page", peek(machine, window + large + 0x5008), 2u);
	that("ftruncate", !ftruncate(fd, large));
	equal("KVM_RUN behind the end", try_access(machine, lm::peek, window + large), -EFAULT);
}

// One entry for 1 GiB, if Linux was given hugepagesz=1G hugepages=1: see testing.rst.
void hugetlbfs_1_gib()
{
	constexpr size_t gib = 1024 * mib;
	const Fd fd(memfd_create("guest memory of 1 GiB", MFD_HUGETLB | MFD_HUGE_1GB));
	if (fd.get() < 0 || ftruncate(fd.get(), gib))
		ktap::skip("no hugetlbfs of 1 GiB");
	void *mapping = mmap(nullptr, gib, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
	if (mapping == MAP_FAILED)
		ktap::skip("no page of 1 GiB to be had");
	const auto *words = static_cast<const uint64_t *>(mapping);
	LongMachine machine(lm::touch);
	const auto set_flags = [&](uint32_t flags) {
		machine.vm.set_memory(1, window, gib, mapping, flags);
	};
	const bool counts = Device::is_kvmpp() && host::have_debugfs();
	const auto violations = [&] { return counts ? host::stats()["exit_ept_violation"] : 0; };
	set_flags(0);
	dedicated::place(machine);

	const auto is_one_entry = [&](uint64_t sum) {
		const uint64_t before = violations();
		call(machine, lm::touch, 0, window, window + gib);
		const uint64_t exits = violations() - before;
		that("one entry is for all of it", !counts || (exits > 0 && exits < 8));
		for (size_t offset = 0; offset < gib; offset += large)
			equal("what the guest wrote", words[offset / 8], sum * (window + offset));
	};
	is_one_entry(1);

	const uint64_t odd_page = gib / page_size - 37;
	std::vector<uint64_t> log(gib / page_size / 64);
	kvm_dirty_log dirty{};
	dirty.slot = 1;
	dirty.dirty_bitmap = log.data();
	set_flags(KVM_MEM_LOG_DIRTY_PAGES);
	equal("what the guest wrote", peek(machine, window + 100 * large), window + 100 * large);
	poke(machine, window + odd_page * page_size + 8, 1);
	equal("KVM_GET_DIRTY_LOG", machine.vm.fd().call(KVM_GET_DIRTY_LOG, &dirty), 0);
	for (size_t i = 0; i < log.size(); i++)
		equal("pages that were written to", log[i],
		      i == odd_page / 64 ? bit(odd_page % 64) : 0);
	set_flags(0);
	is_one_entry(2);

	that("fallocate", !fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, gib));
	for (const size_t offset : {size_t{0}, 100 * large, gib - large})
		equal("a hole", peek(machine, window + offset), 0u);
	that("munmap", !munmap(mapping, gib));
	equal("KVM_RUN", try_access(machine, lm::peek, window + 100 * large), -EFAULT);
}

// Code in a large page: with the mitigation of "iTLB multihit" it is mapped apart.
void executed()
{
	LargeMachine machine;
	const unsigned char code[] = {0x48, 0x8b, 0x03, 0xf4}; // mov (%rbx),%rax; hlt
	std::memcpy(machine.page(odd), code, sizeof(code));
	for (size_t i = 0; i < pages; i += 37) {
		if (i == odd)
			continue;
		poke(machine, window + i * page_size + 8, i + 7);
		kvm_regs regs = machine.vcpu.regs();
		regs.rip = window + odd * page_size;
		regs.rbx = window + i * page_size + 8;
		machine.vcpu.set_regs(regs);
		machine.vcpu.run_until(KVM_EXIT_HLT);
		equal("what the code read", machine.vcpu.regs().rax, i + 7);
	}
	that("the code changes, and is fetched anew",
	     !madvise(machine.page(odd), page_size, MADV_DONTNEED));
	std::memcpy(machine.page(odd), "\xf4", 1);
	kvm_regs regs = machine.vcpu.regs();
	regs.rip = window + odd * page_size;
	regs.rax = 1;
	machine.vcpu.set_regs(regs);
	machine.vcpu.run_until(KVM_EXIT_HLT);
	equal("the other code ran", machine.vcpu.regs().rax, 1u);
}

constexpr ktap::Case cases[] = {
	{"used_as_it_is", used_as_it_is},     {"part_discarded", part_discarded},
	{"part_unmapped", part_unmapped},     {"part_made_read_only", part_made_read_only},
	{"copied_on_write", copied_on_write}, {"made_large", made_large},
	{"moved_elsewhere", moved_elsewhere}, {"hugetlbfs", hugetlbfs},
	{"hugetlbfs_1_gib", hugetlbfs_1_gib}, {"executed", executed},
};

} // namespace

int main(int argc, char **argv)
{
	return ktap::run(cases, argc, argv);
}
